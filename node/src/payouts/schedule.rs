//! When a payout that is repeated has its runs. Pure.
//!
//! Times are counted from the first one, so that they do not drift. A time that goes by while the
//! node is down, the payout is paused, or the run before has not ended, is not lost, but times do
//! not heap up: the newest of them is made up for with one run, those before it are missed.

use serde::{Deserialize, Serialize};

use super::record::Runs;
use crate::environment::date;

const DAY_MS: u64 = 86_400_000;

/// How a payout is repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recurrence {
    /// How often.
    pub period: Period,
    /// After how many runs it ends.
    pub runs_max: Option<u32>,
    /// After when no run is due any more, ms since the Unix epoch.
    pub until_ms: Option<u64>,
    /// Most that all runs may cost together, fees included, msat.
    pub budget_msat: u64,
}

/// The time from one run to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// So many seconds, at least one.
    Seconds(u64),
    /// A month of the calendar, at the same day and time of day in UTC; in shorter months on
    /// their last day.
    Month,
}

/// What a schedule does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing until then, ms since the Unix epoch.
    Wait(u64),
    /// The run of this time, after so many that were missed.
    Run { number: u32, missed: u32 },
    /// Nothing any more.
    Over,
}

impl Recurrence {
    /// What is next, with the first run at `first_ms`.
    pub fn next(&self, first_ms: u64, runs: &Runs, now_ms: u64) -> Next {
        if self.runs_max.is_some_and(|most| runs.made >= most) {
            return Next::Over;
        }
        let in_time = |at_ms: &u64| self.until_ms.is_none_or(|until_ms| *at_ms <= until_ms);
        let at = |number: u32| self.period.time(first_ms, number).filter(in_time);
        match at(runs.next) {
            None => Next::Over,
            Some(at_ms) if at_ms > now_ms => Next::Wait(at_ms),
            Some(_) => {
                let passed = now_ms.min(self.until_ms.unwrap_or(u64::MAX));
                let number = self.period.newest(first_ms, runs.next, passed);
                Next::Run { number, missed: number - runs.next }
            }
        }
    }
}

impl Period {
    /// The time with this number, from 0; `None` beyond all times.
    fn time(self, first_ms: u64, number: u32) -> Option<u64> {
        match self {
            Self::Seconds(seconds) => {
                seconds.checked_mul(1_000)?.checked_mul(number.into())?.checked_add(first_ms)
            }
            Self::Month => {
                let (year, month, day) = date(first_ms / DAY_MS);
                let months = (year * 12 + month - 1).checked_add(number.into())?;
                let (year, month) = (months / 12, months % 12 + 1);
                let day = day.min(days_of_month(year, month));
                day_number(year, month, day).checked_mul(DAY_MS)?.checked_add(first_ms % DAY_MS)
            }
        }
    }

    /// The newest time up to `now_ms`; that with number `from` is one.
    fn newest(self, first_ms: u64, from: u32, now_ms: u64) -> u32 {
        match self {
            Self::Seconds(seconds) => {
                let passed = now_ms.saturating_sub(first_ms) / seconds.saturating_mul(1_000).max(1);
                u32::try_from(passed).unwrap_or(u32::MAX).max(from)
            }
            Self::Month => {
                let is_past = |number| self.time(first_ms, number).is_some_and(|at| at <= now_ms);
                let mut newest = from;
                while newest < u32::MAX && is_past(newest + 1) {
                    newest += 1;
                }
                newest
            }
        }
    }
}

/// The day counted from 1970-01-01, the inverse of [`date`]. Not before 1970.
fn day_number(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn days_of_month(year: u64, month: u64) -> u64 {
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    day_number(next_year, next_month, 1) - day_number(year, month, 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn every(period: Period) -> Recurrence {
        Recurrence { period, runs_max: None, until_ms: None, budget_msat: 1 }
    }

    fn at(year: u64, month: u64, day: u64) -> u64 {
        day_number(year, month, day) * DAY_MS + 3_600_000
    }

    #[test]
    fn months_end_when_they_end() {
        let first = at(2027, 10, 31);
        let times: Vec<u64> =
            (0..6).map(|number| Period::Month.time(first, number).unwrap()).collect();
        let expected = [(2027, 10, 31), (2027, 11, 30), (2027, 12, 31), (2028, 1, 31)];
        let mut expected: Vec<u64> = expected.iter().map(|(y, m, d)| at(*y, *m, *d)).collect();
        // A leap year; and the day is that of the first run again.
        expected.extend([at(2028, 2, 29), at(2028, 3, 31)]);
        assert_eq!(times, expected);
    }

    #[test]
    fn what_was_missed_is_made_up_for_once() {
        let schedule = every(Period::Seconds(10));
        let mut runs = Runs::default();
        assert_eq!(schedule.next(5_000, &runs, 4_999), Next::Wait(5_000));
        assert_eq!(schedule.next(5_000, &runs, 5_000), Next::Run { number: 0, missed: 0 });
        runs.next = 1;
        assert_eq!(schedule.next(5_000, &runs, 14_999), Next::Wait(15_000));
        assert_eq!(schedule.next(5_000, &runs, 49_000), Next::Run { number: 4, missed: 3 });
        runs.next = 5;
        assert_eq!(schedule.next(5_000, &runs, 49_000), Next::Wait(55_000));
        let monthly = every(Period::Month);
        runs.next = 2;
        let (first, now) = (at(2027, 10, 31), at(2028, 3, 1));
        assert_eq!(monthly.next(first, &runs, now), Next::Run { number: 4, missed: 2 });
    }

    #[test]
    fn a_schedule_ends_by_its_count_or_its_end() {
        let mut schedule = Recurrence { runs_max: Some(2), ..every(Period::Seconds(10)) };
        let mut runs = Runs { made: 2, next: 9, ..Runs::default() };
        assert_eq!(schedule.next(0, &runs, 1_000_000), Next::Over);
        schedule = Recurrence { until_ms: Some(25_000), ..every(Period::Seconds(10)) };
        runs = Runs { next: 1, ..runs };
        // The end was while the node was down: the last time before it is made up for.
        assert_eq!(schedule.next(0, &runs, 1_000_000), Next::Run { number: 2, missed: 1 });
        runs.next = 3;
        assert_eq!(schedule.next(0, &runs, 1_000_000), Next::Over);
        let endless = every(Period::Seconds(u64::MAX));
        assert_eq!(endless.next(1, &runs, 5), Next::Over, "no time is that far");
    }

    proptest! {
        #[test]
        fn days_are_those_of_the_calendar(days in 0..4_000_000_u64) {
            let (year, month, day) = date(days);
            prop_assert_eq!(day_number(year, month, day), days);
        }

        /// Whenever one looks, every time before that is run or missed, each once.
        #[test]
        fn no_time_is_run_twice(
            months in any::<bool>(),
            mut looks in proptest::collection::vec(0..200_000_000_000_u64, 1..40),
        ) {
            looks.sort_unstable();
            let period = if months { Period::Month } else { Period::Seconds(86_400) };
            let schedule = every(period);
            let first = at(2026, 8, 31);
            let mut runs = Runs::default();
            for look in looks {
                let now = first + look;
                while let Next::Run { number, missed } = schedule.next(first, &runs, now) {
                    prop_assert_eq!(number, runs.next + missed);
                    prop_assert!(period.time(first, number).unwrap() <= now);
                    prop_assert!(period.time(first, number + 1).unwrap() > now);
                    runs.missed += missed;
                    runs.made += 1;
                    runs.next = number + 1;
                }
                prop_assert_eq!(runs.made + runs.missed, runs.next);
            }
        }
    }
}
