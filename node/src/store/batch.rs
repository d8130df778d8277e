//! A batch of writes, and the tables keys belong to.

use super::Term;

/// The tables of the store. A key is the table's name, `/`, and the rest.
///
/// The list is the whole layout on disk; a new kind of record is a new line here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Format version, engine, term, node id, network.
    Meta,
    /// LDK's channel manager in full, one value.
    Manager,
    /// Differences of the channel manager since, by sequence number (big endian).
    ManagerDelta,
    /// LDK's channel monitors in full, by monitor name.
    Monitor,
    /// Updates to a monitor since its full write, by monitor name and update id (big endian).
    MonitorUpdate,
    /// Monitors of long closed channels, kept for audit.
    MonitorArchive,
    /// LDK's other objects (graph, scorer, sweeper), by LDK's namespaces and key.
    Ldk,
    /// Domain events, by sequence number (big endian).
    Journal,
    /// Idempotency records, by method and key.
    Idempotency,
    /// The state of each payment, by payment id.
    Payment,
    /// Payments by creation time, for lists.
    PaymentIndex,
    /// Payments that are not final yet.
    PaymentOpen,
    /// The newest payment of ours for a hash, by payment hash.
    PaymentHash,
    /// Invoices we made, by payment hash.
    Invoice,
    /// Invoices by creation time, for lists.
    InvoiceIndex,
    /// Records about channels, by their own id.
    Channel,
    /// Peers to keep connected to, by node id.
    Peer,
    /// Wallet change sets, by sequence number.
    Wallet,
    /// Transactions to rebroadcast until they are buried.
    Broadcast,
    /// Batches this node takes part in: root, leaves and where they confirmed, by root outpoint.
    VirtualBatch,
    /// Signed paths to the leaves of batches, by root outpoint and slot (big endian).
    VirtualPath,
    /// How each batch of this hub began, by batch id.
    HubBatch,
    /// What happened to it since, by batch id and number (big endian).
    HubBatchEvent,
    /// Its signed tree, by batch id.
    HubTree,
    /// How each wish of this user for a channel of a batch began, by registration id.
    UserBatch,
    /// What happened to it since, by registration id and number (big endian).
    UserBatchEvent,
    /// Leaves of batches that are to be brought onto the chain, by funding outpoint.
    Unroll,
    /// Users' rollovers, by the id of the registration that is left.
    Rollover,
    /// Hubs' sides of swaps of rollovers, by payment hash.
    RolloverLeg,
    /// What users have paid a hub for their places, by batch id.
    PlacePaid,
    /// Closing transactions of retired channels of batches, by funding outpoint.
    ParkedClosing,
    /// Tree secrets that users handed over, sealed, by batch id and node id.
    ReleasedKey,
    /// The transaction that takes outputs of a batch back and is under way, by batch id.
    Settlement,
    /// Commitments of counterparties that are not revoked, by channel id and txid.
    Revocable,
    /// Revoked states that a tower is to hear of, by number.
    Revealed,
    /// The number of the next of them.
    RevealedNext,
    /// Towers that guard this node, by their keys.
    Guarding,
    /// Where towers pay what they take back, by channel id.
    TowerSweep,
    /// A tower's clients, by their keys.
    TowerClient,
    /// Their channels, by the client's number and tag.
    TowerChannel,
    /// Locators of appointments that came together, by the first one's number.
    TowerPage,
    /// Sealed remedies of appointments, by number.
    TowerBlob,
    /// Breaches that a tower answers, by txid of the commitment.
    TowerBreach,
    /// Paths of batches that a tower watches, by client and funding output.
    TowerWatch,
    /// Leaves that a tower brings onto the chain, by funding output.
    TowerUnroll,
    /// Paths of this node's batches that a tower watches, by tower and funding output.
    GuardedPath,
    /// What else a tower remembers, by name.
    TowerMeta,
    /// Monitors that the next start leaves out, by monitor name.
    DeadMonitor,
    /// Withdrawals and deposits, by swap id.
    Swap,
    /// What blocks said of outputs of swaps, and the last blocks read, one value.
    SwapSeen,
    /// What spent the funding outputs of channels, by funding output; and the last blocks read.
    FundingSpent,
    /// Tokens that were baked, by id.
    Token,
    /// Narrowed tokens that were revoked, by the name of their last link.
    TokenRevoked,
    /// What was taken from each budget, by the name of the link that set it.
    TokenAccount,
    /// What is set aside in them, by what for.
    TokenReservation,
    /// Webhook endpoints, by their ids.
    Webhook,
    /// How far each endpoint came in the log of events, by its id.
    WebhookProgress,
    /// Events that an endpoint does not have although it came past them, by endpoint and sequence
    /// (big endian).
    WebhookPending,
    /// Events that were given up, by endpoint and sequence (big endian).
    WebhookDead,
    /// Payouts, by id.
    Payout,
    /// Payouts by creation time, for lists.
    PayoutIndex,
    /// Payouts that have not ended.
    PayoutOpen,
    /// Their lines, by payout and number (big endian).
    PayoutLine,
}

impl Table {
    /// The tables whose records are written once or twice and kept: what grows with a node's
    /// years. The others hold what a node works with, written again and again.
    pub(super) const HISTORY: [Self; 11] = [
        Self::MonitorArchive,
        Self::Journal,
        Self::Idempotency,
        Self::Payment,
        Self::PaymentIndex,
        Self::PaymentHash,
        Self::Invoice,
        Self::InvoiceIndex,
        Self::Payout,
        Self::PayoutIndex,
        Self::PayoutLine,
    ];

    /// The table's name: the first part of its keys.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Manager => "manager",
            Table::ManagerDelta => "manager-delta",
            Table::Monitor => "monitor",
            Table::MonitorUpdate => "monitor-update",
            Table::MonitorArchive => "monitor-archive",
            Table::Ldk => "ldk",
            Table::Journal => "journal",
            Table::Idempotency => "idempotency",
            Table::Payment => "payment",
            Table::PaymentIndex => "payment-index",
            Table::PaymentOpen => "payment-open",
            Table::PaymentHash => "payment-hash",
            Table::Invoice => "invoice",
            Table::InvoiceIndex => "invoice-index",
            Table::Channel => "channel",
            Table::Peer => "peer",
            Table::Wallet => "wallet",
            Table::Broadcast => "broadcast",
            Table::VirtualBatch => "virtual-batch",
            Table::VirtualPath => "virtual-path",
            Table::HubBatch => "hub-batch",
            Table::HubBatchEvent => "hub-batch-event",
            Table::HubTree => "hub-tree",
            Table::UserBatch => "user-batch",
            Table::UserBatchEvent => "user-batch-event",
            Table::Unroll => "unroll",
            Table::Rollover => "rollover",
            Table::RolloverLeg => "rollover-leg",
            Table::PlacePaid => "place-paid",
            Table::ParkedClosing => "parked-closing",
            Table::ReleasedKey => "released-key",
            Table::Settlement => "settlement",
            Table::Swap => "swap",
            Table::SwapSeen => "swap-seen",
            Table::FundingSpent => "funding-spent",
            Table::Token => "token",
            Table::TokenRevoked => "token-revoked",
            Table::TokenAccount => "token-account",
            Table::TokenReservation => "token-reservation",
            Table::Webhook => "webhook",
            Table::WebhookProgress => "webhook-progress",
            Table::WebhookPending => "webhook-pending",
            Table::WebhookDead => "webhook-dead",
            Table::Payout => "payout",
            Table::PayoutIndex => "payout-index",
            Table::PayoutOpen => "payout-open",
            Table::PayoutLine => "payout-line",
            Table::Revocable => "revocable",
            Table::Revealed => "revealed",
            Table::RevealedNext => "revealed-next",
            Table::Guarding => "guarding",
            Table::TowerSweep => "tower-sweep",
            Table::TowerClient => "tower-client",
            Table::TowerChannel => "tower-channel",
            Table::TowerPage => "tower-page",
            Table::TowerBlob => "tower-blob",
            Table::TowerBreach => "tower-breach",
            Table::TowerWatch => "tower-watch",
            Table::TowerUnroll => "tower-unroll",
            Table::GuardedPath => "guarded-path",
            Table::TowerMeta => "tower-meta",
            Table::DeadMonitor => "dead-monitor",
        }
    }

    /// Returns the key of `rest` in this table.
    pub fn key(self, rest: impl AsRef<[u8]>) -> Vec<u8> {
        let rest = rest.as_ref();
        let mut key = Vec::with_capacity(self.name().len() + 1 + rest.len());
        key.extend_from_slice(self.name().as_bytes());
        key.push(b'/');
        key.extend_from_slice(rest);
        key
    }

    /// Returns the first key of the table and the first key past it.
    pub fn range(self) -> (Vec<u8>, Vec<u8>) {
        self.range_of([])
    }

    /// As [`Table::range`], of the keys whose rest begins with `prefix`.
    pub fn range_of(self, prefix: impl AsRef<[u8]>) -> (Vec<u8>, Vec<u8>) {
        let from = self.key(prefix);
        let mut to = from.clone();
        // The successor of a prefix ends the range of everything that begins with it.
        while to.pop_if(|last| *last == u8::MAX).is_some() {}
        *to.last_mut().expect("a key has its separator") += 1;
        (from, to)
    }

    /// Returns what follows the table's name in `key`, if the key belongs to the table.
    pub fn rest(self, key: &[u8]) -> Option<&[u8]> {
        key.strip_prefix(self.name().as_bytes())?.strip_prefix(b"/")
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets `key` to `value`.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Removes `key`; nothing happens if it is absent.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

/// Writes that become durable together or not at all. A later write to a key wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The writer's term.
    pub term: Term,
    /// The writes in order.
    pub ops: Vec<Op>,
}

impl Batch {
    /// Sets `key` to `value`.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.ops.push(Op::Put { key, value });
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.ops.push(Op::Delete { key });
    }

    /// Moves the writes of `other` behind those of this batch.
    pub fn append(&mut self, mut other: Batch) {
        self.ops.append(&mut other.ops);
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.ops
            .iter()
            .map(|op| match op {
                Op::Put { key, value } => key.len() + value.len(),
                Op::Delete { key } => key.len(),
            })
            .sum()
    }
}
