//! How batches end: channels are retired, keys handed over, outputs taken back, channels
//! forgotten.
//!
//! `early` are batches taken back before their expiry, `parked` is about closing transactions of
//! retired channels, `expiry` about what is left at E. Scenarios run on the embedded chain and on
//! a bitcoind.
#![allow(missing_docs, clippy::unwrap_used)]

mod early;
mod expiry;
mod parked;
mod stage;

tests::scenarios! {
    early::five_who_close_and_release_are_taken_in_one_transaction
    early::the_hub_reclaims_around_a_user_who_keeps_its_key
    early::power_cuts_at_every_step_change_nothing
    early::what_is_not_empty_is_not_released
    parked::a_neighbour_leaves_and_the_parked_closing_pays_both_sides
    expiry::what_missing_users_leave_is_swept_at_expiry
}
