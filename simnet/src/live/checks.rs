//! What must hold whatever went wrong: nothing is lost, nothing doubled, everything ends.
//!
//! [`Checker::step`] looks while the network works, [`Checker::at_rest`] once everything has
//! ended. Nodes that cheated, or whose disk lied, are excused: what they lose is theirs, what
//! others lose to them is not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bitcoin::OutPoint;
use node::channels::ChannelState;
use node::lightning::ChannelSnapshot;
use node::lightning::types::PaymentHash;
use node::node::Node as RunningNode;
use node::payments::{PaymentFilter, PaymentState};

use super::LiveError;
use super::batches::{self, BatchWatch};
use super::book::Book;
use super::faults::Cheated;
use super::hosts::Hosts;
use super::htlcs;
use super::memory::Memory;
use super::miner::Miner;
use super::traffic::Made;
use super::trees::DUST_MSAT;
use super::whereabouts;
use crate::topology::Node;

/// What a close may cost beside fees: dust, outputs that nobody wants, rounded millisatoshi; sat.
const CLOSE_SLACK_SAT: u64 = 2_500;
/// Payments read at a time.
const PAGE: usize = 1_000;

/// Blocks within which batches form, users move and paths come onto the chain after all faults,
/// and what nodes have between two of them.
const BLOCKS_TO_REST: u32 = 60;
const REST_BLOCK: Duration = Duration::from_secs(61);

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at {at_s} s: {rule}: {detail}")]
pub struct Violation {
    /// When, in seconds of virtual time.
    pub at_s: u64,
    /// Which rule.
    pub rule: &'static str,
    /// What was seen.
    pub detail: String,
}

/// What a node owns, msat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wealth {
    /// In its wallet.
    pub wallet_msat: u64,
    /// Its balances in open channels.
    pub channels_msat: u64,
    /// What the chain still owes it, less what its wallet counts of claims that wait for a block:
    /// those are of the same money.
    pub pending_msat: u64,
}

impl Wealth {
    fn of(node: &RunningNode) -> Self {
        let balance = node.wallet.balance();
        let wallet = balance.confirmed + balance.unconfirmed + balance.immature;
        let pending: u64 = node.lightning.pending_balances().iter().map(|b| b.amount_sat).sum();
        Self {
            wallet_msat: wallet.to_sat() * 1_000,
            channels_msat: node.lightning.channels().iter().map(|c| c.local_msat).sum(),
            pending_msat: pending.saturating_sub(balance.unconfirmed.to_sat()) * 1_000,
        }
    }

    /// All of it.
    pub fn total_msat(&self) -> u64 {
        self.wallet_msat + self.channels_msat + self.pending_msat
    }
}

/// What nodes know of payments that succeeded.
#[derive(Default)]
struct Paid {
    /// What each node sent and received, msat.
    sums: Vec<(u64, u64)>,
    /// Who sent how much for which hash, and who received it.
    sent: BTreeMap<[u8; 32], BTreeMap<Node, u64>>,
    taken: BTreeMap<[u8; 32], BTreeMap<Node, u64>>,
    /// Who paid a hash that it had paid already.
    again: Option<(Node, [u8; 32])>,
    /// Who meant to pay a hash and knows that it has not, or does not know yet.
    unpaid: BTreeMap<[u8; 32], BTreeMap<Node, PaymentState>>,
}

/// The checker of a run.
pub struct Checker {
    hosts: Hosts,
    miner: Miner,
    book: Book,
    /// Where users are in batches.
    batches: Option<BatchWatch>,
    before: Vec<Wealth>,
    /// What each had sent and received, msat.
    paid_before: Vec<(u64, u64)>,
}

impl Checker {
    /// A checker that compares with what there is now, when nothing has gone wrong yet.
    ///
    /// # Errors
    ///
    /// If a node does not tell its payments.
    pub async fn new(
        hosts: Hosts,
        miner: Miner,
        book: Book,
        batches: Option<BatchWatch>,
    ) -> Result<Self, LiveError> {
        let before = hosts
            .numbers()
            .map(|number| hosts.ask(number, Wealth::of).unwrap_or_default())
            .collect();
        let mut this = Self { hosts, miner, book, batches, before, paid_before: vec![] };
        this.paid_before = this.payments_of_all().await?.sums;
        Ok(this)
    }

    /// The batches that are watched.
    pub fn batches(&self) -> Option<&BatchWatch> {
        self.batches.as_ref()
    }

    fn violation(&self, rule: &'static str, detail: String) -> LiveError {
        let at_s = self.hosts.outside().clock.elapsed().as_secs();
        LiveError::Violated(Violation { at_s, rule, detail })
    }

    fn channels(&self) -> HashMap<OutPoint, Vec<(Node, ChannelSnapshot)>> {
        let mut found: HashMap<OutPoint, Vec<(Node, ChannelSnapshot)>> = HashMap::new();
        for number in self.hosts.numbers() {
            let channels = self.hosts.ask(number, |node| node.lightning.channels());
            for channel in channels.unwrap_or_default() {
                if let Some(funding) = channel.funding {
                    found.entry(funding).or_default().push((number, channel));
                }
            }
        }
        found
    }

    /// Looks while the network works: no channel holds more than it was funded with, whatever is
    /// on its way, and no store has failed but by a fault.
    ///
    /// # Errors
    ///
    /// [`LiveError::Violated`].
    pub fn step(&self, excused: &BTreeSet<Node>) -> Result<(), LiveError> {
        self.book.look();
        for (funding, ends) in self.channels() {
            let Some(capacity_sat) = self.book.capacity_sat(funding) else { continue };
            if ends.iter().any(|(number, _)| excused.contains(number)) {
                continue;
            }
            for (number, channel) in &ends {
                let sum = channel.local_msat + channel.remote_msat;
                if sum > capacity_sat * 1_000 {
                    let detail = format!("{funding} at n{number}: {sum} of {capacity_sat} sat");
                    return Err(self.violation("a channel holds what it was funded with", detail));
                }
            }
        }
        self.settled_once(excused)
    }

    /// Every satoshi of a batch is in one place.
    fn settled_once(&self, excused: &BTreeSet<Node>) -> Result<(), LiveError> {
        let Some(BatchWatch { trees, .. }) = &self.batches else { return Ok(()) };
        trees.look();
        let wrong = trees.wrong(excused);
        wrong.map_or(Ok(()), |wrong| Err(self.violation("each batch is settled once", wrong)))
    }

    /// What is not at rest: HTLCs under way, money that waits for the chain.
    ///
    /// # Errors
    ///
    /// If a node's store fails.
    pub async fn under_way(&self, excused: &BTreeSet<Node>) -> Result<Option<String>, LiveError> {
        if let Some(batches) = &self.batches
            && let Some(what) = batches.under_way(excused).await?
        {
            return Ok(Some(what));
        }
        // What an excused node offered and nobody can claim is its own until it comes back.
        let with_excused = self.book.fundings_of(excused);
        let is_with_excused =
            |funding: Option<OutPoint>| funding.is_some_and(|f| with_excused.contains(&f));
        for number in self.hosts.numbers().filter(|number| !excused.contains(number)) {
            let look = |node: &RunningNode| {
                let mut channels = node.lightning.channels().into_iter();
                let busy = channels.find(|c| {
                    c.outbound_htlcs > 0 || (c.inbound_htlcs > 0 && !is_with_excused(c.funding))
                });
                let unconfirmed = node.wallet.balance().unconfirmed;
                let feerate = self.miner.feerate_msat_per_vb();
                if let Some(channel) = busy {
                    return Some(format!("HTLCs of n{number} in {:?}", channel.funding));
                }
                if !batches::is_idle(node, feerate) {
                    let waits = node.lightning.pending_balances();
                    return Some(format!("money of n{number} on chain: {waits:?}"));
                }
                let offered = htlcs::offered(node);
                if htlcs::is_worth(&offered, feerate) {
                    return Some(format!("HTLCs of n{number} on chain: {offered:?}"));
                }
                // A claim that gets its output through, but pays too little for a block.
                let waits = unconfirmed.to_sat() * 1_000 > batches::least_msat(feerate);
                waits.then(|| format!("{unconfirmed} of n{number}'s wallet"))
            };
            if let Some(what) = self.hosts.ask(number, look).flatten() {
                return Ok(Some(what));
            }
        }
        Ok(None)
    }

    /// Channels that are no longer open at an end, by their funding outputs. One of a batch whose
    /// funding output is not on chain cost nothing.
    pub fn closed(&self) -> BTreeSet<OutPoint> {
        let fundings = self.book.fundings().into_iter();
        let mut closed: BTreeSet<OutPoint> =
            fundings.filter(|f| !self.book.is_virtual(*f)).collect();
        for (funding, ends) in self.channels() {
            if ends.len() == 2 && ends.iter().all(|(_, channel)| !channel.closing) {
                closed.remove(&funding);
            }
        }
        closed
    }

    /// Looks once everything has ended.
    ///
    /// # Errors
    ///
    /// [`LiveError::Violated`].
    pub async fn at_rest(
        &self,
        made: &[Made],
        excused: &BTreeSet<Node>,
        cheated: &[Cheated],
    ) -> Result<(), LiveError> {
        self.book.look();
        let records = self.compare_payments(made, excused).await?;
        self.settled_once(excused)?;
        if let Some(batches) = &self.batches
            && let Some(wrong) = batches.left_behind(excused).await?
        {
            return Err(self.violation("who leaves a batch takes all along", wrong));
        }
        self.conserved(excused)?;
        self.nobody_lost(&records, excused, cheated)?;
        self.nobody_gained(&records, excused)?;
        self.channels_agree(excused)
    }

    /// Payers and payees agree on what was paid; returns what each sent and received since the
    /// beginning, msat.
    async fn compare_payments(
        &self,
        made: &[Made],
        excused: &BTreeSet<Node>,
    ) -> Result<Vec<(u64, u64)>, LiveError> {
        let Paid { sums, sent, taken, again, unpaid } = self.payments_of_all().await?;
        if let Some((number, hash)) = again {
            let detail = format!("n{number} paid {} again", PaymentHash(hash));
            return Err(self.violation("a hash is paid once", detail));
        }
        for (hash, payers) in sent.iter().filter(|(_, payers)| payers.len() > 1) {
            // Two pay for one hash where each pays the other: a balance that moves to another
            // channel of theirs.
            let nobody = BTreeMap::new();
            let payees = taken.get(hash).unwrap_or(&nobody);
            let is_excused = payers.keys().any(|number| excused.contains(number));
            if !is_excused && !payers.keys().eq(payees.keys()) {
                let detail = format!("{} was paid by {payers:?} to {payees:?}", PaymentHash(*hash));
                return Err(self.violation("a hash is paid once", detail));
            }
        }
        for Made { from, to, hash, amount_msat } in made {
            if excused.contains(from) || excused.contains(to) {
                continue;
            }
            if taken.get(&hash.0).and_then(|payees| payees.get(to)) != Some(amount_msat) {
                let detail = format!("n{from} paid {amount_msat} msat for {hash}, n{to} has none");
                return Err(self.violation("what was paid arrived", detail));
            }
            if !sent.get(&hash.0).is_some_and(|payers| payers.contains_key(from)) {
                let detail = format!("n{from} was told that {hash} is paid, and forgot");
                return Err(self.violation("what was promised is remembered", detail));
            }
        }
        // What is too small for an output of its own is lost to whoever forwarded it when the
        // channel it came over closes: its payer has it back. An output that is worth no
        // transaction stays where it is: its payer never hears that it arrived.
        let feerate = self.miner.feerate_msat_per_vb();
        let is_stuck = |hash: &[u8; 32]| {
            let payers = unpaid.get(hash).into_iter().flatten();
            let mut flying = payers.filter(|(_, state)| **state == PaymentState::InFlight);
            flying.any(|(payer, _)| {
                let look = |node: &RunningNode| htlcs::is_stuck(node, PaymentHash(*hash), feerate);
                self.hosts.ask(*payer, look) == Some(true)
            })
        };
        let has_closed = !self.closed().is_empty();
        let is_lost = |(hash, payees): &(&[u8; 32], &BTreeMap<Node, u64>)| {
            let failed = |state: &PaymentState| *state == PaymentState::Failed;
            let is_failed = unpaid.get(*hash).is_some_and(|payers| payers.values().any(failed));
            let is_dust = payees.values().all(|msat| *msat <= DUST_MSAT);
            (has_closed && is_failed && is_dust) || is_stuck(hash)
        };
        let mut unknown =
            taken.iter().filter(|(hash, _)| excused.is_empty() && !sent.contains_key(*hash));
        if let Some((hash, payees)) = unknown.find(|payment| !is_lost(payment)) {
            let (payers, hash) = (unpaid.get(hash), PaymentHash(*hash));
            let detail = format!("{payees:?} were paid for {hash}, and {payers:?} know not to");
            return Err(self.violation("what arrived was paid", detail));
        }
        let since = sums.into_iter().zip(&self.paid_before);
        Ok(since
            .map(|(now, then)| (now.0.saturating_sub(then.0), now.1.saturating_sub(then.1)))
            .collect())
    }

    /// What payments all nodes know to have succeeded.
    async fn payments_of_all(&self) -> Result<Paid, LiveError> {
        let mut paid = Paid { sums: vec![(0, 0); self.hosts.count() as usize], ..Paid::default() };
        for number in self.hosts.numbers() {
            for record in self.payments(number).await? {
                let Some(hash) = record.hash else { continue };
                if record.state != PaymentState::Succeeded {
                    if record.direction == node::payments::Direction::Outbound {
                        let payers = paid.unpaid.entry(hash.0).or_default();
                        payers.insert(number, record.state);
                    }
                    continue;
                }
                let sum: &mut (u64, u64) = &mut paid.sums[number as usize];
                if record.direction == node::payments::Direction::Inbound {
                    sum.1 += record.amount_msat;
                    paid.taken.entry(hash.0).or_default().insert(number, record.amount_msat);
                } else {
                    sum.0 += record.amount_msat + record.fee_msat;
                    let payers = paid.sent.entry(hash.0).or_default();
                    if payers.insert(number, record.amount_msat).is_some() {
                        paid.again = Some((number, hash.0));
                    }
                }
            }
        }
        Ok(paid)
    }

    async fn payments(
        &self,
        number: Node,
    ) -> Result<Vec<node::payments::PaymentRecord>, LiveError> {
        let service = self.hosts.ask(number, |node| std::sync::Arc::clone(&node.payments));
        let Some(service) = service else { return Ok(Vec::new()) };
        let (mut all, mut page) = (Vec::new(), None);
        loop {
            let found = service.list(&PaymentFilter::default(), page.as_deref(), PAGE).await?;
            all.extend(found.payments);
            match found.next {
                Some(next) => page = Some(next),
                None => return Ok(all),
            }
        }
    }

    fn wealth(&self) -> Vec<Wealth> {
        let of = |number| self.hosts.ask(number, Wealth::of).unwrap_or_default();
        self.hosts.numbers().map(of).collect()
    }

    /// What all nodes had, they have, or paid to miners.
    fn conserved(&self, excused: &BTreeSet<Node>) -> Result<(), LiveError> {
        // What a dead node owns nobody can ask it; what others lost to it shows with them.
        if self.hosts.numbers().any(|number| !self.hosts.runs(number)) {
            return Ok(());
        }
        let total = |wealth: &[Wealth]| wealth.iter().map(Wealth::total_msat).sum::<u64>();
        let before = total(&self.before);
        let now = total(&self.wealth()) + self.miner.carried().fees_sat * 1_000;
        let slack = self.closed().len() as u64 * CLOSE_SLACK_SAT * 1_000;
        // A node on a copy of its disk counts channels that are over.
        let is_doubled = now > before && excused.is_empty();
        let height = self.miner.counts_from();
        let mut most = now + slack;
        if most < before {
            // What excused nodes may take once a time lock is over nobody waits for.
            let fundings = self.book.fundings_of(excused);
            most += whereabouts::left_of(&self.hosts, height, &fundings) * 1_000;
        }
        if is_doubled || most < before {
            let (then, wealth) = (&self.before, self.wealth());
            let elsewhere = whereabouts::of_all(&self.hosts, height);
            let detail = format!(
                "{before} msat before, {now} msat now, {slack} msat of slack; {wealth:?}, \
                 {then:?}; {elsewhere}"
            );
            return Err(self.violation("satoshis are conserved", detail));
        }
        Ok(())
    }

    /// Whoever kept to the rules has what it had, less what it paid, and fees; and all that was in
    /// a channel whose other end published a revoked state.
    fn nobody_lost(
        &self,
        records: &[(u64, u64)],
        excused: &BTreeSet<Node>,
        cheated: &[Cheated],
    ) -> Result<(), LiveError> {
        let fees_msat = self.miner.carried().fees_sat * 1_000;
        let closed = self.closed().len() as u64;
        for (number, wealth) in (0..).zip(self.wealth()) {
            if excused.contains(&number) || !self.hosts.runs(number) {
                continue;
            }
            let (sent, received) = records[number as usize];
            let forfeits = cheated.iter().filter(|cheated| cheated.victim == number);
            let forfeits: u64 = forfeits.map(|cheated| cheated.forfeit_msat).sum();
            let has = self.before[number as usize].total_msat() + received + forfeits;
            let due = has.saturating_sub(sent);
            let slack = fees_msat + closed * CLOSE_SLACK_SAT * 1_000;
            if wealth.total_msat() + slack < due {
                let elsewhere = whereabouts::of_all(&self.hosts, self.miner.counts_from());
                let detail = format!(
                    "n{number} should have {due} msat less at most {slack} and has {wealth:?}; \
                     {forfeits} msat of it are penalties; {elsewhere}"
                );
                let rule = match forfeits {
                    0 => "nobody honest loses more than fees",
                    _ => "every breach is punished",
                };
                return Err(self.violation(rule, detail));
            }
        }
        Ok(())
    }

    /// No user of a batch has more than it had and was paid: nobody was paid twice.
    fn nobody_gained(
        &self,
        records: &[(u64, u64)],
        excused: &BTreeSet<Node>,
    ) -> Result<(), LiveError> {
        if !excused.is_empty() {
            return Ok(());
        }
        let wealth = self.wealth();
        for number in self.book.users().filter(|number| self.hosts.runs(*number)) {
            let (sent, received) = records[number as usize];
            let most = self.before[number as usize].total_msat() + received;
            if wealth[number as usize].total_msat() + sent > most {
                let has = wealth[number as usize];
                let detail = format!("n{number} may have {most} msat less {sent} and has {has:?}");
                return Err(self.violation("nobody is paid twice", detail));
            }
        }
        Ok(())
    }

    /// Both ends of an open channel say the same, to the millisatoshi.
    fn channels_agree(&self, excused: &BTreeSet<Node>) -> Result<(), LiveError> {
        for (funding, ends) in self.channels() {
            let [(one, a), (other, b)] = &ends[..] else { continue };
            if excused.contains(one) || excused.contains(other) || a.closing || b.closing {
                continue;
            }
            let capacity_msat = self.book.capacity_sat(funding).map_or(0, |sat| sat * 1_000);
            if a.local_msat != b.remote_msat
                || b.local_msat != a.remote_msat
                || a.local_msat + b.local_msat != capacity_msat
            {
                let detail = format!(
                    "{funding}: n{one} has {} and n{other} {}, of {capacity_msat}",
                    a.local_msat, b.local_msat
                );
                return Err(self.violation("both ends of a channel agree", detail));
            }
        }
        Ok(())
    }

    /// After faults every channel that is not over carries payments again.
    ///
    /// # Errors
    ///
    /// [`LiveError::Violated`] if that does not come about within `patience`.
    pub async fn comes_back(
        &self,
        excused: &BTreeSet<Node>,
        patience: Duration,
    ) -> Result<(), LiveError> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            self.book.look();
            let Some(dead) = self.unusable(excused) else { break };
            if tokio::time::Instant::now() > deadline {
                return Err(self.violation("channels come back after faults", dead));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let Some(batches) = &self.batches else { return Ok(()) };
        for _ in 0..BLOCKS_TO_REST {
            if batches.under_way(excused).await?.is_none() {
                return Ok(());
            }
            self.miner.mine(&bitcoin::ScriptBuf::new_op_return([]));
            tokio::time::sleep(REST_BLOCK).await;
        }
        let what = batches.under_way(excused).await?;
        what.map_or(Ok(()), |what| Err(self.violation("batches come to rest", what)))
    }

    /// A channel that should carry payments and does not.
    fn unusable(&self, excused: &BTreeSet<Node>) -> Option<String> {
        let channels = self.channels();
        for number in self.hosts.numbers().filter(|number| !excused.contains(number)) {
            let records = self.hosts.ask(number, |node| {
                let known = node.channels.by_funding();
                let record = |channel| node.channels.recorded(channel);
                known.into_iter().filter_map(|(f, c)| Some((f, record(c)?))).collect::<Vec<_>>()
            })?;
            for (funding, record) in records {
                let ends = channels.get(&funding).map_or(&[][..], |ends| &ends[..]);
                let with_excused =
                    excused.iter().any(|one| self.hosts.node_id(*one) == record.peer);
                let is_open = record.state == ChannelState::Active;
                let is_usable = ends.len() == 2 && ends.iter().all(|(_, channel)| channel.usable);
                if is_open && !with_excused && !is_usable {
                    return Some(format!("{funding} of n{number} is not usable"));
                }
            }
        }
        None
    }

    /// What a node says of itself.
    ///
    /// # Errors
    ///
    /// If its store fails.
    pub async fn memory(&self, number: Node) -> Result<Memory, LiveError> {
        let payments = self.payments(number).await?;
        let batches = match &self.batches {
            Some(batches) => batches.memory(number).await?,
            None => BTreeMap::new(),
        };
        let (channels, wallet_sat) = self
            .hosts
            .ask(number, |node| {
                let channels = node.lightning.channels();
                let balances =
                    channels.iter().map(|c| (c.funding, (c.local_msat, c.remote_msat))).collect();
                let balance = node.wallet.balance();
                (balances, (balance.confirmed + balance.unconfirmed).to_sat())
            })
            .ok_or(LiveError::Away { host: number })?;
        let payments = payments.into_iter().map(|record| (record.id.0, record.state)).collect();
        Ok(Memory { channels, payments, batches, wallet_sat })
    }

    /// Starts a node again from its disk: it must say the same as before.
    ///
    /// # Errors
    ///
    /// [`LiveError::Violated`] if it does not.
    pub async fn replays(&self, number: Node) -> Result<(), LiveError> {
        let before = self.memory(number).await?;
        self.hosts.leave(number);
        self.hosts.cut_power(number, 0).await;
        self.hosts.come_back(number);
        self.hosts.settle(number).await?;
        let after = self.memory(number).await?;
        if before != after {
            let changed = before.changes(&after);
            let unconfirmed = whereabouts::unconfirmed(&self.hosts, number);
            let detail = format!("n{number} after a power cut: {changed:?}; {unconfirmed:?}");
            return Err(self.violation("a start from disk equals memory", detail));
        }
        Ok(())
    }
}
