//! What the machine says of time and randomness while a simulation runs on a thread.
//!
//! LDK's hash maps and the standard library's draw seeds from the operating system, and LDK reads
//! the system's clock. A program whose runs shall repeat interposes `getrandom` and
//! `clock_gettime` (`interpose.rs`), and those ask here first: on a thread that is [`armed`],
//! randomness comes from the seed and time is virtual; everywhere else the answer is none, and
//! the program asks the kernel.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::clock::SimClock;
use crate::random::Random;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    /// Questions that the simulation answered.
    static ANSWERED: Cell<u64> = const { Cell::new(0) };
}

struct World {
    random: Random,
    clock: Option<SimClock>,
}

/// Keeps a thread armed until it is dropped.
pub struct Armed(());

/// Makes this thread's machine that of a simulation: randomness from `seed` at once, time once
/// [`Armed::set_clock`] has given a clock.
pub fn arm(seed: u64) -> Armed {
    WORLD.with_borrow_mut(|world| *world = Some(World { random: Random::new(seed), clock: None }));
    ANSWERED.set(0);
    Armed(())
}

impl Armed {
    /// From now on the system's time on this thread is `clock`'s.
    pub fn set_clock(&self, clock: SimClock) {
        WORLD.with_borrow_mut(|world| {
            if let Some(world) = world {
                world.clock = Some(clock);
            }
        });
    }

    /// Whether the program asks here at all. If not, a run does not repeat.
    pub fn is_interposed(&self) -> bool {
        let before = ANSWERED.get();
        #[expect(clippy::disallowed_methods, reason = "this is the question whether it is ours")]
        let _asked = std::time::SystemTime::now();
        ANSWERED.get() > before
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        let _gone = WORLD.try_with(|world| world.replace(None));
    }
}

/// Fills `bytes` on an armed thread; false elsewhere.
pub fn fill(bytes: &mut [u8]) -> bool {
    let filled = WORLD.try_with(|world| {
        // Whoever is inside already is not to be disturbed: the kernel answers.
        let Ok(mut world) = world.try_borrow_mut() else { return false };
        let Some(world) = &mut *world else { return false };
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&world.random.number().to_le_bytes()[..chunk.len()]);
        }
        true
    });
    let filled = filled.unwrap_or(false);
    if filled {
        count();
    }
    filled
}

/// Virtual time since the Unix epoch on an armed thread.
pub fn now() -> Option<Duration> {
    let now = WORLD.try_with(|world| {
        // Reading the clock may ask for the time again, which then is the kernel's.
        let Ok(world) = world.try_borrow_mut() else { return None };
        Some(world.as_ref()?.clock?.unix_time())
    });
    let now = now.ok().flatten();
    if now.is_some() {
        count();
    }
    now
}

fn count() {
    let _gone = ANSWERED.try_with(|answered| answered.set(answered.get() + 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_armed_threads_are_answered() {
        let mut bytes = [0; 12];
        assert!(!fill(&mut bytes) && now().is_none());
        let draw = || {
            let _armed = arm(7);
            let mut bytes = [0; 12];
            assert!(fill(&mut bytes));
            bytes
        };
        assert_eq!(draw(), draw());
        assert!(!fill(&mut bytes));
    }

    #[test]
    fn hash_maps_of_armed_threads_repeat() {
        let order = |seed: u64| {
            std::thread::spawn(move || {
                let _armed = arm(seed);
                let map: std::collections::HashMap<u32, u32> = (0..100).map(|n| (n, n)).collect();
                map.into_keys().collect::<Vec<u32>>()
            })
            .join()
            .unwrap()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
