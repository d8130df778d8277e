//! Suites that drive the node from outside: what they need beyond the node itself.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod e2e;
#[cfg(target_os = "linux")]
pub mod power_cut;

/// Makes two tests of each scenario, one per chain. Invoked at the root of a suite; a scenario is
/// named by its room, `room::scenario`.
#[macro_export]
macro_rules! scenarios {
    ($($room:ident::$name:ident)+) => {
        $crate::scenarios!(@on embedded: $($room::$name)+);
        $crate::scenarios!(@on bitcoind: $($room::$name)+);
    };
    (@on $chain:ident: $($room:ident::$name:ident)+) => {
        mod $chain {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::e2e::$chain(stringify!($name), super::$room::$name).await;
            })+
        }
    };
}
