//! Batches formed by their own protocol, between nodes: messages, services, LDK and the chain.
//!
//! Scenarios run on the embedded chain and on a bitcoind.
#![allow(missing_docs, clippy::unwrap_used)]

mod forming;
mod rollover;
mod stage;

tests::scenarios! {
    forming::one_user_joins_and_is_paid
    forming::five_users_join_and_pay_each_other
    forming::a_user_that_leaves_before_the_tree_is_built_is_left_out
    forming::nonsense_of_a_member_does_not_stop_the_others
    forming::a_power_cut_at_any_commit_loses_no_coin
    forming::both_sides_crash_after_the_broadcast_and_go_on
    forming::a_batch_whose_transaction_is_double_spent_is_given_up
    rollover::balances_move_into_the_next_batch
    rollover::nothing_is_forwarded_into_a_batch_that_ends
    rollover::a_user_without_its_hub_leaves_by_itself_at_the_deadline
    rollover::a_power_cut_at_any_commit_of_a_rollover_loses_nothing
}
