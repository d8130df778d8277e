//! One function for each verb: words in, one or a few calls, an answer out.

mod batches;
mod channels;
mod events;
mod hub;
mod invoices;
mod node;
mod payments;
mod payouts;
mod swaps;
mod tokens;
mod tower;
mod wallet;
mod webhooks;

use std::future::Future;

use clap::CommandFactory;
use tonic::{Response, Status};

use crate::args::tower::TowerVerb;
use crate::args::{BatchVerb, Cli, Global, Verb};
use crate::client::Client;
use crate::error::CliError;
use crate::output::Output;

/// Most items asked for in one page.
const PAGE_SIZE_MAX: u32 = 1_000;

/// Runs a verb of the client.
pub async fn run(verb: Verb, global: &Global) -> Result<(), CliError> {
    let out = Output::new(global);
    if let Verb::Completions(args) = &verb {
        let mut script = Vec::new();
        clap_complete::generate(args.shell, &mut Cli::command(), "tributary", &mut script);
        return out.text(&String::from_utf8_lossy(&script));
    }
    // What makes no sense is told before anything is dialled.
    if let Verb::Connect(args) = &verb
        && args.peer.address.is_none()
    {
        return Err(CliError::Usage("say where the peer listens: NODE_ID@HOST:PORT".to_owned()));
    }
    if let Verb::Batch(BatchVerb::Verify { file }) = &verb {
        return batches::verify(out, file);
    }
    if let Verb::Token(verb) = &verb
        && let Some(done) = tokens::without_a_node(verb, out)
    {
        return done;
    }
    let client = Client::connect(global).await?;
    call(verb, &client, out).await
}

/// Runs a verb on a connected node.
async fn call(verb: Verb, client: &Client, out: Output) -> Result<(), CliError> {
    match verb {
        Verb::Node(_) | Verb::Dev(_) | Verb::Completions(_) => {
            unreachable!("main and run take them before a node is dialled")
        }
        Verb::Info => node::info(client, out).await,
        Verb::Peers(args) => node::peers(client, out, &args).await,
        Verb::Connect(args) => node::connect(client, out, args).await,
        Verb::Disconnect(args) => node::disconnect(client, out, args).await,
        Verb::Stop(args) => node::stop(client, out, &args).await,
        Verb::Channel(verb) => channels::run(verb, client, out).await,
        Verb::Batch(verb) => batches::run(verb, client, out).await,
        Verb::Token(verb) => tokens::run(verb, client, out).await,
        Verb::Tower(args) => match args.verb {
            Some(TowerVerb::Add(args)) => tower::add(client, out, args).await,
            Some(TowerVerb::List) => tower::list(client, out).await,
            Some(TowerVerb::Remove(args)) => tower::remove(client, out, args).await,
            Some(TowerVerb::Init(_)) | None => unreachable!("main takes them"),
        },
        Verb::Invoice(args) => invoices::create(client, out, args).await,
        Verb::Invoices(args) => invoices::list(client, out, &args).await,
        Verb::Offer(args) => invoices::offer(client, out, args).await,
        Verb::Decode(args) => invoices::decode(client, out, args).await,
        Verb::Hold(verb) => invoices::hold(client, out, verb).await,
        Verb::Pay(args) => payments::pay(client, out, args).await,
        Verb::Payment(args) => payments::one(client, out, &args).await,
        Verb::Payments(args) => payments::list(client, out, &args).await,
        Verb::Estimate(args) => payments::estimate(client, out, args).await,
        Verb::Wallet(verb) => wallet::run(verb, client, out).await,
        Verb::Events(args) => events::run(client, out, &args).await,
        Verb::Webhook(verb) => webhooks::run(verb, client, out).await,
        Verb::Payout(verb) => payouts::run(verb, client, out).await,
    }
}

/// Reads pages until there are `limit` items or no more. `page` takes the page's size and
/// token; the token returned is that of what was left.
async fn pages<T, F, Answer>(limit: u32, mut page: F) -> Result<(Vec<T>, Option<String>), CliError>
where
    F: FnMut(u32, Option<String>) -> Answer,
    Answer: Future<Output = Result<(Vec<T>, Option<String>), Status>>,
{
    let mut all = Vec::new();
    let mut token = None;
    loop {
        // At most `limit` items are in `all`, so the difference fits.
        let wanted = limit.saturating_sub(all.len() as u32);
        let (items, next) = page(wanted.min(PAGE_SIZE_MAX), token).await?;
        let progress = !items.is_empty();
        all.extend(items.into_iter().take(wanted as usize));
        token = next;
        if token.is_none() || all.len() >= limit as usize || !progress {
            return Ok((all, token));
        }
    }
}

/// Says that a list was cut.
fn note_cut(out: Output, next_page_token: &Option<String>) {
    if next_page_token.is_some() {
        out.note("there are more: raise --limit");
    }
}

/// Turns the error of a call that moves money into one that names the key to repeat it with.
fn money<T>(answer: Result<Response<T>, Status>, key: &str) -> Result<T, CliError> {
    answer.map(Response::into_inner).map_err(|status| CliError::of_money_call(&status, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of the numbers below `total`, cut into pages as a server would.
    async fn numbers(limit: u32, total: u32, server_max: u32) -> (Vec<u32>, Option<String>, u32) {
        let mut calls = 0;
        let (all, token) = pages(limit, |size, token| {
            calls += 1;
            let start: u32 = token.map_or(0, |t: String| t.parse().unwrap());
            let end = (start + size.min(server_max)).min(total);
            let next = (end < total).then(|| end.to_string());
            async move { Ok(((start..end).collect(), next)) }
        })
        .await
        .unwrap();
        (all, token, calls)
    }

    #[tokio::test]
    async fn pages_are_read_until_the_limit() {
        let (all, token, calls) = numbers(5, 3, 100).await;
        assert_eq!((all.len(), token, calls), (3, None, 1));
        let (all, token, calls) = numbers(2_500, 10_000, 1_000).await;
        assert_eq!(all, (0..2_500).collect::<Vec<_>>());
        assert_eq!((token.as_deref(), calls), (Some("2500"), 3));
        // A server may give less than was asked for.
        let (all, _, calls) = numbers(10, 10, 3).await;
        assert_eq!((all.len(), calls), (10, 4));
    }
}
