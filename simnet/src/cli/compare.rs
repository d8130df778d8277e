//! `simnet compare` and `simnet divergence`.

use std::process::ExitCode;

use simnet::report::Summary;
use simnet::report::compare::{self, Comparison, Divergence};
use simnet::report::files::read_summaries;
use simnet::report::plot::number;

use super::{Failure, PairArguments};

/// Compares and prints.
pub fn compare(arguments: &PairArguments) -> Result<ExitCode, Failure> {
    let first = read_summaries(&arguments.first)?;
    let second = read_summaries(&arguments.second)?;
    let comparison = compare::compare(&first, &second)?;
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&comparison)?);
    } else {
        print_comparison(&comparison);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_comparison(comparison: &Comparison) {
    say!("{} pairs, intervals from {}", comparison.pairs, comparison.intervals_from);
    if comparison.partial {
        say!("partial: a run was broken off");
    }
    say!("{:<24}{:>12}{:>12}  difference, 95 %", "", "first", "second");
    for row in &comparison.differences {
        let half = row.difference.half_width.map_or(String::new(), |half| {
            let sign = if row.significant == Some(true) { " *" } else { "" };
            format!(" ± {}{sign}", number(half))
        });
        say!(
            "{:<24}{:>12}{:>12}  {}{half}",
            row.metric,
            number(row.first),
            number(row.second),
            number(row.difference.mean)
        );
    }
}

/// Holds two engines against each other and prints.
pub fn divergence(arguments: &PairArguments) -> Result<ExitCode, Failure> {
    let one = |summaries: Vec<Summary>, path: &std::path::Path| {
        let count = summaries.len();
        let mut summaries = summaries.into_iter();
        summaries
            .next()
            .filter(|_| count == 1)
            .ok_or_else(|| format!("{} holds {count} runs; name one of them", path.display()))
    };
    let first = one(read_summaries(&arguments.first)?, &arguments.first)?;
    let second = one(read_summaries(&arguments.second)?, &arguments.second)?;
    let divergence = compare::divergence(&first, &second)?;
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&divergence)?);
    } else {
        print_divergence(&divergence);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints how far two engines are apart.
pub fn print_divergence(divergence: &Divergence) {
    let [first, second] = divergence.engines;
    say!("{}", divergence.scenario);
    say!("{:<18}{first:>22}{second:>22}  apart", "");
    for row in &divergence.figures {
        let text = |estimate: Option<simnet::stats::Estimate>| {
            estimate.map_or("–".to_owned(), |estimate| match estimate.half_width {
                Some(half) => format!("{} ± {}", number(estimate.mean), number(half)),
                None => number(estimate.mean),
            })
        };
        let apart = row.relative.map_or("–".to_owned(), |part| format!("{:+.1} %", part * 100.0));
        say!("{:<18}{:>22}{:>22}  {apart}", row.metric, text(row.first), text(row.second));
    }
}
