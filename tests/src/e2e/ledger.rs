//! What must be true of a line of three nodes after every upheaval.

use std::collections::{BTreeMap, BTreeSet};

use node::channels::ChannelState;
use node::dev::Cluster;
use node::journal::Entry;
use node::lightning::RecentPayment;
use node::lightning::types::PaymentId;
use node::payments::{Direction, PaymentRecord, PaymentState};

use super::{WAIT, channel_balance, payments, records, settled};

/// The line: each has a channel to the next. Alice pays, the hub forwards or is paid, bob is paid.
pub const NAMES: [&str; 3] = ["alice", "hub", "bob"];

/// What the hub charges with the default policy: 500 millionths, rounded down as BOLT 7 says.
pub fn hub_fee(amount_msat: u64) -> u64 {
    amount_msat * 500 / 1_000_000
}

/// Waits until both channels of the line carry payments again; neighbours that miss each other
/// dial at once.
///
/// # Panics
///
/// If that does not come about in time.
pub async fn connected(net: &Cluster) {
    let deadline = tokio::time::Instant::now() + WAIT;
    for pair in NAMES.windows(2) {
        let peer = net.node(pair[1]).lightning.node_id();
        let address = net.get(pair[1]).expect("the line stands").address();
        let lightning = &net.node(pair[0]).lightning;
        while !usable(net, pair[0], pair[1]) || !usable(net, pair[1], pair[0]) {
            assert!(tokio::time::Instant::now() < deadline, "{pair:?} do not come together");
            // An error is a link that ends or that the other side has just made.
            let _dialled = lightning.connect(peer, &address).await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

fn usable(net: &Cluster, name: &str, peer: &str) -> bool {
    let peer = net.node(peer).lightning.node_id();
    net.node(name).lightning.channels().iter().any(|channel| channel.peer == peer && channel.usable)
}

/// What was true of the line before, to compare with.
pub struct Ledger {
    /// Of each channel of the line, all of it its opener's at first.
    capacity_msat: u64,
    succeeded: BTreeSet<PaymentId>,
    /// The last journal entry read of each node.
    journals: BTreeMap<&'static str, Entry>,
}

impl Ledger {
    /// A ledger of a line that has carried no payment yet.
    pub fn new(capacity_msat: u64) -> Self {
        Self { capacity_msat, succeeded: BTreeSet::new(), journals: BTreeMap::new() }
    }

    /// How many payments have succeeded so far.
    pub fn succeeded(&self) -> usize {
        self.succeeded.len()
    }

    /// Waits until everything has ended, then compares what the payer says, what the payees
    /// say, what LDK says, and what the channels hold. `started` are payments whose callers
    /// were told of them.
    ///
    /// # Panics
    ///
    /// If anything contradicts anything.
    pub async fn check(&mut self, net: &Cluster, started: &BTreeSet<PaymentId>) {
        no_contradiction(net).await;
        let at_rest = || {
            NAMES.iter().all(|name| {
                let node = net.node(name);
                let recent = node.lightning.recent_payments();
                node.payments.open_count() == 0
                    && recent.iter().all(|(_, state)| *state == RecentPayment::Fulfilled)
            })
        };
        net.wait("end of all payments", WAIT, at_rest).await.expect("payments end");
        settled(net).await;
        no_contradiction(net).await;

        let sent = payments(net, "alice").await;
        self.compare(net, &sent, started).await;
        for (at, name) in NAMES.iter().enumerate() {
            let neighbours = [at.checked_sub(1), Some(at + 1)];
            let neighbours: Vec<_> = neighbours
                .iter()
                .filter_map(|at| NAMES.get((*at)?))
                .map(|name| net.node(name).lightning.node_id())
                .collect();
            let records = records(net, name).await;
            assert!(
                records
                    .iter()
                    .filter(|record| neighbours.contains(&record.peer))
                    .all(|record| record.state == ChannelState::Active),
                "{name}: {records:?}"
            );
            self.read_journal(net, name);
        }
    }

    async fn compare(
        &mut self,
        net: &Cluster,
        sent: &[PaymentRecord],
        started: &BTreeSet<PaymentId>,
    ) {
        let ids: BTreeSet<PaymentId> = sent.iter().map(|record| record.id).collect();
        assert_eq!(ids.len(), sent.len(), "a payment is listed twice");
        for id in started {
            assert!(ids.contains(id), "payment {id} was promised and is lost");
        }
        let succeeded: Vec<&PaymentRecord> =
            sent.iter().filter(|record| record.state == PaymentState::Succeeded).collect();
        let now: BTreeSet<PaymentId> = succeeded.iter().map(|record| record.id).collect();
        assert!(self.succeeded.is_subset(&now), "a payment that succeeded does so no more");
        self.succeeded = now;

        let taken = [taken(net, "hub").await, taken(net, "bob").await];
        let mut sums_msat = [0, 0];
        let mut fees_msat = 0;
        let mut hashes = BTreeSet::new();
        for record in succeeded {
            let hash = record.hash.expect("a payment that succeeded has a hash").0;
            assert!(hashes.insert(hash), "{} was paid twice", record.id);
            let at = taken.iter().position(|taken| taken.get(&hash) == Some(&record.amount_msat));
            let at = at.unwrap_or_else(|| panic!("nobody took what alice paid: {record:?}"));
            sums_msat[at] += record.amount_msat;
            let fee_msat = if at == 0 { 0 } else { hub_fee(record.amount_msat) };
            assert_eq!(record.fee_msat, fee_msat, "{record:?}");
            fees_msat += fee_msat;
        }
        let all_taken: BTreeSet<_> = taken.iter().flat_map(|taken| taken.keys().copied()).collect();
        assert_eq!(hashes, all_taken, "payer and payees disagree on what was paid");

        let [to_hub, to_bob] = sums_msat;
        let by_alice = to_hub + to_bob + fees_msat;
        assert_eq!(channel_balance(net, "alice", "hub"), self.capacity_msat - by_alice);
        assert_eq!(channel_balance(net, "hub", "alice"), by_alice);
        assert_eq!(channel_balance(net, "hub", "bob"), self.capacity_msat - to_bob);
        assert_eq!(channel_balance(net, "bob", "hub"), to_bob);
    }

    /// Reads what is new in a journal: sequences without gaps, and the last known entry as it was.
    fn read_journal(&mut self, net: &Cluster, name: &'static str) {
        let known = self.journals.get(name);
        let mut last = known.map_or(0, |entry| entry.sequence);
        let entries = net.node(name).journal.read(last.saturating_sub(1), usize::MAX / 2);
        let mut entries = entries.expect("the journal can be read");
        if let Some(known) = known {
            assert_eq!(entries.first(), Some(known), "{name}'s journal was rewritten");
            entries.remove(0);
        }
        for entry in &entries {
            assert_eq!(entry.sequence, last + 1, "{name}'s journal has a gap");
            last = entry.sequence;
        }
        if let Some(last) = entries.pop() {
            self.journals.insert(name, last);
        }
    }
}

/// Asserts that no node's records contradict LDK's own list.
async fn no_contradiction(net: &Cluster) {
    for name in NAMES {
        // The records first: LDK is never behind them.
        let mut states = BTreeMap::new();
        for record in payments(net, name).await {
            states.insert(record.id, record.state);
        }
        for (id, recent) in net.node(name).lightning.recent_payments() {
            match (states.get(&id), recent) {
                (Some(PaymentState::Succeeded), RecentPayment::Fulfilled)
                | (Some(PaymentState::InFlight), _) => {}
                (None, _) => panic!("{name}: LDK pays {id}, which was never recorded"),
                (Some(state), recent) => panic!("{name}: {id} is {state:?}, LDK: {recent:?}"),
            }
        }
    }
}

/// What `name` was paid, by hash.
async fn taken(net: &Cluster, name: &str) -> BTreeMap<[u8; 32], u64> {
    let records = payments(net, name).await.into_iter();
    records
        .filter(|record| record.direction == Direction::Inbound)
        .filter(|record| record.state == PaymentState::Succeeded)
        .map(|record| (record.hash.expect("an inbound payment has a hash").0, record.amount_msat))
        .collect()
}
