//! How many calls are at work at once, and who goes first when there are more.
//!
//! A call takes a place until it is answered, for [`HELD`] at most: what takes longer waits for
//! peers, blocks or a payment, and needs no place for that. Those without a place wait in two
//! lines, each in its order: calls that change something go before those that only look. When as
//! many wait as may, one that only looks is refused, the last to come, and one that changes
//! something takes its place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How long a call has its place at most.
const HELD: Duration = Duration::from_millis(50);

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlaceLimits {
    /// Calls at work at once.
    pub at_work: usize,
    /// Calls that wait.
    pub waiting: usize,
}

/// The places of a server.
pub(super) struct Places {
    waiting_max: usize,
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// Calls that change something.
    first: VecDeque<Waiting>,
    /// Calls that only look.
    second: VecDeque<Waiting>,
}

type Waiting = oneshot::Sender<()>;

/// As many wait as may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overloaded {
    /// How many wait.
    pub waiting: usize,
}

impl Places {
    pub(super) fn new(limits: PlaceLimits) -> Arc<Self> {
        let state =
            State { free: limits.at_work.max(1), first: VecDeque::new(), second: VecDeque::new() };
        Arc::new(Self { waiting_max: limits.waiting, state: Mutex::new(state) })
    }

    /// Waits for a place.
    ///
    /// # Errors
    ///
    /// [`Overloaded`], at once, or once somebody who goes first takes the place in the line.
    pub(super) async fn enter(self: &Arc<Self>, mutates: bool) -> Result<Place, Overloaded> {
        let turn = {
            let mut state = self.state.lock();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Place { places: Arc::clone(self) });
            }
            // Who hung up waits no more.
            state.first.retain(|waiting| !waiting.is_closed());
            state.second.retain(|waiting| !waiting.is_closed());
            let waiting = state.first.len() + state.second.len();
            if waiting >= self.waiting_max && (!mutates || state.second.pop_back().is_none()) {
                return Err(Overloaded { waiting });
            }
            let (tell, turn) = oneshot::channel();
            match mutates {
                true => state.first.push_back(tell),
                false => state.second.push_back(tell),
            }
            turn
        };
        let mut turn = Turn { places: self, turn: Some(turn) };
        match turn.come().await {
            true => Ok(Place { places: Arc::clone(self) }),
            false => Err(Overloaded { waiting: self.waiting_max }),
        }
    }

    /// Gives a place to the next who still waits.
    fn leave(&self) {
        let mut state = self.state.lock();
        loop {
            let Some(next) = state.first.pop_front().or_else(|| state.second.pop_front()) else {
                state.free += 1;
                return;
            };
            if next.send(()).is_ok() {
                return;
            }
        }
    }
}

/// A place in the line. Who hangs up just when it comes passes it on.
struct Turn<'a> {
    places: &'a Arc<Places>,
    turn: Option<oneshot::Receiver<()>>,
}

impl Turn<'_> {
    async fn come(&mut self) -> bool {
        let Some(turn) = self.turn.as_mut() else { return false };
        let came = turn.await.is_ok();
        self.turn = None;
        came
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(mut turn) = self.turn.take() {
            turn.close();
            if turn.try_recv().is_ok() {
                self.places.leave();
            }
        }
    }
}

/// A place at work.
pub(super) struct Place {
    places: Arc<Places>,
}

impl Place {
    /// Runs `work` in this place, which is given back when it is done or has taken long enough.
    pub(super) async fn hold<T>(self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(HELD) => {}
        }
        drop(self);
        work.await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.leave();
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    fn places(at_work: usize, waiting: usize) -> Arc<Places> {
        Places::new(PlaceLimits { at_work, waiting })
    }

    #[tokio::test(start_paused = true)]
    async fn who_changes_something_goes_first() {
        let places = places(1, 10);
        let at_work = places.enter(false).await.unwrap();
        let mut look = Box::pin(places.enter(false));
        let mut change = Box::pin(places.enter(true));
        assert!(poll!(look.as_mut()).is_pending());
        assert!(poll!(change.as_mut()).is_pending());
        drop(at_work);
        assert!(poll!(look.as_mut()).is_pending(), "it came first, and waits");
        let changing = change.await.unwrap();
        assert!(poll!(look.as_mut()).is_pending());
        drop(changing);
        drop(look.await.unwrap());
        assert_eq!(places.state.lock().free, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_line_refuses_and_lets_changes_in_for_looks() {
        let places = places(1, 2);
        let _at_work = places.enter(true).await.unwrap();
        let mut one = Box::pin(places.enter(false));
        let mut two = Box::pin(places.enter(false));
        assert!(poll!(one.as_mut()).is_pending() && poll!(two.as_mut()).is_pending());
        assert_eq!(places.enter(false).await.err(), Some(Overloaded { waiting: 2 }));
        let mut change = Box::pin(places.enter(true));
        assert!(poll!(change.as_mut()).is_pending());
        assert_eq!(two.await.err(), Some(Overloaded { waiting: 2 }), "the last to come gives way");
        assert!(poll!(one.as_mut()).is_pending());
        let mut more = Box::pin(places.enter(true));
        assert!(poll!(more.as_mut()).is_pending());
        assert!(one.await.is_err());
        assert!(places.enter(true).await.is_err(), "only changes wait, and the line is full");
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_up_leaves_the_line_and_passes_a_place_on() {
        let places = places(1, 1);
        let at_work = places.enter(true).await.unwrap();
        let mut gone = Box::pin(places.enter(true));
        assert!(poll!(gone.as_mut()).is_pending());
        drop(gone);
        let mut next = Box::pin(places.enter(true));
        assert!(poll!(next.as_mut()).is_pending(), "there is room again");
        // The place comes to somebody who hangs up before noticing.
        drop(at_work);
        drop(next);
        assert_eq!(places.state.lock().free, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_long_gives_its_place_back() {
        let places = places(1, 1);
        let place = places.enter(true).await.unwrap();
        let mut long = Box::pin(place.hold(tokio::time::sleep(Duration::from_secs(60))));
        assert!(poll!(long.as_mut()).is_pending());
        assert_eq!(places.state.lock().free, 0);
        tokio::time::advance(HELD).await;
        assert!(poll!(long.as_mut()).is_pending(), "it goes on");
        assert_eq!(places.state.lock().free, 1);
        long.await;
        assert_eq!(places.state.lock().free, 1, "a place is given back once");
    }
}
