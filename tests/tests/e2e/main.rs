//! End to end: real nodes with stores on disk and TCP between them, on the embedded chain and
//! on a bitcoind of their own.
//!
//! Each scenario is written once and run on both. Where no bitcoind is found its half says
//! `skipped: no bitcoind`. `E2E_LOG=info` shows what the nodes say.
#![allow(missing_docs, clippy::unwrap_used)]

mod close;
mod crash;
mod fail;
mod force;
mod hold;
mod open;
mod pay;
mod renew;
mod reorg;
mod restart;

/// Makes two tests of each scenario, one per chain.
macro_rules! scenarios {
    ($($room:ident { $($name:ident)+ })+) => {
        scenarios!(@on embedded: $($room { $($name)+ })+);
        scenarios!(@on bitcoind: $($room { $($name)+ })+);
    };
    (@on $chain:ident: $($room:ident { $($name:ident)+ })+) => {
        mod $chain {
            $(mod $room {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let name = concat!(stringify!($room), "::", stringify!($name));
                    tests::e2e::$chain(name, crate::$room::$name).await;
                })+
            })+
        }
    };
}

scenarios! {
    open {
        a_channel_becomes_active_on_both_sides
        what_cannot_be_opened_is_refused_and_leaves_no_trace
        one_key_opens_one_channel
    }
    pay {
        invoices_are_paid_through_a_hub_to_the_millisatoshi
        what_cannot_be_paid_is_refused_and_leaves_no_trace
        one_key_or_one_invoice_is_one_payment
        offers_are_paid_again_and_again
        spontaneous_payments_are_taken
        payments_beyond_a_channels_slots_wait_in_line
        a_payment_is_split_over_channels
    }
    fail {
        a_payment_to_an_absent_receiver_fails_and_costs_nothing
        a_payment_the_receiver_does_not_want_comes_back
    }
    hold {
        a_held_payment_is_settled_or_cancelled
        a_held_payment_comes_back_before_its_deadline
    }
    close {
        the_opener_closes_by_agreement
        the_acceptor_closes_by_agreement
    }
    force {
        the_opener_closes_alone
        the_acceptor_closes_alone
        the_opener_closes_alone_with_htlcs_both_ways
        the_acceptor_closes_alone_with_htlcs_both_ways
        a_forward_survives_the_force_close_behind_it
    }
    renew {
        a_heavy_channel_is_renewed_while_payments_go_on
        a_public_channel_is_renewed_and_announced_again
        a_power_cut_during_a_renewal_leaves_the_channel_whole
    }
    restart {
        records_are_the_same_before_and_after
        a_burst_survives_the_restart_of_any_node
    }
    reorg {
        a_channel_being_opened_survives
        an_active_channel_survives
        a_reorg_while_a_node_is_down_is_followed_at_its_start
    }
    crash {
        no_payment_is_lost_or_doubled_by_a_power_cut
    }
}
