//! `request`, `qr`, `quote`, `explain`; and the question before a payment.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use node::environment::{Clock, SystemClock};
use node::rpc::status::{GENERAL_METADATA, Reason};
use proto::v1::{CreatePaymentRequestRequest, PayOver, QuoteRequest, QuoteResponse};
use serde_json::json;

use crate::args::requests::{ExplainArgs, OverArgs, PictureArgs, QrArgs, QuoteArgs, RequestArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, coloured, request};
use crate::qr::{Code, Look, compact};

/// Makes a payment request.
pub async fn request(client: &Client, out: Output, args: RequestArgs) -> Result<(), CliError> {
    let wanted = |left_out: bool| left_out.then_some(false);
    let ask = CreatePaymentRequestRequest {
        idempotency_key: args.mutation.key(),
        amount_msat: args.amount.map(|amount| amount.0),
        description: args.description,
        expiry_seconds: args.expiry,
        onchain: wanted(args.no_onchain),
        bolt11: wanted(args.no_bolt11),
        bolt12: wanted(args.no_bolt12),
    };
    let made = client.payments().create_payment_request(ask).await?.into_inner();
    out.answer(&made, request::made)?;
    if args.qr && !out.is_json() {
        let code = Code::of(&compact(&made.uri))?;
        out.text(&code.terminal(look(args.picture.light)))?;
    }
    pictures(out, &made.uri, &args.picture)
}

/// Draws a text.
pub fn qr(out: Output, args: &QrArgs) -> Result<(), CliError> {
    let mut text = args.text.clone();
    if text == "-" {
        text.clear();
        io::stdin().read_to_string(&mut text)?;
    }
    if args.picture.png.is_none() && args.picture.svg.is_none() {
        let code = Code::of(&compact(&text))?;
        return out.text(&code.terminal(look(args.picture.light)));
    }
    pictures(out, &text, &args.picture)
}

/// How this terminal shows a code.
fn look(light: bool) -> Look {
    match (coloured(), light) {
        (true, _) => Look::Colours,
        (false, true) => Look::OnLight,
        (false, false) => Look::OnDark,
    }
}

fn pictures(out: Output, text: &str, args: &PictureArgs) -> Result<(), CliError> {
    if args.png.is_none() && args.svg.is_none() {
        return Ok(());
    }
    let code = Code::of(&compact(text))?;
    let write = |path: &Path, picture: &[u8]| {
        fs::write(path, picture).map_err(|error| {
            CliError::Failed(format!("cannot write {}: {error}", path.display()))
        })?;
        out.note(&format!("written: {}", path.display()));
        Ok::<_, CliError>(())
    };
    if let Some(path) = &args.png {
        write(path, &code.png()?)?;
    }
    if let Some(path) = &args.svg {
        write(path, code.svg().as_bytes())?;
    }
    Ok(())
}

/// Shows what a payment would cost.
pub async fn quote(client: &Client, out: Output, args: QuoteArgs) -> Result<(), CliError> {
    let ask = QuoteRequest {
        text: args.text,
        amount_msat: args.amount.map(|amount| amount.0),
        max_fee_msat: args.max_fee.map(|fee| fee.0),
        max_parts: args.max_parts,
        feerate_sat_per_vb: args.feerate,
        over: args.over.code(),
    };
    let quote = client.payments().quote(ask).await?.into_inner();
    out.answer(&quote, request::quote)
}

impl OverArgs {
    /// As the interface has it.
    pub fn code(&self) -> i32 {
        let over = match (self.lightning, self.onchain) {
            (true, _) => PayOver::Lightning,
            (_, true) => PayOver::Onchain,
            _ => PayOver::Unspecified,
        };
        over as i32
    }

    /// Whether one was chosen.
    pub fn is_given(&self) -> bool {
        self.lightning || self.onchain
    }
}

/// Whether somebody sits at a terminal who can be asked.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Gets a quote that can be paid, and the user's word for it if `asks`.
///
/// A quote that is over while the user thinks is fetched again, and asked about again.
pub async fn agreed(
    client: &Client,
    ask: &QuoteRequest,
    asks: bool,
) -> Result<QuoteResponse, CliError> {
    loop {
        let quote = client.payments().quote(ask.clone()).await?.into_inner();
        if quote.pay_with.is_none() {
            let why = quote.warnings.first().map_or("it has no way", |why| &why.text);
            return Err(CliError::Failed(format!("it cannot be paid so: {why}")));
        }
        if !asks {
            return Ok(quote);
        }
        anstream::eprintln!("{}", request::quote(&quote));
        if !says_yes("pay this?")? {
            return Err(CliError::Failed("nothing was paid".to_owned()));
        }
        let now_ms = u64::try_from(SystemClock.now().as_millis()).unwrap_or(u64::MAX);
        if now_ms < quote.valid_until_unix_ms {
            return Ok(quote);
        }
        anstream::eprintln!("\nthe quote is over; this is a new one\n");
    }
}

fn says_yes(question: &str) -> Result<bool, CliError> {
    anstream::eprint!("\n{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Says what a reason means.
pub fn explain(out: Output, args: &ExplainArgs) -> Result<(), CliError> {
    let Some(name) = &args.reason else {
        let all: Vec<_> = Reason::ALL.iter().map(|reason| row(*reason)).collect();
        return out.report(&json!({ "reasons": all }), |_| request::reasons());
    };
    let reason = Reason::of_name(name.trim()).ok_or_else(|| {
        let names = Reason::ALL.iter().map(|reason| reason.as_str());
        let near = names.max_by(|a, b| {
            let likeness = |other| strsim::jaro_winkler(&name.to_ascii_uppercase(), other);
            likeness(a).total_cmp(&likeness(b))
        });
        let near = near.map(|near| format!(", did you mean {near}?")).unwrap_or_default();
        CliError::Usage(format!(
            "no reason is called {name}{near} `tributary explain` lists them all"
        ))
    })?;
    out.report(&row(reason), |_| request::reason(reason))
}

fn row(reason: Reason) -> serde_json::Value {
    json!({
        "reason": reason.as_str(),
        "code": node::rpc::status::code_name(reason.code()),
        "cause": reason.cause(),
        "remedy": reason.remedy(),
        "repeat": reason.retry().as_str(),
        "metadata": reason.metadata(),
        "general_metadata": GENERAL_METADATA,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    fn parsed(words: &str) -> Verb {
        let words = ["tributary"].into_iter().chain(words.split(' '));
        Cli::try_parse_from(words).unwrap().verb
    }

    #[test]
    fn ways_are_named_or_left_to_the_node() {
        let over = |words: &str| match parsed(words) {
            Verb::Quote(args) => args.over.code(),
            Verb::Pay(args) => args.over.code(),
            other => panic!("{other:?}"),
        };
        assert_eq!(over("quote bcrt1q"), PayOver::Unspecified as i32);
        assert_eq!(over("quote bcrt1q --onchain"), PayOver::Onchain as i32);
        assert_eq!(over("pay bcrt1q --lightning"), PayOver::Lightning as i32);
        let both = ["tributary", "quote", "a", "--onchain", "--lightning"];
        assert!(Cli::try_parse_from(both).is_err());
    }

    #[test]
    fn every_reason_has_its_row() {
        for reason in Reason::ALL {
            let row = row(*reason);
            assert_eq!(row["reason"], reason.as_str());
            let name = reason.as_str().to_lowercase();
            assert_eq!(Reason::of_name(&name), Some(*reason));
        }
        assert_eq!(Reason::of_name("NO_ROUT"), None);
    }
}
