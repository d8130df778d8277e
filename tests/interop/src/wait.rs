//! Waiting for what others do: always with a deadline, and with a word for what did not come.

use std::error::Error;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Why something went wrong, in words. A scenario ends with the first.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Time for what takes other programs a moment on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

const LOOK: Duration = Duration::from_millis(50);

/// Waits until `done` says so.
///
/// # Errors
///
/// If `done` fails, or does not say so within [`PATIENCE`].
pub async fn until(
    what: &str,
    done: impl AsyncFnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    until_within(PATIENCE, what, done).await
}

/// As [`until`], with another deadline.
///
/// # Errors
///
/// As [`until`].
pub async fn until_within(
    patience: Duration,
    what: &str,
    mut done: impl AsyncFnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + patience;
    while !done().await? {
        if Instant::now() > deadline {
            return Err(format!("{what} did not come within {} s", patience.as_secs()).into());
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Fails with `what` and both sides, unless they are equal.
///
/// # Errors
///
/// If they differ.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should: T) -> Result<(), Failure> {
    if is == should {
        return Ok(());
    }
    Err(format!("{what}: {is:?}, expected {should:?}").into())
}

/// Fails with `what`, unless `holds`.
///
/// # Errors
///
/// If it does not hold.
pub fn holds(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(what().into()) }
}
