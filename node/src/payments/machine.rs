//! The life of a payment as a pure machine: a state, an input, a decision.
//!
//! ```text
//! outbound:  Pay → InFlight ─→ Succeeded | Failed
//! inbound:   Claimable → Held → Claiming → Succeeded
//!                         └──→ Failed (given back)
//! ```
//!
//! LDK repeats its events after a crash, so an input that finds its work done decides nothing.

use std::time::Duration;

use super::record::{PaymentRecord, PaymentState};
use crate::journal::{PaymentEvent, PaymentRequestKind};
use crate::lightning::types::{NodeId, PaymentHash, PaymentId, Preimage};
use crate::lightning::{FailureReason, InboundKind};

/// What can come to a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A caller wants to pay. Values are validated.
    Pay {
        /// What to pay.
        request: PaymentRequestKind,
        /// Its hash, unless an offer.
        hash: Option<PaymentHash>,
        /// Its preimage, if keysend.
        preimage: Option<Preimage>,
        /// The receiver, where known.
        payee: Option<NodeId>,
        /// What the receiver gets, msat.
        amount_msat: u64,
        /// Most it may cost, msat.
        max_fee_msat: u64,
        /// Most parts.
        max_parts: u8,
        /// How long failed parts are retried, in seconds.
        retry_seconds: u64,
        /// What it is for.
        description: Option<String>,
    },
    /// LDK says it reached the receiver.
    Sent {
        /// The proof.
        preimage: Preimage,
        /// What the receiver got, msat, where LDK knows.
        amount_msat: Option<u64>,
        /// What it cost, msat, where LDK knows.
        fee_msat: Option<u64>,
        /// In how many parts it arrived; 0 where that is not known.
        parts: u32,
    },
    /// LDK says it failed, or refused to start it.
    SendFailed {
        /// Why.
        reason: FailureReason,
    },
    /// LDK holds a payment for us.
    Claimable {
        /// Its hash.
        hash: PaymentHash,
        /// What we get, msat.
        amount_msat: u64,
        /// How it was asked for.
        kind: InboundKind,
        /// The preimage, unless only the operator knows it.
        preimage: Option<Preimage>,
        /// The height by which it must be claimed.
        claim_deadline: Option<u32>,
        /// Whether we asked for it and still want it.
        wanted: bool,
    },
    /// The operator gives the preimage of a held payment.
    Settle {
        /// It.
        preimage: Preimage,
    },
    /// A held payment is given back, on request or because its deadline nears.
    GiveBack {
        /// Why, in words.
        why: String,
    },
    /// LDK says a claim is irrevocable.
    Claimed {
        /// Its hash.
        hash: PaymentHash,
        /// What we got, msat.
        amount_msat: u64,
        /// In how many parts it came.
        parts: u32,
    },
}

impl Input {
    /// Whom a payment pays, where known, and the most it may cost, msat.
    pub(super) fn spends(&self) -> (Option<NodeId>, u64) {
        match self {
            Self::Pay { payee, amount_msat, max_fee_msat, .. } => {
                (*payee, amount_msat.saturating_add(*max_fee_msat))
            }
            _ => (None, 0),
        }
    }
}

/// What to do once the events are recorded. Doing one twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start the payment.
    Send(PaymentId),
    /// Claim it.
    Claim(Preimage),
    /// Fail it back.
    FailBack(PaymentHash),
}

/// What an input comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// What happened.
    pub events: Vec<PaymentEvent>,
    /// What to do about it.
    pub effects: Vec<Effect>,
}

/// Why an input is refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no payment it could be about.
    #[error("no payment waits under this hash")]
    NotHeld,
    /// It is in another state.
    #[error("payment is {state:?} and cannot be changed")]
    WrongState {
        /// Which.
        state: PaymentState,
    },
    /// The preimage does not open the hash.
    #[error("preimage does not belong to payment hash {hash}")]
    WrongPreimage {
        /// The hash of the held payment.
        hash: PaymentHash,
    },
    /// Outcomes that exclude each other.
    #[error("payment is {state:?}, yet LDK reports the opposite; stop and report this")]
    Contradiction {
        /// What is recorded.
        state: PaymentState,
    },
}

/// Decides what `input` means for payment `id`, given its record.
pub fn decide(
    id: PaymentId,
    record: Option<&PaymentRecord>,
    input: Input,
) -> Result<Decision, Rejection> {
    let state = record.map(|record| record.state);
    match input {
        Input::Pay {
            request,
            hash,
            preimage,
            payee,
            amount_msat,
            max_fee_msat,
            max_parts,
            retry_seconds,
            description,
        } => match state {
            Some(state) => Err(Rejection::WrongState { state }),
            None => Ok(Decision {
                events: vec![PaymentEvent::Initiated {
                    id,
                    request,
                    hash,
                    preimage,
                    payee,
                    amount_msat,
                    max_fee_msat,
                    max_parts,
                    retry_seconds,
                    description,
                }],
                effects: vec![Effect::Send(id)],
            }),
        },
        Input::Sent { preimage, amount_msat, fee_msat, parts } => match (state, record) {
            (Some(PaymentState::Succeeded), _) => Ok(Decision::default()),
            (Some(state @ PaymentState::Failed), _) => Err(Rejection::Contradiction { state }),
            (_, record) => Ok(Decision {
                events: vec![PaymentEvent::Succeeded {
                    id,
                    preimage,
                    amount_msat: amount_msat.or(record.map(|r| r.amount_msat)).unwrap_or(0),
                    fee_msat: fee_msat.unwrap_or(0),
                    parts,
                }],
                effects: Vec::new(),
            }),
        },
        Input::SendFailed { reason } => match state {
            Some(PaymentState::Failed) => Ok(Decision::default()),
            Some(state @ PaymentState::Succeeded) => Err(Rejection::Contradiction { state }),
            _ => Ok(Decision {
                events: vec![PaymentEvent::Failed { id, reason }],
                effects: Vec::new(),
            }),
        },
        Input::Claimable { hash, amount_msat, kind, preimage, claim_deadline, wanted } => {
            Ok(claimable(id, record, hash, amount_msat, kind, preimage, claim_deadline, wanted))
        }
        Input::Settle { preimage } => match record {
            Some(record) if record.state == PaymentState::Held => {
                let hash = record.hash.ok_or(Rejection::NotHeld)?;
                if preimage.hash() != hash {
                    return Err(Rejection::WrongPreimage { hash });
                }
                Ok(claim(id, hash, preimage, record.amount_msat, false))
            }
            // The same preimage again: the first call is being carried out.
            Some(record) if record.preimage == Some(preimage) => Ok(Decision::default()),
            Some(record) => Err(Rejection::WrongState { state: record.state }),
            None => Err(Rejection::NotHeld),
        },
        Input::GiveBack { why } => match record {
            Some(PaymentRecord {
                state: PaymentState::Held,
                hash: Some(hash),
                amount_msat,
                ..
            }) => Ok(Decision {
                events: vec![PaymentEvent::Returned {
                    id,
                    hash: *hash,
                    amount_msat: *amount_msat,
                    why,
                }],
                effects: vec![Effect::FailBack(*hash)],
            }),
            Some(record) => Err(Rejection::WrongState { state: record.state }),
            None => Err(Rejection::NotHeld),
        },
        Input::Claimed { hash, amount_msat, parts } => match state {
            Some(PaymentState::Succeeded) => Ok(Decision::default()),
            _ => Ok(Decision {
                events: vec![PaymentEvent::Received { id, hash, amount_msat, parts }],
                effects: Vec::new(),
            }),
        },
    }
}

fn claim(
    id: PaymentId,
    hash: PaymentHash,
    preimage: Preimage,
    amount_msat: u64,
    keysend: bool,
) -> Decision {
    Decision {
        events: vec![PaymentEvent::Claiming { id, hash, preimage, amount_msat, keysend }],
        effects: vec![Effect::Claim(preimage)],
    }
}

#[allow(clippy::too_many_arguments, reason = "the fields of one input")]
fn claimable(
    id: PaymentId,
    record: Option<&PaymentRecord>,
    hash: PaymentHash,
    amount_msat: u64,
    kind: InboundKind,
    preimage: Option<Preimage>,
    claim_deadline: Option<u32>,
    wanted: bool,
) -> Decision {
    match record.map(|record| (record.state, record.preimage)) {
        // Repeated after a crash between the claim and its record on disk.
        Some((PaymentState::Claiming, Some(preimage))) => {
            return Decision { events: Vec::new(), effects: vec![Effect::Claim(preimage)] };
        }
        Some((PaymentState::Held, _)) if preimage.is_none() => return Decision::default(),
        // Paid before: an invoice is taken once, and who pays it twice gets it back.
        Some((PaymentState::Succeeded | PaymentState::Claiming, _)) => {
            return Decision { events: Vec::new(), effects: vec![Effect::FailBack(hash)] };
        }
        _ => {}
    }
    match preimage {
        Some(preimage) if wanted => {
            claim(id, hash, preimage, amount_msat, kind == InboundKind::Keysend)
        }
        None if wanted => Decision {
            events: vec![PaymentEvent::Held { id, hash, amount_msat, claim_deadline }],
            effects: Vec::new(),
        },
        _ => Decision {
            events: vec![PaymentEvent::Returned {
                id,
                hash,
                amount_msat,
                why: "nothing of ours asks for it any more".into(),
            }],
            effects: vec![Effect::FailBack(hash)],
        },
    }
}

/// What to do for a payment after a restart. `under_way`: LDK still works on it.
///
/// A payment that LDK does not know never left: its state and LDK's are written in one batch
/// before a message goes out. It is tried again within its own time, else it failed.
pub fn unfinished(record: &PaymentRecord, under_way: bool, now: Duration) -> Option<Unfinished> {
    match record.state {
        PaymentState::InFlight if !under_way => {
            let until = record.created_ms.saturating_add(record.retry_seconds * 1_000);
            if crate::journal::millis(now) < until {
                Some(Unfinished::Do(Effect::Send(record.id)))
            } else {
                let input = Input::SendFailed { reason: FailureReason::NeverSent };
                Some(Unfinished::Feed(Box::new(input)))
            }
        }
        PaymentState::Claiming => record.preimage.map(|p| Unfinished::Do(Effect::Claim(p))),
        _ => None,
    }
}

/// What a restart owes a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfinished {
    /// An effect, again.
    Do(Effect),
    /// An input that can be told by now.
    Feed(Box<Input>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::record::{Direction, PaymentKind};

    const ID: PaymentId = PaymentId([1; 32]);
    const PREIMAGE: Preimage = Preimage([2; 32]);

    fn pay() -> Input {
        Input::Pay {
            request: PaymentRequestKind::Bolt11 { invoice: "lnbcrt1".into(), over: None },
            hash: Some(PREIMAGE.hash()),
            preimage: None,
            payee: None,
            amount_msat: 1_000,
            max_fee_msat: 10,
            max_parts: 1,
            retry_seconds: 60,
            description: None,
        }
    }

    fn sent() -> Input {
        Input::Sent { preimage: PREIMAGE, amount_msat: Some(1_000), fee_msat: Some(3), parts: 2 }
    }

    fn failed() -> Input {
        Input::SendFailed { reason: FailureReason::RouteNotFound }
    }

    fn claimable(preimage: Option<Preimage>, wanted: bool) -> Input {
        Input::Claimable {
            hash: PREIMAGE.hash(),
            amount_msat: 500,
            kind: InboundKind::Bolt11,
            preimage,
            claim_deadline: Some(100),
            wanted,
        }
    }

    /// Feeds `inputs` one after the other and returns the record and all effects.
    fn run(inputs: Vec<Input>) -> (Option<PaymentRecord>, Vec<Effect>) {
        let mut record = None;
        let mut effects = Vec::new();
        for input in inputs {
            let decision = decide(ID, record.as_ref(), input).unwrap();
            for event in &decision.events {
                record = PaymentRecord::apply(record, event, Duration::from_secs(1));
            }
            effects.extend(decision.effects);
        }
        (record, effects)
    }

    #[test]
    fn a_payment_succeeds_once() {
        let (record, effects) = run(vec![pay(), sent(), sent()]);
        let record = record.unwrap();
        assert_eq!((record.state, record.fee_msat), (PaymentState::Succeeded, 3));
        assert_eq!(record.parts, 2);
        assert_eq!((record.direction, record.kind), (Direction::Outbound, PaymentKind::Bolt11));
        assert_eq!(effects, vec![Effect::Send(ID)]);
    }

    #[test]
    fn outcomes_exclude_each_other() {
        let (record, _) = run(vec![pay(), failed(), failed()]);
        assert!(matches!(
            decide(ID, record.as_ref(), sent()),
            Err(Rejection::Contradiction { state: PaymentState::Failed })
        ));
        let (record, _) = run(vec![pay(), sent()]);
        assert!(matches!(
            decide(ID, record.as_ref(), failed()),
            Err(Rejection::Contradiction { state: PaymentState::Succeeded })
        ));
    }

    #[test]
    fn one_id_is_one_payment() {
        let (record, _) = run(vec![pay()]);
        assert_eq!(
            decide(ID, record.as_ref(), pay()),
            Err(Rejection::WrongState { state: PaymentState::InFlight })
        );
    }

    #[test]
    fn a_repeated_claimable_claims_again_but_records_nothing() {
        let (record, effects) =
            run(vec![claimable(Some(PREIMAGE), true), claimable(Some(PREIMAGE), true)]);
        assert_eq!(record.unwrap().state, PaymentState::Claiming);
        assert_eq!(effects, vec![Effect::Claim(PREIMAGE), Effect::Claim(PREIMAGE)]);
    }

    #[test]
    fn an_invoice_is_taken_once() {
        let claimed = Input::Claimed { hash: PREIMAGE.hash(), amount_msat: 500, parts: 1 };
        let (record, effects) =
            run(vec![claimable(Some(PREIMAGE), true), claimed, claimable(Some(PREIMAGE), true)]);
        assert_eq!(record.unwrap().state, PaymentState::Succeeded);
        assert_eq!(effects.last(), Some(&Effect::FailBack(PREIMAGE.hash())));
    }

    #[test]
    fn a_held_payment_waits_for_its_preimage() {
        let (record, effects) = run(vec![claimable(None, true)]);
        assert!(effects.is_empty());
        let wrong = Input::Settle { preimage: Preimage([3; 32]) };
        assert!(matches!(decide(ID, record.as_ref(), wrong), Err(Rejection::WrongPreimage { .. })));
        let settle = Input::Settle { preimage: PREIMAGE };
        let (record, effects) = run(vec![claimable(None, true), settle.clone(), settle]);
        assert_eq!(record.unwrap().state, PaymentState::Claiming);
        assert_eq!(effects, vec![Effect::Claim(PREIMAGE)]);
    }

    #[test]
    fn a_held_payment_can_be_given_back_and_not_settled_after() {
        let back = Input::GiveBack { why: "cancelled".into() };
        let (record, effects) = run(vec![claimable(None, true), back]);
        assert_eq!(effects, vec![Effect::FailBack(PREIMAGE.hash())]);
        let settle = Input::Settle { preimage: PREIMAGE };
        assert!(matches!(
            decide(ID, record.as_ref(), settle),
            Err(Rejection::WrongState { state: PaymentState::Failed })
        ));
    }

    #[test]
    fn what_nobody_asked_for_goes_back() {
        let (record, effects) = run(vec![claimable(Some(PREIMAGE), false)]);
        assert_eq!(record.unwrap().state, PaymentState::Failed);
        assert_eq!(effects, vec![Effect::FailBack(PREIMAGE.hash())]);
    }

    #[test]
    fn a_restart_sends_again_in_time_and_fails_later() {
        let (record, _) = run(vec![pay()]);
        let record = record.unwrap();
        assert_eq!(unfinished(&record, true, Duration::from_secs(2)), None);
        assert_eq!(
            unfinished(&record, false, Duration::from_secs(2)),
            Some(Unfinished::Do(Effect::Send(ID)))
        );
        assert_eq!(
            unfinished(&record, false, Duration::from_secs(62)),
            Some(Unfinished::Feed(Box::new(Input::SendFailed {
                reason: FailureReason::NeverSent
            })))
        );
    }

    #[test]
    fn a_restart_claims_again() {
        let (record, _) = run(vec![claimable(Some(PREIMAGE), true)]);
        assert_eq!(
            unfinished(&record.unwrap(), false, Duration::from_secs(2)),
            Some(Unfinished::Do(Effect::Claim(PREIMAGE)))
        );
    }
}
