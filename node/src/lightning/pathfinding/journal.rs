//! LDK's scorer, with a note of the channels it learnt about.
//!
//! What a search remembers of the scorer's answers stays true until the scorer learns. The notes
//! say which channels to ask about again.

use std::collections::VecDeque;
use std::time::Duration;

use lightning::io;
use lightning::routing::router::{CandidateRouteHop, Path};
use lightning::routing::scoring::{ChannelUsage, ScoreLookUp, ScoreUpdate};
use lightning::util::ser::{Writeable, Writer};

/// Notes kept; who has read none of so many asks about everything.
const NOTES_MAX: usize = 4_096;

/// A scorer that notes what it learns.
pub struct JournalingScorer<S> {
    scorer: S,
    notes: VecDeque<u64>,
    /// How many notes there were before the oldest that is kept.
    dropped: u64,
}

impl<S> JournalingScorer<S> {
    /// Wraps `scorer`.
    pub fn new(scorer: S) -> Self {
        Self { scorer, notes: VecDeque::new(), dropped: 0 }
    }

    /// The scorer, for what only it can tell.
    pub fn scorer(&self) -> &S {
        &self.scorer
    }

    fn note(&mut self, path: &Path) {
        for hop in &path.hops {
            if self.notes.len() == NOTES_MAX {
                self.notes.pop_front();
                self.dropped += 1;
            }
            self.notes.push_back(hop.short_channel_id);
        }
    }

    fn forget_notes(&mut self) {
        // One more than was written: also who has read everything asks anew.
        self.dropped += self.notes.len() as u64 + 1;
        self.notes.clear();
    }
}

/// Where to read what a scorer learnt.
pub trait Journal {
    /// How much has been learnt so far.
    fn position(&self) -> u64;

    /// The channels learnt about since `position`; `None` if that is no longer known.
    fn learnt_since(&self, position: u64) -> Option<impl Iterator<Item = u64>>;
}

impl<S> Journal for JournalingScorer<S> {
    fn position(&self) -> u64 {
        self.dropped + self.notes.len() as u64
    }

    fn learnt_since(&self, position: u64) -> Option<impl Iterator<Item = u64>> {
        let from = usize::try_from(position.checked_sub(self.dropped)?).ok()?;
        (from <= self.notes.len()).then(|| self.notes.range(from..).copied())
    }
}

impl<S: ScoreLookUp> ScoreLookUp for JournalingScorer<S> {
    type ScoreParams = S::ScoreParams;

    fn channel_penalty_msat(
        &self,
        candidate: &CandidateRouteHop,
        usage: ChannelUsage,
        score_params: &S::ScoreParams,
    ) -> u64 {
        self.scorer.channel_penalty_msat(candidate, usage, score_params)
    }
}

impl<S: ScoreUpdate> ScoreUpdate for JournalingScorer<S> {
    fn payment_path_failed(&mut self, path: &Path, short_channel_id: u64, now: Duration) {
        self.scorer.payment_path_failed(path, short_channel_id, now);
        self.note(path);
    }

    fn payment_path_successful(&mut self, path: &Path, now: Duration) {
        self.scorer.payment_path_successful(path, now);
        self.note(path);
    }

    fn probe_failed(&mut self, path: &Path, short_channel_id: u64, now: Duration) {
        self.scorer.probe_failed(path, short_channel_id, now);
        self.note(path);
    }

    fn probe_successful(&mut self, path: &Path, now: Duration) {
        self.scorer.probe_successful(path, now);
        self.note(path);
    }

    fn time_passed(&mut self, now: Duration) {
        self.scorer.time_passed(now);
        self.forget_notes();
    }
}

impl<S: Writeable> Writeable for JournalingScorer<S> {
    fn write<W: Writer>(&self, writer: &mut W) -> Result<(), io::Error> {
        self.scorer.write(writer)
    }
}
