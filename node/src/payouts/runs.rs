//! A schedule's task: makes its runs when they are due, one at a time, within its budget.
//!
//! A run is a payout of its own, made, with its lines, in the batch that counts it: no crash makes
//! it twice. What it cost is counted when it has ended; until then nothing else is made, so that
//! the budget is exact.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::live::{Beside, Live, State, events};
use super::machine::{Input, decide};
use super::record::{self, LineRecord, LineState, PayoutRecord, PayoutState, Quote};
use super::schedule::Next;
use super::service::{Payouts, created};
use super::worker::NAP_MAX;
use crate::journal::{PayoutId, PayoutStep};
use crate::store::{Batch, StoreError};

impl Payouts {
    pub(super) async fn make_runs(self: &Arc<Self>, live: &Live) -> Result<(), StoreError> {
        loop {
            if self.let_go(live) {
                return Ok(());
            }
            let open = live.state.lock().record.runs.open;
            if let Some(run) = open {
                self.run_ended(live, run).await?;
                continue;
            }
            let wake_at = self.look_at_times(live)?;
            tokio::select! {
                biased;
                () = live.wake.notified() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// Waits for the end of a run, and counts what it cost.
    async fn run_ended(self: &Arc<Self>, live: &Live, run: PayoutId) -> Result<(), StoreError> {
        let gone = || StoreError::Corrupt(format!("run {run} of a schedule is gone"));
        let mut watch = self.watch(run).map_err(|_| gone())?;
        let ended = watch.outcome().await?;
        let mut state = live.state.lock();
        let input = Input::RunEnded { cost_msat: ended.cost_msat() };
        self.feed(live, &mut state, input, Batch::default());
        Ok(())
    }

    /// Does what is due; returns when to look again.
    fn look_at_times(self: &Arc<Self>, live: &Live) -> Result<Instant, StoreError> {
        let now_ms = self.now_ms();
        let mut state = live.state.lock();
        let record = &state.record;
        let (Some(recurrence), PayoutState::Scheduled) =
            (&record.settings.recurrence, record.state)
        else {
            return Ok(Instant::now() + NAP_MAX);
        };
        let first_ms = record.settings.not_before_ms.or(record.accepted_ms).unwrap_or(now_ms);
        match recurrence.next(first_ms, &record.runs, now_ms) {
            Next::Wait(at_ms) => {
                let nap = Duration::from_millis(at_ms.saturating_sub(now_ms)).min(NAP_MAX);
                return Ok(Instant::now() + nap);
            }
            Next::Over => self.over(live, &mut state, "every run was made"),
            Next::Run { number, missed } => {
                let most_msat = record.quote.most_msat();
                let left_msat = recurrence.budget_msat.saturating_sub(record.runs.spent_msat);
                if most_msat > left_msat {
                    let why = format!(
                        "the budget has {left_msat} msat left, a run may cost {most_msat} msat"
                    );
                    self.over(live, &mut state, &why);
                } else {
                    let run = self.make_run(live, &mut state, number, missed)?;
                    drop(state);
                    self.add(run);
                }
            }
        }
        Ok(Instant::now())
    }

    fn over(&self, live: &Live, state: &mut State, why: &str) {
        why.clone_into(&mut state.record.detail);
        self.feed(live, state, Input::Over, Batch::default());
    }

    /// Makes a run, in one batch with its lines and the schedule's own record.
    fn make_run(
        &self,
        live: &Live,
        state: &mut State,
        number: u32,
        missed: u32,
    ) -> Result<Live, StoreError> {
        let schedule = &state.record;
        let id = PayoutId(self.parts.entropy.bytes());
        let mut batch = Batch::default();
        let good = |line: &LineRecord| line.state == LineState::Pending;
        for line in record::lines(&self.parts.committer, live.id, good)?.values() {
            line.anew().put(id, &mut batch);
        }
        let mut settings = schedule.settings.clone();
        (settings.recurrence, settings.not_before_ms) = (None, None);
        let quote = Quote { bad_lines: 0, ..schedule.quote.clone() };
        let waiting = PayoutRecord {
            parent: Some((live.id, schedule.runs.made + 1)),
            ..self.new_record(id, settings, quote)
        };
        // Whoever accepted the schedule has accepted its runs.
        let accept = Input::Accept {
            total_msat: waiting.quote.total_msat,
            max_fee_msat: waiting.quote.max_fee_msat,
            skip_bad_lines: false,
        };
        let accepted = decide(&waiting, accept, self.now_ms())
            .expect("a schedule that was accepted has lines that can be paid");
        let run = accepted.after;
        run.put_new(&mut batch);
        let steps = vec![created(&run), PayoutStep::Started];
        let counted = decide(schedule, Input::Run { run: id, number, missed }, self.now_ms())
            .expect("only what callers ask for is ever refused");
        let beside = Beside { batch, events: events(id, steps), ..Beside::default() };
        let (_, ticket) = self.commit(live, state, counted, beside);
        Ok(Live::new(run, ticket))
    }
}
