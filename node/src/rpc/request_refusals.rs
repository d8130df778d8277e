//! Why a payment request is not read, priced or made, as refusals. Nothing has moved in any case.

use super::refusals::spend;
use super::status::{Reason, Refusal};
use crate::requests::{CreateRequestError, NameError, Problem, QuoteError, ReadError, WayKind};

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::from(&error)
    }
}

impl From<&ReadError> for Refusal {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::Decode(error) => Self::from(error.clone()),
            ReadError::Name(error) => Self::from(error),
            ReadError::Empty
            | ReadError::Uri(_)
            | ReadError::Foreign { .. }
            | ReadError::Unknown { .. }
            | ReadError::MixedNetworks { .. }
            | ReadError::AmountsDiffer { .. } => Self::new(Reason::PaymentRequestInvalid, error),
        }
    }
}

impl From<&NameError> for Refusal {
    fn from(error: &NameError) -> Self {
        match error {
            NameError::Off => Self::new(Reason::NamesOff, error),
            NameError::Malformed(_) => Self::new(Reason::PaymentRequestInvalid, error),
            NameError::Unreachable { resolver, .. } | NameError::Silent { resolver, .. } => {
                Self::new(Reason::ResolverUnreachable, error).with("resolver", resolver)
            }
            NameError::Unknown { name } => Self::new(Reason::NameUnknown, error).with("name", name),
            NameError::Unsigned { name } | NameError::Unproven { name, .. } => {
                Self::new(Reason::NameUnproven, error).with("name", name)
            }
        }
    }
}

impl From<QuoteError> for Refusal {
    fn from(error: QuoteError) -> Self {
        let refuse = |reason| Self::new(reason, &error);
        let refusal = match &error {
            QuoteError::Read(error) => Self::from(error),
            QuoteError::NothingPayable { problems } => nothing_payable(&error, problems),
            QuoteError::NotOver(_) => refuse(Reason::NothingPayable),
            QuoteError::AmountMissing => refuse(Reason::AmountMissing),
            QuoteError::ZeroAmount => refuse(Reason::AmountOutOfRange).with("amount_msat", 0),
            QuoteError::AmountTooHigh { amount_msat } => {
                refuse(Reason::AmountOutOfRange).with("amount_msat", amount_msat)
            }
            QuoteError::AmountMismatch { asked_msat, given_msat } => refuse(Reason::AmountMismatch)
                .with("asked_msat", asked_msat)
                .with("given_msat", given_msat),
            QuoteError::Spend(error) => spend(error),
            QuoteError::Broken(_) => refuse(Reason::Internal),
            QuoteError::Store(_) => refuse(Reason::StoreFailed),
        };
        refusal.money_may_have_moved(false)
    }
}

/// A problem that all ways share is told by its own reason.
fn nothing_payable(error: &QuoteError, problems: &[(WayKind, Problem)]) -> Refusal {
    let all = |matches: fn(&Problem) -> bool| problems.iter().all(|(_, problem)| matches(problem));
    match problems.first() {
        Some((_, Problem::OtherNetwork { ours, .. }))
            if all(|problem| matches!(problem, Problem::OtherNetwork { .. })) =>
        {
            Refusal::new(Reason::WrongNetwork, error).with("network", ours)
        }
        Some((_, Problem::Expired { seconds }))
            if all(|problem| matches!(problem, Problem::Expired { .. })) =>
        {
            Refusal::new(Reason::InvoiceExpired, error).with("expired_seconds", seconds)
        }
        _ => Refusal::new(Reason::NothingPayable, error),
    }
}

impl From<CreateRequestError> for Refusal {
    fn from(error: CreateRequestError) -> Self {
        let refusal = match error {
            CreateRequestError::NoWay => Self::new(Reason::FieldInvalid, error)
                .with("field", "onchain")
                .remedy("leave in an address, an invoice or an offer"),
            CreateRequestError::TooSmall { amount_msat } => {
                Self::new(Reason::AmountDust, error).with("amount_msat", amount_msat)
            }
            CreateRequestError::Address(error) => Self::from(error),
            CreateRequestError::Part(error) => Self::from(error),
        };
        // A code that nobody has seen costs nothing.
        refusal.money_may_have_moved(false)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bitcoin::Network;

    use super::*;
    use crate::requests::Reading;

    fn reason(problems: Vec<(WayKind, Problem)>) -> Reason {
        Refusal::from(QuoteError::NothingPayable { problems }).reason()
    }

    #[test]
    fn a_problem_of_all_ways_has_its_own_reason() {
        let other = || {
            let theirs = "signet".to_owned();
            (WayKind::OnChain, Problem::OtherNetwork { theirs, ours: Network::Regtest })
        };
        let expired = || (WayKind::Bolt11, Problem::Expired { seconds: 5 });
        assert_eq!(reason(vec![other(), other()]), Reason::WrongNetwork);
        assert_eq!(reason(vec![expired()]), Reason::InvoiceExpired);
        assert_eq!(reason(vec![other(), expired()]), Reason::NothingPayable);
    }

    #[test]
    fn texts_are_refused_by_reason() {
        let refused = |text: &str| {
            let read = Reading::of(text, Network::Regtest, Duration::ZERO);
            Refusal::from(read.unwrap_err()).reason()
        };
        assert_eq!(refused("hello"), Reason::PaymentRequestInvalid);
        assert_eq!(refused("bitcoin:?req-x=1"), Reason::PaymentRequestInvalid);
        assert_eq!(refused("lnbcrt1nonsense"), Reason::InvoiceInvalid);
        assert_eq!(Refusal::from(&NameError::Off).reason(), Reason::NamesOff);
    }
}
