//! Paths of batches brought onto the chain: by one side or many, through crashes, reorgs and
//! blocks that take nothing.
//!
//! `exits` are whole stories of hubs and users, `fees` what is paid and replaced, `protocol` leaves
//! what was joined by the batch protocol. Scenarios run on
//! the embedded chain and on a bitcoind, but for those that need blocks made to measure.
#![allow(missing_docs, clippy::unwrap_used)]

mod exits;
mod fees;
mod protocol;
mod stage;

tests::scenarios! {
    exits::the_user_of_a_batch_of_one_closes_alone
    exits::a_user_of_a_batch_of_five_closes_alone
    exits::the_hub_closes_alone
    exits::a_user_leaves_and_pays_on
    exits::two_users_at_once_share_what_they_have_in_common
    exits::a_hub_brings_all_channels_onto_the_chain
    exits::a_power_cut_in_the_middle_changes_nothing
    exits::a_reorg_of_any_level_is_followed
    fees::without_a_coin_it_says_so_and_goes_on_with_one
    fees::a_strangers_cheap_child_is_replaced
    protocol::a_member_leaves_by_its_own_machine
}

/// Scenarios that need blocks made to measure.
mod to_measure {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_fee_rises_with_each_block_that_takes_nothing() {
        let name = "the_fee_rises_with_each_block_that_takes_nothing";
        let scenario = crate::fees::the_fee_rises_with_each_block_that_takes_nothing;
        tests::e2e::embedded(name, scenario).await;
    }
}
