//! A line of three nodes, files of payments, and what must be true of a payout that has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bitcoin::Amount;
use node::dev::Cluster;
use node::journal::{DomainEvent, IdempotencyKey, PayoutEvent, PayoutId, PayoutStep};
use node::lightning::types::PaymentHash;
use node::payments::{Direction, PaymentState};
use node::payouts::{
    Ask, Balance, LineRecord, LineState, PayoutError, PayoutRecord, PayoutState, Settings, Source,
};
use tests::e2e::{Disks, NAMES, connected, invoice, payments, settled, start_on_disks, told};

pub const PAYER: &str = NAMES[0];
pub const HUB: &str = NAMES[1];
pub const PAYEE: &str = NAMES[2];
pub const CAPACITY_SAT: u64 = 10_000_000;

/// Three nodes on disks in memory, with a channel from each to the next.
pub async fn line(net: &mut Cluster) -> Disks {
    let disks = start_on_disks(net, &NAMES, |config| {
        config.payouts.retry_first_ms = 20;
        config.payouts.retry_longest_seconds = 1;
    })
    .await;
    net.fund(&NAMES, Amount::from_sat(20_000_000), 4).await.unwrap();
    for pair in NAMES.windows(2) {
        net.open_channel(pair[0], pair[1], CAPACITY_SAT, 0).await.unwrap();
    }
    disks
}

pub fn settings() -> Settings {
    Settings {
        name: "test".to_owned(),
        max_total_msat: None,
        max_line_msat: None,
        max_line_fee_msat: None,
        concurrency: 20,
        feerate_sat_per_vb: None,
        time_limit_seconds: 3_600,
        not_before_ms: None,
        recurrence: None,
    }
}

pub fn key(name: impl std::fmt::Display) -> IdempotencyKey {
    IdempotencyKey::own("test", name)
}

/// A file with a head.
pub fn file(rows: &[String]) -> Source {
    let mut text = "target,amount_msat,reference\n".to_owned();
    for row in rows {
        writeln!(text, "{row}").unwrap();
    }
    Source::Csv(text.into_bytes())
}

/// Rows for invoices of the payee's, each of another amount, for which the hub takes 5 msat and more.
pub async fn invoices(net: &Cluster, count: u64) -> Vec<String> {
    let mut rows = Vec::new();
    for number in 0..count {
        let bill = invoice(net, PAYEE, Some(10_000 + 7 * number)).await;
        rows.push(format!("{},,line {number}", bill.invoice));
    }
    rows
}

pub async fn create(net: &Cluster, settings: Settings, source: Source, name: &str) -> PayoutRecord {
    net.node(PAYER).payouts.create(settings, source, &key(name)).await.unwrap()
}

/// Agrees to what was quoted, without the bad lines.
pub fn agreed(record: &PayoutRecord) -> Ask {
    Ask::Accept {
        total_msat: record.quote.total_msat,
        max_fee_msat: record.quote.max_fee_msat,
        skip_bad_lines: true,
    }
}

pub async fn ask(
    net: &Cluster,
    id: PayoutId,
    ask: &Ask,
    name: &str,
) -> Result<PayoutRecord, PayoutError> {
    net.node(PAYER).payouts.change(id, ask, &key(name), None).await
}

/// Makes a payout of `source` and accepts it.
pub async fn accepted(net: &Cluster, settings: Settings, source: Source, name: &str) -> PayoutId {
    let made = create(net, settings, source, name).await;
    ask(net, made.id, &agreed(&made), &format!("{name} accept")).await.unwrap();
    made.id
}

/// Waits until `done` says so of a payout.
pub async fn until(
    net: &Cluster,
    id: PayoutId,
    what: &str,
    done: impl Fn(&PayoutRecord) -> bool,
) -> PayoutRecord {
    let mut watch = net.node(PAYER).payouts.watch(id).unwrap();
    let found = tokio::time::timeout(tests::e2e::WAIT, async {
        let mut record = watch.current().await.unwrap();
        while !done(&record) {
            match watch.next().await.unwrap() {
                Some(next) => record = next,
                None => panic!("{what} does not come: {record:?}"),
            }
        }
        record
    });
    match found.await {
        Ok(record) => record,
        Err(_) => panic!("{what} does not come: {:?}", net.node(PAYER).payouts.get(id).await),
    }
}

pub async fn ended(net: &Cluster, id: PayoutId) -> PayoutRecord {
    until(net, id, "its end", |record| record.state.is_final()).await
}

pub async fn lines(net: &Cluster, id: PayoutId, states: &[LineState]) -> Vec<LineRecord> {
    net.node(PAYER).payouts.lines(id, states, 0, usize::MAX).await.unwrap()
}

/// Cuts the payer's power, starts it again, and lets the channels come back.
pub async fn kill(net: &mut Cluster) {
    tests::e2e::crash(net, PAYER).await;
    connected(net).await;
}

/// What the log of the payer tells of a payout.
pub fn steps(net: &Cluster, id: PayoutId) -> Vec<PayoutStep> {
    let of = |event| match event {
        DomainEvent::Payout(PayoutEvent { payout, what }) if payout == id => Some(what),
        _ => None,
    };
    told(net, PAYER).into_iter().filter_map(of).collect()
}

/// Checks a payout that was completed: every good line was paid once, by what payees have got,
/// by what left the payer's channels, and by the reconciliation.
pub async fn paid_once(net: &Cluster, id: PayoutId, before_msat: u64) -> Balance {
    let record = net.node(PAYER).payouts.get(id).await.unwrap();
    assert_eq!(record.state, PayoutState::Completed, "{record:?}");
    assert_eq!(record.tally.paid, record.quote.good_lines, "{record:?}");
    settled(net).await;
    let lines = lines(net, id, &[LineState::Paid]).await;
    assert_eq!(lines.len(), record.quote.good_lines as usize);
    let lightning: Vec<&LineRecord> = lines.iter().filter(|line| line.output.is_none()).collect();

    // Each has its own payment and preimage, and the payee has each once.
    let mut expected: BTreeMap<PaymentHash, u64> = BTreeMap::new();
    for line in &lightning {
        let preimage = line.preimage.expect("a receipt has a preimage");
        assert!(expected.insert(preimage.hash(), line.amount_msat).is_none(), "{line:?}");
    }
    let ids: BTreeSet<_> = lightning.iter().map(|line| line.payment.unwrap()).collect();
    assert_eq!(ids.len(), lightning.len());
    let mut taken = BTreeMap::new();
    let mut all = payments(net, PAYEE).await;
    all.extend(payments(net, HUB).await);
    for payment in all {
        let is_in = (payment.direction, payment.state);
        if is_in == (Direction::Inbound, PaymentState::Succeeded) {
            taken.insert(payment.hash.unwrap(), payment.amount_msat);
        }
    }
    for (hash, amount_msat) in &expected {
        assert_eq!(taken.get(hash), Some(amount_msat), "the payee has {hash} once");
    }

    // What left the channels, and the file that says so.
    let left_msat = before_msat - tests::e2e::channel_balance(net, PAYER, HUB);
    let cost = |line: &&&LineRecord| line.paid_msat + line.fee_msat;
    let sum_msat: u64 = lightning.iter().map(|line| cost(&line)).sum();
    assert_eq!(sum_msat, left_msat);
    let balance = net.node(PAYER).payouts.reconcile(id).await.unwrap();
    assert_eq!(balance.lightning_msat, left_msat);
    assert_eq!(balance.tally, record.tally);
    assert_eq!(balance.payments as usize, lightning.len());
    assert_eq!(balance.tally.cost_msat(), balance.lightning_msat + balance.onchain_msat);
    balance
}
