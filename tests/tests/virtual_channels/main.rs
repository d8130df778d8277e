//! Channels funded by a batch: one transaction on chain, as many channels as the batch has users.
//!
//! `blocks` tries what LDK is shown of a block; `life` runs hubs and users, with the protocol
//! played by the test. Scenarios run on the embedded chain and on a bitcoind, but for those that
//! need blocks made to measure.
#![allow(missing_docs, clippy::unwrap_used)]

mod blocks;
mod life;

tests::scenarios! {
    life::one_transaction_makes_one_channel_usable
    life::one_transaction_makes_two_channels_usable
    life::one_transaction_makes_five_channels_usable
    life::both_sides_restart_and_pay_on
    life::both_sides_crash_and_pay_on
    life::a_reorg_below_the_depth_is_followed
    life::a_wrong_root_confirms_nothing
    life::a_channel_that_no_batch_funds_leaves_no_trace
}

/// Scenarios that need blocks made to measure.
mod to_measure {
    macro_rules! embedded {
        ($($name:ident)+) => {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                tests::e2e::embedded(stringify!($name), crate::life::$name).await;
            })+
        };
    }

    embedded! {
        a_root_that_goes_and_comes_again_confirms_in_its_new_block
        a_closing_transaction_waits_until_its_leaf_is_on_chain
    }
}
