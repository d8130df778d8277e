//! Balances, slots and commitments of channels.
//!
//! What a channel holds is always the sum of both balances and all its HTLCs; `total_msat` lets
//! a test see that. A commitment round of a lane takes a round trip: what is offered meanwhile
//! waits and goes into the next one together.

use super::graph::Lane;
use crate::scenario::{ChannelSpec, LinkSpec, latencies_us};
use crate::topology::Topology;

/// Why an HTLC does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Balance,
    Slots,
    Closed,
}

/// All lanes, by number.
pub(super) struct Lanes {
    balance_msat: Vec<u64>,
    pending: Vec<u16>,
    pending_msat: Vec<u64>,
    /// When the last commitment of a lane leaves, perhaps in the future, plus 1; 0 if none did.
    commit_us: Vec<u64>,
    latency_us: Vec<u32>,
    capacity_msat: Vec<u64>,
    closed: Vec<bool>,
    slots: u16,
    reserve_ppm: u64,
}

impl Lanes {
    pub fn new(topology: &Topology, channels: &ChannelSpec, links: &LinkSpec, seed: u64) -> Self {
        let count = topology.network.channels.len();
        let capacity_msat: Vec<u64> =
            topology.network.channels.iter().map(|channel| channel.capacity_sat * 1_000).collect();
        let mut balance_msat = Vec::with_capacity(count * 2);
        for (capacity, first) in capacity_msat.iter().zip(&topology.first_end_msat) {
            balance_msat.extend([*first, capacity - first]);
        }
        Self {
            balance_msat,
            pending: vec![0; count * 2],
            pending_msat: vec![0; count * 2],
            commit_us: vec![0; count * 2],
            latency_us: latencies_us(count, links, seed),
            capacity_msat,
            closed: vec![false; count],
            slots: channels.htlc_slots,
            reserve_ppm: channels.reserve_ppm.into(),
        }
    }

    /// What the start of a lane can send now, msat.
    pub fn spendable_msat(&self, lane: Lane) -> u64 {
        let channel = lane as usize / 2;
        if self.closed[channel] || self.pending[lane as usize] >= self.slots {
            return 0;
        }
        let reserve =
            u128::from(self.capacity_msat[channel]) * u128::from(self.reserve_ppm) / 1_000_000;
        self.balance_msat[lane as usize].saturating_sub(u64::try_from(reserve).unwrap_or(u64::MAX))
    }

    /// Takes an amount from the start of a lane into an HTLC.
    pub fn lock(&mut self, lane: Lane, amount_msat: u64) -> Result<(), Refused> {
        if self.closed[lane as usize / 2] {
            return Err(Refused::Closed);
        }
        if self.pending[lane as usize] >= self.slots {
            return Err(Refused::Slots);
        }
        if self.spendable_msat(lane) < amount_msat {
            return Err(Refused::Balance);
        }
        self.balance_msat[lane as usize] -= amount_msat;
        self.pending[lane as usize] += 1;
        self.pending_msat[lane as usize] += amount_msat;
        Ok(())
    }

    /// Ends an HTLC: its amount goes to the other side, or back.
    pub fn unlock(&mut self, lane: Lane, amount_msat: u64, to_other_side: bool) {
        self.pending[lane as usize] -= 1;
        self.pending_msat[lane as usize] -= amount_msat;
        let owner = if to_other_side { lane ^ 1 } else { lane };
        self.balance_msat[owner as usize] += amount_msat;
    }

    /// When something offered on a lane now goes into a commitment.
    pub fn commit_us(&mut self, lane: Lane, now_us: u64) -> u64 {
        let next = match self.commit_us[lane as usize].checked_sub(1) {
            Some(last) if last >= now_us => return last,
            Some(last) => now_us.max(last + 2 * self.latency_us(lane)),
            None => now_us,
        };
        self.commit_us[lane as usize] = next + 1;
        next
    }

    /// One way, in microseconds.
    pub fn latency_us(&self, lane: Lane) -> u64 {
        self.latency_us[lane as usize / 2].into()
    }

    /// Closes a channel on chain.
    pub fn close(&mut self, lane: Lane) {
        self.closed[lane as usize / 2] = true;
    }

    pub fn is_closed(&self, lane: Lane) -> bool {
        self.closed[lane as usize / 2]
    }

    pub fn balance_msat(&self, lane: Lane) -> u64 {
        self.balance_msat[lane as usize]
    }

    pub fn capacity_msat(&self, lane: Lane) -> u64 {
        self.capacity_msat[lane as usize / 2]
    }

    /// Moves what a lane's start owns to the other side: a lost balance or a penalty.
    pub fn forfeit(&mut self, lane: Lane) -> u64 {
        let amount = std::mem::take(&mut self.balance_msat[lane as usize]);
        self.balance_msat[(lane ^ 1) as usize] += amount;
        amount
    }

    /// HTLCs and what they hold, msat.
    pub fn pending(&self) -> (u64, u64) {
        let htlcs = self.pending.iter().map(|count| u64::from(*count)).sum();
        (htlcs, self.pending_msat.iter().sum())
    }

    /// How far open channels are from balanced, on average.
    pub fn imbalance(&self) -> f64 {
        let (mut sum, mut open) = (0.0, 0_u64);
        for (channel, balances) in self.balance_msat.chunks_exact(2).enumerate() {
            if !self.closed[channel] && self.capacity_msat[channel] > 0 {
                let apart = balances[0].abs_diff(balances[1]) as f64;
                sum += apart / self.capacity_msat[channel] as f64;
                open += 1;
            }
        }
        if open == 0 { 0.0 } else { sum / open as f64 }
    }

    /// Everything in all channels, msat: never changes.
    #[cfg(test)]
    pub fn total_msat(&self) -> u64 {
        self.balance_msat.iter().chain(&self.pending_msat).sum()
    }

    /// Whether every channel holds what it was funded with.
    pub fn is_conserved(&self) -> bool {
        self.capacity_msat.iter().enumerate().all(|(channel, capacity)| {
            let lanes = [channel * 2, channel * 2 + 1];
            lanes.map(|lane| self.balance_msat[lane] + self.pending_msat[lane]).iter().sum::<u64>()
                == *capacity
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::generate::{Terms, line};

    fn lanes(slots: u16, reserve_ppm: u32) -> Lanes {
        let terms = Terms {
            capacity_sat: 1_000,
            htlc_minimum_msat: 1,
            base_msat: 0,
            ppm: 0,
            cltv_expiry_delta: 40,
        };
        let mut topology = Topology::from(line(2, &terms));
        topology.first_end_msat = vec![1_000_000];
        let channels = ChannelSpec { htlc_slots: slots, reserve_ppm, ..ChannelSpec::default() };
        let links = LinkSpec { latency_ms: [10.0, 10.0], processing_ms: 0.0 };
        Lanes::new(&topology, &channels, &links, 1)
    }

    #[test]
    fn an_htlc_moves_its_amount_and_nothing_else() {
        let mut lanes = lanes(2, 10_000);
        assert_eq!(lanes.spendable_msat(0), 990_000);
        assert_eq!(lanes.lock(0, 990_001), Err(Refused::Balance));
        lanes.lock(0, 400_000).unwrap();
        lanes.lock(0, 1).unwrap();
        assert_eq!(lanes.lock(0, 1), Err(Refused::Slots));
        assert_eq!(lanes.pending(), (2, 400_001));
        lanes.unlock(0, 400_000, true);
        lanes.unlock(0, 1, false);
        assert_eq!((lanes.balance_msat(0), lanes.balance_msat(1)), (600_000, 400_000));
        assert!(lanes.is_conserved() && lanes.total_msat() == 1_000_000);
        lanes.close(1);
        assert_eq!(lanes.lock(0, 1), Err(Refused::Closed));
    }

    #[test]
    fn what_is_offered_during_a_round_goes_into_the_next_together() {
        let mut lanes = lanes(483, 0);
        assert_eq!(lanes.commit_us(0, 5_000), 5_000);
        // The round trip is 20 ms: the next commitment leaves at 25 ms.
        assert_eq!(lanes.commit_us(0, 6_000), 25_000);
        assert_eq!(lanes.commit_us(0, 24_000), 25_000);
        assert_eq!(lanes.commit_us(0, 26_000), 45_000);
        assert_eq!(lanes.commit_us(0, 90_000), 90_000);
        assert_eq!(lanes.commit_us(1, 6_000), 6_000);
    }
}
