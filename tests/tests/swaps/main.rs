//! Withdrawals and deposits between nodes: messages, services, LDK and the chain.
//!
//! Scenarios run on the embedded chain and on a bitcoind.
#![allow(missing_docs, clippy::unwrap_used)]

mod deposits;
mod stage;
mod withdrawals;

tests::scenarios! {
    withdrawals::withdrawals_of_many_ride_in_one_transaction
    withdrawals::a_withdrawal_rides_in_the_next_batch
    withdrawals::a_withdrawal_whose_transaction_is_double_spent_is_given_back
    withdrawals::a_power_cut_while_a_withdrawal_boards_pays_it_once
    withdrawals::a_user_whose_hub_is_gone_claims_by_the_preimage
    withdrawals::a_hub_takes_back_what_a_silent_user_leaves
    withdrawals::what_a_hub_does_not_swap_costs_nothing
    withdrawals::a_power_cut_at_any_commit_of_a_withdrawal_loses_nothing
    deposits::a_deposit_is_paid_and_spent
    deposits::a_user_whose_hub_is_gone_takes_its_deposit_back
    deposits::a_power_cut_at_any_commit_of_a_deposit_loses_nothing
}
