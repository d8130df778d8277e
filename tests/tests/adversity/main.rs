//! Batches when something goes wrong: payments pending while a channel is closed alone, cheaters
//! who boot from old disks, exits that are late or that all begin at once.
//!
//! Scenarios run on the embedded chain and on a bitcoind.
#![allow(missing_docs, clippy::unwrap_used)]

mod cheats;
mod closing;
mod expiry;
mod htlcs;
mod messages;
mod old_state;
mod stage;
mod together;
mod wire;

tests::scenarios! {
    htlcs::htlcs_pending_at_a_force_close_are_claimed_and_timed_out_at_depth_1
    htlcs::htlcs_pending_at_a_force_close_are_claimed_and_timed_out_at_depth_2
    htlcs::htlcs_pending_at_a_force_close_are_claimed_and_timed_out_at_depth_3
    htlcs::htlcs_pending_at_a_force_close_are_claimed_and_timed_out_at_depth_4
    htlcs::htlcs_pending_at_a_force_close_are_claimed_and_timed_out_at_depth_5
    cheats::a_user_who_unrolls_a_revoked_state_with_htlcs_loses_all_of_it
    cheats::a_hub_that_unrolls_a_revoked_state_with_htlcs_loses_all_of_it
    old_state::a_state_from_before_the_rollover_is_punished_after_retirement_and_restart
    expiry::a_late_exit_loses_to_the_sweep
    together::two_batches_confirm_in_one_block
    together::everyone_exits_at_once
    together::one_coin_is_enough_for_a_mass_exit
    closing::a_close_that_is_cut_off_after_any_message_is_one_for_both
    messages::a_hub_that_crashes_after_any_message_loses_nothing
    messages::a_user_that_crashes_after_any_message_loses_nothing
    messages::a_hub_that_crashes_while_it_waits_for_one_user_closes_the_channels_of_others
    messages::a_user_leaves_a_batch_that_the_hub_gave_up_and_publishes_all_the_same
}
