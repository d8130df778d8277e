//! A watchtower that answers for a node that sleeps, on ordinary channels and in batches.
//!
//! Scenarios run on the embedded chain and on a bitcoind.
#![allow(missing_docs, clippy::unwrap_used)]

mod batch;
mod breach;
mod crash;
mod delivery;
mod open;
mod stage;

tests::scenarios! {
    batch::a_tower_publishes_the_paths_of_its_household
    batch::a_retired_channel_is_watched_no_more
    batch::a_blind_tower_answers_a_stale_state_after_an_unroll
    breach::a_blind_tower_takes_a_revoked_commitment_with_htlcs
    breach::a_trusted_tower_takes_a_revoked_commitment_with_htlcs
    breach::a_trusted_tower_takes_what_went_on_to_a_second_stage
    breach::a_tower_pays_for_its_household_what_was_not_signed_for
    breach::a_tower_that_slept_answers_when_it_wakes
    breach::a_reorg_of_the_answer_is_answered_again
    open::a_client_of_the_open_protocol_gets_its_penalty_broadcast
    delivery::a_tower_that_was_away_has_everything_in_the_end
    delivery::two_towers_each_have_their_own_place
}
