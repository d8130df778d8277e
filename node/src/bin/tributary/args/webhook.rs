//! The words of `tributary webhook`.

use clap::{ArgGroup, Args, Subcommand};

use super::{EventKindArg, ListArgs, MutationArgs};
use crate::parse::{self, EndpointId};

/// `webhook …`
#[derive(Debug, Subcommand)]
pub enum WebhookVerb {
    /// Tell an endpoint what happens from now on, and show its secret
    Create(WebhookCreateArgs),
    /// List the endpoints
    List(ListArgs),
    /// Show one endpoint
    Show(WebhookShowArgs),
    /// Change what an endpoint is told of, and where it is
    Update(WebhookUpdateArgs),
    /// Forget an endpoint and everything that waits for it
    Delete(WebhookOneArgs),
    /// Replace the secret of an endpoint
    Rotate(WebhookRotateArgs),
    /// Send a test event now, and say what came of it
    Test(WebhookOneArgs),
    /// List the events that were given up
    Dead(WebhookDeadArgs),
    /// Deliver again: from a sequence on, or what was given up
    Replay(WebhookReplayArgs),
}

/// `webhook create`
#[derive(Debug, Args)]
pub struct WebhookCreateArgs {
    /// Where events are sent, https://…
    pub url: String,
    /// Only events of this kind; may be repeated
    #[arg(long, value_enum)]
    pub kind: Vec<EventKindArg>,
    /// What it is for
    #[arg(long, short, default_value = "")]
    pub description: String,
    /// Begin after this sequence; 0 for the whole log [default: only new events]
    #[arg(long, value_name = "SEQUENCE")]
    pub after: Option<u64>,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `webhook show`
#[derive(Debug, Args)]
pub struct WebhookShowArgs {
    /// The endpoint
    pub endpoint: EndpointId,
}

/// `webhook delete`, `webhook test`
#[derive(Debug, Args)]
pub struct WebhookOneArgs {
    /// The endpoint
    pub endpoint: EndpointId,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `webhook update`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub struct WebhookUpdateArgs {
    /// The endpoint
    pub endpoint: EndpointId,
    /// Where events are sent from now on
    #[arg(long, group = "change")]
    pub url: Option<String>,
    /// Only events of this kind from now on; may be repeated
    #[arg(long, value_enum, group = "change")]
    pub kind: Vec<EventKindArg>,
    /// Events of every kind from now on
    #[arg(long, group = "change", conflicts_with = "kind")]
    pub all_kinds: bool,
    /// What it is for
    #[arg(long, short, group = "change")]
    pub description: Option<String>,
    /// Tell it again, also what happened meanwhile
    #[arg(long, group = "change", conflicts_with = "disable")]
    pub enable: bool,
    /// Tell it nothing for now
    #[arg(long, group = "change")]
    pub disable: bool,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `webhook rotate`
#[derive(Debug, Args)]
pub struct WebhookRotateArgs {
    /// The endpoint
    pub endpoint: EndpointId,
    /// How long the present secret signs as well, for example 1h; 0 if others may know it
    /// [default: as configured]
    #[arg(long, value_parser = parse::seconds_u32, value_name = "TIME")]
    pub grace: Option<u32>,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `webhook dead`
#[derive(Debug, Args)]
pub struct WebhookDeadArgs {
    /// The endpoint
    pub endpoint: EndpointId,
    #[command(flatten)]
    pub list: ListArgs,
}

/// `webhook replay`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub struct WebhookReplayArgs {
    /// The endpoint
    pub endpoint: EndpointId,
    /// Everything after this sequence; 0 for the whole log
    #[arg(long, value_name = "SEQUENCE", group = "what")]
    pub after: Option<u64>,
    /// Everything that was given up
    #[arg(long, group = "what")]
    pub dead: bool,
    #[command(flatten)]
    pub mutation: MutationArgs,
}
