//! Withdrawals and deposits: both sides' machines, and each side's best theft against the other.
//! The spends themselves are in `swap_spending.rs`.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Txid, relative};
use channel_contracts::script::Preimage;
use channel_contracts::swap::deposit::{
    DepositRejection, DepositTerms, HubDeposit, HubDepositEffect, HubDepositInput, HubDepositPhase,
    UserDeposit, UserDepositEffect, UserDepositInput, UserDepositPhase,
};
use channel_contracts::swap::margins::{CONFIRM_BLOCKS, FAIL_BACK_BUFFER, TIMEOUT_GRACE};
use channel_contracts::swap::withdrawal::{
    HubWithdrawal, HubWithdrawalEffect, HubWithdrawalInput, HubWithdrawalPhase, UserWithdrawal,
    UserWithdrawalEffect, UserWithdrawalInput, UserWithdrawalPhase, WithdrawalRejection,
    WithdrawalTerms,
};
use channel_contracts::swap::{DepositTimes, RefundTime, WithdrawalTimes};
use common::swap::{AMOUNT, BLOCKS, LEVELS, contract, contracts, height, preimage};
use proptest::prelude::*;

const BEST: u32 = 800_000;

fn withdrawal() -> WithdrawalTerms {
    let deadline = height(BEST + 3_000);
    let times = WithdrawalTimes::choose(height(BEST), LEVELS, deadline).unwrap();
    WithdrawalTerms {
        contract: contract(RefundTime::Height(times.refund)),
        amount: AMOUNT,
        payment_msat: 70_300_000,
        payment_expiry: times.payment_expiry,
        levels: LEVELS,
        deadline,
    }
}

fn hub_withdrawal(hub: &mut HubWithdrawal, input: HubWithdrawalInput) -> Vec<HubWithdrawalEffect> {
    let decision = hub.decide(input).unwrap();
    decision.events.into_iter().for_each(|event| hub.apply(event));
    decision.effects
}

fn user_withdrawal(
    user: &mut UserWithdrawal,
    input: UserWithdrawalInput,
) -> Vec<UserWithdrawalEffect> {
    let decision = user.decide(input).unwrap();
    decision.events.into_iter().for_each(|event| user.apply(event));
    decision.effects
}

fn held(terms: &WithdrawalTerms) -> HubWithdrawalInput {
    HubWithdrawalInput::PaymentHeld {
        amount_msat: terms.payment_msat,
        expiry: terms.payment_expiry,
        best: height(BEST + 1),
    }
}

fn outpoint() -> OutPoint {
    OutPoint::new(Txid::from_byte_array([9; 32]), 3)
}

#[test]
fn a_withdrawal_settles_by_key_path() {
    let terms = withdrawal();
    let mut hub = HubWithdrawal::new(terms, height(BEST)).unwrap();
    let mut user = UserWithdrawal::new(terms, height(BEST)).unwrap();
    assert_eq!(hub_withdrawal(&mut hub, held(&terms)), [HubWithdrawalEffect::IncludeOutput]);
    assert_eq!(hub_withdrawal(&mut hub, HubWithdrawalInput::Included), []);
    let confirmed = UserWithdrawalInput::OutputConfirmed {
        outpoint: outpoint(),
        output: terms.output().unwrap(),
        at: height(BEST + 5),
    };
    assert_eq!(user_withdrawal(&mut user, confirmed), []);
    let block = |best| UserWithdrawalInput::Block { best: height(best) };
    assert_eq!(user_withdrawal(&mut user, block(BEST + 5)), []);
    let reveal = [UserWithdrawalEffect::RevealPreimage];
    assert_eq!(user_withdrawal(&mut user, block(BEST + 6)), reveal);
    let claim = HubWithdrawalEffect::ClaimPayment { preimage: preimage() };
    let revealed = HubWithdrawalInput::Preimage { preimage: preimage() };
    assert_eq!(hub_withdrawal(&mut hub, revealed.clone()), [claim]);
    assert_eq!(hub_withdrawal(&mut hub, revealed), []);
    assert_eq!(hub.unfinished_effects(), [claim]);
    let hand = [HubWithdrawalEffect::HandKeyOver];
    assert_eq!(hub_withdrawal(&mut hub, HubWithdrawalInput::PaymentClaimed), hand);
    let by_key = [UserWithdrawalEffect::SpendByKey];
    assert_eq!(user_withdrawal(&mut user, UserWithdrawalInput::KeyHandedOver), by_key);
    user_withdrawal(&mut user, UserWithdrawalInput::SpendConfirmed);
    assert_eq!(user.phase(), UserWithdrawalPhase::Settled);
}

#[test]
fn a_hub_funds_nothing_without_the_whole_payment_and_takes_nothing_without_the_output() {
    let terms = withdrawal();
    let hub = HubWithdrawal::new(terms, height(BEST)).unwrap();
    let held = |amount_msat, expiry, best| HubWithdrawalInput::PaymentHeld {
        amount_msat,
        expiry: height(expiry),
        best: height(best),
    };
    let expiry = terms.payment_expiry.to_consensus_u32();
    assert!(matches!(
        hub.decide(held(70_299_999, expiry, BEST)),
        Err(WithdrawalRejection::PaymentTooSmall { .. })
    ));
    assert!(matches!(
        hub.decide(held(70_300_000, expiry - 1, BEST)),
        Err(WithdrawalRejection::PaymentExpiry { .. })
    ));
    assert!(hub.decide(HubWithdrawalInput::Included).is_err());
    // Too late to be claimed before T: the payment goes back.
    let late = hub.decide(held(70_300_000, expiry, BEST + 143)).unwrap();
    assert_eq!(late.effects, [HubWithdrawalEffect::FailPayment]);
    // An early preimage is not taken: the user has nothing for it yet.
    let revealed = HubWithdrawalInput::Preimage { preimage: preimage() };
    let mut hub = hub;
    assert!(hub.decide(revealed.clone()).is_err());
    hub_withdrawal(&mut hub, held(70_300_000, expiry, BEST));
    assert!(hub.decide(revealed).is_err());
    let wrong = HubWithdrawalInput::Preimage { preimage: Preimage([0; 32]) };
    assert!(matches!(hub.decide(wrong), Err(WithdrawalRejection::WrongPreimage { .. })));
    // No batch in time: the payment goes back.
    let block = HubWithdrawalInput::Block { best: height(BEST + 143) };
    assert_eq!(hub_withdrawal(&mut hub, block), [HubWithdrawalEffect::FailPayment]);
    assert_eq!(hub.phase(), HubWithdrawalPhase::Over);
}

#[test]
fn a_payment_that_went_back_ends_a_withdrawal_before_it_is_funded() {
    let terms = withdrawal();
    let mut hub = HubWithdrawal::new(terms, height(BEST)).unwrap();
    hub_withdrawal(&mut hub, held(&terms));
    let mut funded = hub.clone();
    assert_eq!(hub_withdrawal(&mut hub, HubWithdrawalInput::PaymentGone), []);
    assert_eq!(hub.phase(), HubWithdrawalPhase::Over);
    assert!(hub.decide(HubWithdrawalInput::Included).is_err());
    // An output that is on its way is taken back whatever became of the payment.
    hub_withdrawal(&mut funded, HubWithdrawalInput::Included);
    hub_withdrawal(&mut funded, HubWithdrawalInput::PaymentGone);
    assert_eq!(funded.phase(), HubWithdrawalPhase::Funded);
}

#[test]
fn a_user_reveals_nothing_for_a_wrong_shallow_or_late_output() {
    let terms = withdrawal();
    let user = UserWithdrawal::new(terms, height(BEST)).unwrap();
    let confirmed = |output, at| UserWithdrawalInput::OutputConfirmed {
        outpoint: outpoint(),
        output,
        at: height(at),
    };
    let mut less = terms.output().unwrap();
    less.value -= Amount::from_sat(1);
    assert!(matches!(
        user.decide(confirmed(less, BEST + 5)),
        Err(WithdrawalRejection::WrongOutput { .. })
    ));
    let mut late = user.clone();
    let output = terms.output().unwrap();
    user_withdrawal(&mut late, confirmed(output.clone(), BEST + 144));
    let block = |best| UserWithdrawalInput::Block { best: height(best) };
    assert_eq!(user_withdrawal(&mut late, block(BEST + 145)), []);
    assert_eq!(user_withdrawal(&mut late, block(BEST + 500)), []);
    assert_eq!(user_withdrawal(&mut late, UserWithdrawalInput::PaymentFailed), []);
    assert_eq!(late.phase(), UserWithdrawalPhase::Over);

    // A hub that takes the preimage and keeps its key: the claim goes out in the next block.
    let mut cheated = user;
    user_withdrawal(&mut cheated, confirmed(output, BEST + 143));
    assert_eq!(
        user_withdrawal(&mut cheated, block(BEST + 144)),
        [UserWithdrawalEffect::RevealPreimage]
    );
    assert_eq!(
        user_withdrawal(&mut cheated, block(BEST + 145)),
        [UserWithdrawalEffect::ClaimByPreimage]
    );
    let refund = BEST + 186;
    assert!(BEST + 145 + CONFIRM_BLOCKS < refund);
}

#[test]
fn unsafe_terms_are_agreed_to_by_neither_side() {
    let good = withdrawal();
    let expiry =
        |more: i64| height((i64::from(good.payment_expiry.to_consensus_u32()) + more) as u32);
    let short = WithdrawalTerms { payment_expiry: expiry(-1), ..good };
    let dead = WithdrawalTerms { deadline: expiry(-1), ..good };
    let relative = WithdrawalTerms { contract: contracts()[1], ..good };
    for terms in [short, dead, relative] {
        assert!(HubWithdrawal::new(terms, height(BEST)).is_err());
        assert!(UserWithdrawal::new(terms, height(BEST)).is_err());
    }
    assert!(UserWithdrawal::new(good, height(BEST + 143)).is_err());
    let absolute = DepositTerms { contract: contracts()[0], ..deposit() };
    assert!(matches!(HubDeposit::new(absolute), Err(DepositRejection::RefundTime(_))));
    assert!(UserDeposit::new(absolute).is_err());
}

fn deposit() -> DepositTerms {
    DepositTerms {
        contract: contracts()[1],
        amount: AMOUNT,
        payment_msat: 69_700_000,
        levels: LEVELS,
        final_cltv: 42 + 4 * LEVELS,
    }
}

fn hub_deposit(hub: &mut HubDeposit, input: HubDepositInput) -> Vec<HubDepositEffect> {
    let decision = hub.decide(input).unwrap();
    decision.events.into_iter().for_each(|event| hub.apply(event));
    decision.effects
}

fn user_deposit(user: &mut UserDeposit, input: UserDepositInput) -> Vec<UserDepositEffect> {
    let decision = user.decide(input).unwrap();
    decision.events.into_iter().for_each(|event| user.apply(event));
    decision.effects
}

fn deposited(terms: &DepositTerms) -> HubDepositInput {
    HubDepositInput::OutputConfirmed {
        outpoint: outpoint(),
        output: terms.output().unwrap(),
        at: height(BEST),
    }
}

#[test]
fn a_deposit_settles_by_key_path_in_a_batch() {
    let terms = deposit();
    let (mut hub, mut user) = (HubDeposit::new(terms).unwrap(), UserDeposit::new(terms).unwrap());
    assert_eq!(hub_deposit(&mut hub, deposited(&terms)), []);
    user_deposit(
        &mut user,
        UserDepositInput::OutputConfirmed { outpoint: outpoint(), at: height(BEST) },
    );
    let block = |best| HubDepositInput::Block { best: height(best) };
    assert_eq!(hub_deposit(&mut hub, block(BEST)), []);
    let paid = hub_deposit(&mut hub, block(BEST + 1));
    assert!(matches!(paid[..], [HubDepositEffect::Pay { amount_msat: 69_700_000, .. }]));
    assert_eq!(hub_deposit(&mut hub, block(BEST + 2)), []);

    let small = user.decide(UserDepositInput::PaymentOffered { amount_msat: 69_699_999 });
    assert!(matches!(small, Err(DepositRejection::PaymentTooSmall { .. })));
    let offered = UserDepositInput::PaymentOffered { amount_msat: 69_700_000 };
    assert_eq!(user_deposit(&mut user, offered), [UserDepositEffect::ClaimPayment]);
    let hand = [UserDepositEffect::HandKeyOver];
    assert_eq!(user_deposit(&mut user, UserDepositInput::PaymentClaimed), hand);
    assert_eq!(user.phase(), UserDepositPhase::Paid);

    let wrong = hub.decide(HubDepositInput::PaymentSucceeded { preimage: Preimage([0; 32]) });
    assert!(matches!(wrong, Err(DepositRejection::WrongPreimage { .. })));
    let succeeded = HubDepositInput::PaymentSucceeded { preimage: preimage() };
    assert_eq!(
        hub_deposit(&mut hub, succeeded.clone()),
        [HubDepositEffect::OfferToBatch { by_key: false }]
    );
    assert_eq!(hub_deposit(&mut hub, succeeded), []);
    assert_eq!(hub.preimage(), Some(&preimage()));
    assert_eq!(
        hub_deposit(&mut hub, HubDepositInput::KeyHandedOver),
        [HubDepositEffect::OfferToBatch { by_key: true }]
    );
    // No batch came along: it is spent alone, in time.
    let refund = BEST + 1_008;
    let claim = HubDepositEffect::ClaimAlone { by_key: true };
    assert_eq!(hub_deposit(&mut hub, block(refund - 43)), []);
    assert_eq!(hub_deposit(&mut hub, block(refund - 42)), [claim]);
    assert_eq!(hub.unfinished_effects(), [claim]);
    let at = height(refund - 30);
    hub_deposit(&mut hub, HubDepositInput::SpendConfirmed { at, best: height(refund - 26) });
    assert_eq!(hub.phase(), HubDepositPhase::Owned { by_key: true });
    hub_deposit(&mut hub, HubDepositInput::SpendConfirmed { at, best: height(refund - 25) });
    assert_eq!(hub.phase(), HubDepositPhase::Settled);
}

#[test]
fn a_hub_does_not_pay_for_a_wrong_vanished_or_old_deposit() {
    let terms = deposit();
    let hub = HubDeposit::new(terms).unwrap();
    let mut output = terms.output().unwrap();
    output.value -= Amount::from_sat(1);
    let wrong = HubDepositInput::OutputConfirmed { outpoint: outpoint(), output, at: height(BEST) };
    assert!(matches!(hub.decide(wrong), Err(DepositRejection::WrongOutput { .. })));

    let mut gone = hub.clone();
    hub_deposit(&mut gone, deposited(&terms));
    hub_deposit(&mut gone, HubDepositInput::OutputDisconnected);
    let block = |best| HubDepositInput::Block { best: height(best) };
    assert_eq!(hub_deposit(&mut gone, block(BEST + 10)), []);

    let refund = relative::Height::from_height(BLOCKS);
    let times = DepositTimes { confirmed: height(BEST), refund, levels: LEVELS };
    let last = times.payment_expiry_max().unwrap().to_consensus_u32() - terms.final_cltv;
    let mut old = hub.clone();
    hub_deposit(&mut old, deposited(&terms));
    assert_eq!(hub_deposit(&mut old, block(last + 1)), []);
    assert_eq!(old.phase(), HubDepositPhase::Over);
    let mut just = hub;
    hub_deposit(&mut just, deposited(&terms));
    assert_eq!(hub_deposit(&mut just, block(last)).len(), 1);
}

#[test]
fn a_user_takes_the_deposit_back_in_time_and_then_no_payment_any_more() {
    let terms = deposit();
    let mut user = UserDeposit::new(terms).unwrap();
    let at = height(BEST);
    user_deposit(&mut user, UserDepositInput::OutputConfirmed { outpoint: outpoint(), at });
    let block = |best| UserDepositInput::Block { best: height(best) };
    assert_eq!(user_deposit(&mut user, block(BEST + 1_006)), []);
    let refund = [UserDepositEffect::PublishRefund];
    assert_eq!(user_deposit(&mut user, block(BEST + 1_007)), refund);
    assert_eq!(user.unfinished_effects(), refund);
    let offered = UserDepositInput::PaymentOffered { amount_msat: 69_700_000 };
    assert_eq!(user_deposit(&mut user, offered), [UserDepositEffect::FailPayment]);
    user_deposit(&mut user, UserDepositInput::RefundConfirmed);
    assert_eq!(user.phase(), UserDepositPhase::Refunded);
}

#[test]
fn a_deposit_whose_payment_went_back_unclaimed_is_taken_back() {
    let terms = deposit();
    let mut user = UserDeposit::new(terms).unwrap();
    let confirmed = UserDepositInput::OutputConfirmed { outpoint: outpoint(), at: height(BEST) };
    user_deposit(&mut user, confirmed.clone());
    let offered = UserDepositInput::PaymentOffered { amount_msat: terms.payment_msat };
    assert_eq!(user_deposit(&mut user, offered), [UserDepositEffect::ClaimPayment]);
    // The node was away until LDK failed it: the preimage never left.
    user_deposit(&mut user, UserDepositInput::PaymentFailed);
    user_deposit(&mut user, confirmed);
    let due = UserDepositInput::Block { best: height(BEST + u32::from(BLOCKS) - 1) };
    assert_eq!(user_deposit(&mut user, due), [UserDepositEffect::PublishRefund]);
}

fn any_hub_input() -> impl Strategy<Value = HubWithdrawalInput> {
    let any_height = || (BEST..BEST + 500).prop_map(height);
    prop_oneof![
        any_height().prop_map(|best| HubWithdrawalInput::PaymentHeld {
            amount_msat: 70_300_000,
            expiry: withdrawal().payment_expiry,
            best,
        }),
        Just(HubWithdrawalInput::Included),
        Just(HubWithdrawalInput::Conflicted),
        Just(HubWithdrawalInput::Preimage { preimage: preimage() }),
        Just(HubWithdrawalInput::PaymentClaimed),
        any_height().prop_map(|best| HubWithdrawalInput::Block { best }),
        any_height().prop_map(|at| HubWithdrawalInput::RefundConfirmed { at }),
        Just(HubWithdrawalInput::RefundDisconnected),
    ]
}

proptest! {
    #[test]
    fn a_hub_never_both_claims_and_fails_a_payment_in_any_order(
        inputs in proptest::collection::vec(any_hub_input(), 1..40),
    ) {
        let mut hub = HubWithdrawal::new(withdrawal(), height(BEST)).unwrap();
        let (mut claimed, mut failed, mut held) = (false, false, false);
        for input in inputs {
            let is_payment = matches!(input, HubWithdrawalInput::PaymentHeld { .. });
            let Ok(decision) = hub.decide(input) else { continue };
            held |= is_payment;
            for effect in decision.effects {
                match effect {
                    HubWithdrawalEffect::IncludeOutput => prop_assert!(held),
                    HubWithdrawalEffect::ClaimPayment { .. } => claimed = true,
                    HubWithdrawalEffect::FailPayment => failed = true,
                    // A key is handed over only for a payment.
                    HubWithdrawalEffect::HandKeyOver => prop_assert!(claimed),
                    HubWithdrawalEffect::PublishRefund => prop_assert!(!claimed),
                }
            }
            decision.events.into_iter().for_each(|event| hub.apply(event));
            prop_assert!(!(claimed && failed));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The user's best theft: to claim on chain and have its payment back. It may claim in any
    /// block until the hub's refund is confirmed, which takes up to 36 blocks; the hub learns
    /// the preimage only from the confirmed claim.
    #[test]
    fn a_withdrawing_user_cannot_have_both(
        claim_at in 0u32..400, refund_takes in 1u32..=CONFIRM_BLOCKS, levels in 1u32..=11,
    ) {
        let deadline = height(BEST + 3_000);
        let times = WithdrawalTimes::choose(height(BEST), levels, deadline).unwrap();
        let terms = WithdrawalTerms {
            contract: contract(RefundTime::Height(times.refund)),
            payment_expiry: times.payment_expiry,
            levels,
            ..withdrawal()
        };
        let mut hub = HubWithdrawal::new(terms, height(BEST)).unwrap();
        hub_withdrawal(&mut hub, held(&terms));
        hub_withdrawal(&mut hub, HubWithdrawalInput::Included);
        // The last block in which LDK still takes a claim for the held payment and has time for
        // an exit over all levels.
        let last_claim = terms.payment_expiry.to_consensus_u32() - FAIL_BACK_BUFFER - 6 * levels;
        let (mut refund_confirms, mut output_taken) = (None, false);
        let (mut claimed, mut failed) = (None, None);
        for best in BEST + 2..BEST + 1_000 {
            let mut effects = vec![];
            if refund_confirms == Some(best) && !output_taken {
                output_taken = true;
                effects.extend(hub_withdrawal(&mut hub, HubWithdrawalInput::RefundConfirmed { at: height(best) }));
            }
            if best == BEST + 2 + claim_at && !output_taken {
                output_taken = true;
                let preimage = preimage();
                effects.extend(hub_withdrawal(&mut hub, HubWithdrawalInput::Preimage { preimage }));
            }
            effects.extend(hub_withdrawal(&mut hub, HubWithdrawalInput::Block { best: height(best) }));
            for effect in effects {
                match effect {
                    HubWithdrawalEffect::PublishRefund => refund_confirms = Some(best + refund_takes),
                    HubWithdrawalEffect::ClaimPayment { .. } => claimed = Some(best),
                    HubWithdrawalEffect::FailPayment => failed = Some(best),
                    _ => {}
                }
            }
        }
        // Exactly one of the two, and in time for LDK.
        prop_assert!(claimed.is_some() != failed.is_some());
        if let Some(claimed) = claimed {
            prop_assert!(claimed <= last_claim, "{claimed} after {last_claim}");
        }
        if let Some(failed) = failed {
            prop_assert!(failed <= terms.payment_expiry.to_consensus_u32() - FAIL_BACK_BUFFER);
        }
    }

    /// The hub's best theft: to take the payment and the output. It may keep its key and refund
    /// as soon as it can; the user's claim takes up to 36 blocks.
    #[test]
    fn a_hub_cannot_have_payment_and_output(
        confirmed in 1u32..200, claim_takes in 1u32..=CONFIRM_BLOCKS, hands_key in any::<bool>(),
    ) {
        let terms = withdrawal();
        let times = WithdrawalTimes::choose(height(BEST), LEVELS, terms.deadline).unwrap();
        let mut user = UserWithdrawal::new(terms, height(BEST)).unwrap();
        let (mut revealed, mut spend_confirms) = (false, None);
        for best in BEST + 1..BEST + 600 {
            let mut effects = vec![];
            if best == BEST + confirmed {
                let output = terms.output().unwrap();
                let (outpoint, at) = (outpoint(), height(best));
                effects.extend(user_withdrawal(
                    &mut user, UserWithdrawalInput::OutputConfirmed { outpoint, output, at },
                ));
            }
            effects.extend(user_withdrawal(&mut user, UserWithdrawalInput::Block { best: height(best) }));
            if revealed && hands_key {
                effects.extend(user_withdrawal(&mut user, UserWithdrawalInput::KeyHandedOver));
            }
            for effect in effects {
                match effect {
                    UserWithdrawalEffect::RevealPreimage => revealed = true,
                    _ => spend_confirms = spend_confirms.or(Some(best + claim_takes)),
                }
            }
        }
        if revealed {
            // The hub's refund can be mined from T + 1 on.
            let spent = spend_confirms.unwrap();
            prop_assert!(spent <= times.refund.to_consensus_u32(), "{spent}");
        }
    }

    /// The depositing user's best theft: to claim the payment on chain as late as the hub's
    /// timeout allows, and take the deposit back as soon as it can.
    #[test]
    fn a_depositing_user_cannot_have_both(
        paid_after in 1u32..900, timeout_takes in 1u32..=CONFIRM_BLOCKS,
        spend_takes in 1u32..=CONFIRM_BLOCKS, levels in 1u32..=11,
    ) {
        let terms = DepositTerms { levels, final_cltv: 42 + 4 * levels, ..deposit() };
        let mut hub = HubDeposit::new(terms).unwrap();
        hub_deposit(&mut hub, deposited(&terms));
        let first = BEST + paid_after;
        let paid = hub_deposit(&mut hub, HubDepositInput::Block { best: height(first) });
        let [HubDepositEffect::Pay { expiry_max, .. }] = paid[..] else {
            prop_assert!(paid.is_empty());
            return Ok(());
        };
        // The hub's timeout: grace, one exit, one confirmation.
        let revealed = expiry_max.to_consensus_u32() + TIMEOUT_GRACE + 6 * (levels + 1) + timeout_takes;
        let refund_height = BEST + u32::from(BLOCKS);
        let mut spent = None;
        for best in first + 1..refund_height + 10 {
            let mut effects = vec![];
            if best == revealed {
                let preimage = preimage();
                effects.extend(hub_deposit(&mut hub, HubDepositInput::PaymentSucceeded { preimage }));
            }
            effects.extend(hub_deposit(&mut hub, HubDepositInput::Block { best: height(best) }));
            if effects.contains(&HubDepositEffect::ClaimAlone { by_key: false }) {
                spent = spent.or(Some(best + spend_takes));
            }
        }
        let spent = spent.expect("the hub claims alone if no batch comes");
        prop_assert!(spent < refund_height, "{spent}");
    }
}
