//! What can go wrong in a command, how it is told, and the exit code.
//!
//! 1: refused, or failed. 2: wrong words. 3: the node cannot be reached.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use node::rpc::json::JsonError;
use node::rpc::status::{Explanation, explain};
use serde_json::json;
use tonic::{Code, Status};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum CliError {
    /// The words are understood but make no sense together.
    Usage(String),
    /// No node answers, or the answer was lost.
    Unreachable {
        /// What happened.
        message: String,
        /// What to do.
        remedy: String,
        /// Whether money may have moved: unknown if the call may have arrived.
        money: Money,
    },
    /// The node refused.
    Refused(Box<Explanation>),
    /// Something failed that moves no money.
    Failed(String),
    /// The node tried to pay, and the payment failed: nothing has moved and nothing will.
    PaymentFailed(String),
    /// The user stopped waiting while money was under way.
    Interrupted {
        /// What goes on.
        message: String,
        /// How to look at it again.
        remedy: String,
    },
    /// The output is closed or full.
    Output(io::Error),
}

/// Whether money may have moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Money {
    /// The command moves none.
    NotInvolved,
    /// It may have.
    Maybe,
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<JsonError> for CliError {
    fn from(error: JsonError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Status> for CliError {
    /// For calls that move no money; others use [`CliError::of_money_call`].
    fn from(status: Status) -> Self {
        Self::of_call(&status, None)
    }
}

impl CliError {
    /// Explains the error of a call that moves money, made with `idempotency_key`.
    pub fn of_money_call(status: &Status, idempotency_key: &str) -> Self {
        Self::of_call(status, Some(idempotency_key))
    }

    fn of_call(status: &Status, idempotency_key: Option<&str>) -> Self {
        let explanation = explain(status);
        let lost = matches!(
            explanation.code,
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded
        );
        if explanation.reason.is_some() || !lost {
            return Self::Refused(Box::new(explanation));
        }
        // No word from the node itself: the connection broke before or after it acted.
        let (remedy, money) = match idempotency_key {
            None => {
                ("check that the node runs, and repeat the command".to_owned(), Money::NotInvolved)
            }
            Some(key) => (
                format!(
                    "repeat the same command with --idempotency-key {key}: it is done at most once"
                ),
                Money::Maybe,
            ),
        };
        Self::Unreachable {
            message: format!("the connection was lost: {}", explanation.message),
            remedy,
            money,
        }
    }

    /// Returns the exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_)
            | Self::Failed(_)
            | Self::PaymentFailed(_)
            | Self::Interrupted { .. }
            | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
        }
    }

    /// Tells the user on standard error, as one JSON document or as text.
    pub fn report(&self, json: bool) -> ExitCode {
        if let Self::Output(error) = self
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            // The reader had enough (`| head`): nothing failed, nobody listens.
            return ExitCode::SUCCESS;
        }
        match json {
            true => anstream::eprintln!("{}", self.to_json()),
            false => anstream::eprint!("{}", self.to_text()),
        }
        ExitCode::from(self.exit_code())
    }

    fn to_text(&self) -> String {
        let red = AnsiColor::Red.on_default().bold();
        let mut text = String::new();
        let mut line = |label: &str, style: Style, value: &str| {
            let reset = style.render_reset();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}{label}{reset} {value}", style.render());
        };
        let bold = Style::new().bold();
        match self {
            Self::Usage(message) | Self::Failed(message) | Self::PaymentFailed(message) => {
                line("error:", red, message);
            }
            Self::Output(error) => line("error:", red, &format!("cannot write: {error}")),
            Self::Unreachable { message, remedy, .. } | Self::Interrupted { message, remedy } => {
                line("error:", red, message);
                line("remedy:", bold, remedy);
            }
            Self::Refused(explanation) => {
                let reason = match &explanation.reason {
                    Some(reason) => reason.clone(),
                    None => format!("{:?}", explanation.code),
                };
                line("error:", red, &format!("{reason}: {}", explanation.message));
                if let Some(remedy) = &explanation.remedy {
                    line("remedy:", bold, remedy);
                }
                for (key, value) in &explanation.metadata {
                    line(&format!("{key}:"), bold, value);
                }
            }
        }
        if let Some(may) = self.money_may_have_moved() {
            let answer = if may { "yes" } else { "no" };
            line("money may have moved:", bold, answer);
        }
        text
    }

    fn to_json(&self) -> serde_json::Value {
        let (reason, message, remedy) = match self {
            Self::Usage(message) => ("USAGE", message.clone(), None),
            Self::Failed(message) => ("FAILED", message.clone(), None),
            Self::PaymentFailed(message) => ("PAYMENT_FAILED", message.clone(), None),
            Self::Interrupted { message, remedy } => {
                ("INTERRUPTED", message.clone(), Some(remedy.clone()))
            }
            Self::Output(error) => ("OUTPUT", error.to_string(), None),
            Self::Unreachable { message, remedy, .. } => {
                ("UNREACHABLE", message.clone(), Some(remedy.clone()))
            }
            Self::Refused(e) => {
                (e.reason.as_deref().unwrap_or("REFUSED"), e.message.clone(), e.remedy.clone())
            }
        };
        let metadata = match self {
            Self::Refused(explanation) => json!(explanation.metadata),
            _ => json!({}),
        };
        json!({ "error": {
            "reason": reason,
            "message": message,
            "remedy": remedy,
            "money_may_have_moved": self.money_may_have_moved(),
            "metadata": metadata,
        }})
    }

    fn money_may_have_moved(&self) -> Option<bool> {
        match self {
            Self::Refused(explanation) => explanation.money_may_have_moved,
            Self::Unreachable { money, .. } => match money {
                Money::NotInvolved => None,
                Money::Maybe => Some(true),
            },
            Self::PaymentFailed(_) => Some(false),
            Self::Interrupted { .. } => Some(true),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use node::rpc::status::{Reason, Refusal};

    use super::*;

    #[test]
    fn a_refusal_is_told_whole() {
        let refusal = Refusal::new(Reason::FundsInsufficient, "need 7 sat, have 5 sat")
            .with("required_sat", 7)
            .money_may_have_moved(false);
        let error = CliError::of_money_call(&refusal.into(), "k");
        assert_eq!(error.exit_code(), 1);
        let text = anstream::adapter::strip_str(&error.to_text()).to_string();
        assert!(text.contains("error: FUNDS_INSUFFICIENT: need 7 sat, have 5 sat\n"), "{text}");
        assert!(text.contains("remedy: send coins"), "{text}");
        assert!(text.contains("required_sat: 7\n"), "{text}");
        assert!(text.ends_with("money may have moved: no\n"), "{text}");
        let json = error.to_json();
        assert_eq!(json["error"]["reason"], "FUNDS_INSUFFICIENT");
        assert_eq!(json["error"]["money_may_have_moved"], false);
        assert_eq!(json["error"]["metadata"]["required_sat"], "7");
    }

    #[test]
    fn a_lost_answer_names_the_key_and_the_risk() {
        let lost = Status::unavailable("connection reset");
        let error = CliError::of_money_call(&lost, "abc");
        assert_eq!(error.exit_code(), 3);
        let text = anstream::adapter::strip_str(&error.to_text()).to_string();
        assert!(text.contains("--idempotency-key abc"), "{text}");
        assert!(text.ends_with("money may have moved: yes\n"), "{text}");
        // The node's own UNAVAILABLE is its word, not a loss.
        let starting = Refusal::new(Reason::Starting, "the node is starting");
        assert_eq!(CliError::of_money_call(&starting.into(), "abc").exit_code(), 1);
        assert_eq!(CliError::from(lost).to_json()["error"]["money_may_have_moved"], json!(null));
    }
}
