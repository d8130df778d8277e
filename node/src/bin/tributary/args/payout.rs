//! The words of `tributary payout`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{ListArgs, MutationArgs};
use crate::amount::{Msat, RULE};
use crate::parse::{self, PayoutId};

/// `payout …`
#[derive(Debug, Subcommand)]
pub enum PayoutVerb {
    /// Check and quote a file of payments, once or repeated, and accept the quote if wished
    Create(PayoutCreateArgs),
    /// List payouts
    List(PayoutListArgs),
    /// Show one payout
    Show(PayoutShowArgs),
    /// List lines of a payout, with their receipts
    Lines(PayoutLinesArgs),
    /// Agree to a quote: its lines are paid
    Accept(PayoutAcceptArgs),
    /// Begin no further line, for now
    Pause(PayoutOneArgs),
    /// Go on
    Resume(PayoutOneArgs),
    /// Begin no further line, ever
    Cancel(PayoutOneArgs),
    /// Pay lines anew that were given up
    Retry(PayoutRetryArgs),
    /// Show a payout, and each change until it has ended
    Watch(PayoutShowArgs),
    /// Check that a payout balances to the millisatoshi, and write a row for each line
    Reconcile(PayoutReconcileArgs),
}

/// `payout create`
#[derive(Debug, Args)]
#[command(after_help = RULE)]
pub struct PayoutCreateArgs {
    /// Comma-separated values; the first line names the columns: target, amount_msat or
    /// amount_sat, max_fee_msat or max_fee_sat, reference, note. `-` reads standard input
    pub file: PathBuf,
    /// What it is
    #[arg(long, default_value = "")]
    pub name: String,
    /// Most that all lines may pay; those beyond it are bad
    #[arg(long, value_name = "AMOUNT")]
    pub max_total: Option<Msat>,
    /// Most that one line may pay
    #[arg(long, value_name = "AMOUNT")]
    pub max_line: Option<Msat>,
    /// Most to pay in fees for one line, where the file does not say
    #[arg(long, value_name = "AMOUNT")]
    pub max_line_fee: Option<Msat>,
    /// Payments under way at once, 1 to 100
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u32>,
    /// Feerate of transactions
    #[arg(long, value_name = "SAT_PER_VB")]
    pub feerate: Option<u64>,
    /// How long to try lines that cannot be paid for now, for example 30m, 6h, 7d
    #[arg(long, value_parser = parse::seconds, value_name = "TIME")]
    pub time_limit: Option<u64>,
    /// Begin that much later, for example 90s, 2h, 30d
    #[arg(long = "in", value_parser = parse::seconds, value_name = "TIME")]
    pub later: Option<u64>,
    /// Repeat it: daily, weekly, monthly, or for example 90s, 12h, 14d
    #[arg(long, value_name = "TIME", requires = "budget")]
    pub every: Option<Every>,
    /// After how many runs it ends
    #[arg(long, value_name = "N", requires = "every")]
    pub runs: Option<u32>,
    /// For how long runs are due, from the first on
    #[arg(long, value_parser = parse::seconds, value_name = "TIME", requires = "every")]
    pub lasting: Option<u64>,
    /// Most that all runs may cost together, fees included
    #[arg(long, value_name = "AMOUNT", requires = "every")]
    pub budget: Option<Msat>,
    /// Accept the quote if it pays this much in total
    #[arg(long, value_name = "AMOUNT", conflicts_with = "yes")]
    pub accept: Option<Msat>,
    /// Accept the quote, whatever it is
    #[arg(long)]
    pub yes: bool,
    /// Leave bad lines out
    #[arg(long)]
    pub skip_bad: bool,
    /// Wait until it has ended
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// The time from one run to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    /// Of a calendar.
    Named(Calendar),
    /// In seconds.
    Seconds(u64),
}

/// A time of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Calendar {
    Daily,
    Weekly,
    Monthly,
}

impl std::str::FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Calendar::from_str(text, true) {
            Ok(named) => Ok(Self::Named(named)),
            Err(_) => parse::seconds(text)
                .map(Self::Seconds)
                .map_err(|error| format!("{error}, or daily, weekly or monthly")),
        }
    }
}

/// `payout list`
#[derive(Debug, Args)]
pub struct PayoutListArgs {
    /// Only those in this state; may be repeated
    #[arg(long, value_enum)]
    pub state: Vec<PayoutStateArg>,
    /// Only runs of this schedule
    #[arg(long, value_name = "PAYOUT")]
    pub runs_of: Option<PayoutId>,
    #[command(flatten)]
    pub list: ListArgs,
}

/// State of a payout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PayoutStateArg {
    Quoted,
    Scheduled,
    Running,
    Paused,
    Cancelling,
    Completed,
    Cancelled,
}

/// `payout show`, `payout watch`
#[derive(Debug, Args)]
pub struct PayoutShowArgs {
    /// The payout
    pub payout: PayoutId,
}

/// `payout lines`
#[derive(Debug, Args)]
pub struct PayoutLinesArgs {
    /// The payout
    pub payout: PayoutId,
    /// Only those in this state; may be repeated
    #[arg(long, value_enum)]
    pub state: Vec<PayoutLineStateArg>,
    #[command(flatten)]
    pub list: ListArgs,
}

/// State of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PayoutLineStateArg {
    Bad,
    Pending,
    Paying,
    Paid,
    Failed,
    Cancelled,
}

/// `payout accept`
#[derive(Debug, Args)]
#[command(after_help = RULE)]
pub struct PayoutAcceptArgs {
    /// The payout
    pub payout: PayoutId,
    /// What the quote pays in total
    #[arg(long)]
    pub total: Msat,
    /// The quote's bound of fees
    #[arg(long)]
    pub max_fee: Msat,
    /// Leave bad lines out
    #[arg(long)]
    pub skip_bad: bool,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `payout pause`, `payout resume`, `payout cancel`
#[derive(Debug, Args)]
pub struct PayoutOneArgs {
    /// The payout
    pub payout: PayoutId,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `payout retry`
#[derive(Debug, Args)]
pub struct PayoutRetryArgs {
    /// The payout
    pub payout: PayoutId,
    /// Only this line; may be repeated [default: all that were given up]
    #[arg(long, value_name = "NUMBER")]
    pub line: Vec<u32>,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `payout reconcile`
#[derive(Debug, Args)]
pub struct PayoutReconcileArgs {
    /// The payout
    pub payout: PayoutId,
    /// Write the rows into this file [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::Cli;

    #[test]
    fn nonsense_is_wrong_usage() {
        for words in [
            "payout create",
            "payout create f --every 2w --budget 5",
            "payout create f --every 1d",
            "payout create f --runs 3",
            "payout create f --accept 5 --yes",
            "payout accept 00112233445566778899aabbccddeeff",
            "payout show 0011",
        ] {
            let all = ["tributary"].into_iter().chain(words.split(' '));
            let error = Cli::try_parse_from(all).expect_err(words);
            assert_eq!(error.exit_code(), 2, "{words}");
        }
    }
}
