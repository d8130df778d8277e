//! Neighbours who are away, channels that are empty, and times that end: lines wait.

use std::time::Duration;

use node::dev::Cluster;
use node::payouts::PayoutError;
use node::payouts::{Ask, LineReason, LineState, PayoutState, Rejection, Settings};
use tests::e2e::{channel_balance, connected};

use crate::stage::{
    CAPACITY_SAT, HUB, PAYEE, PAYER, accepted, ask, create, ended, file, invoices, kill, line,
    lines, paid_once, settings, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_wait_for_channels_and_money() {
    tests::e2e::embedded("payouts that wait", scenario).await;
}

async fn scenario(net: &mut Cluster) {
    line(net).await;
    let before_msat = channel_balance(net, PAYER, HUB);
    away(net, before_msat).await;
    too_late(net).await;
    paused(net).await;
    dry(net).await;
}

/// The hub is away when the payout begins, and comes back.
async fn away(net: &mut Cluster, before_msat: u64) {
    let rows = invoices(net, 30).await;
    net.stop(HUB).await.unwrap();
    let id = accepted(net, settings(), file(&rows), "away").await;
    until(net, id, "a word of why", |record| !record.detail.is_empty()).await;
    kill_alone(net).await;
    net.start(HUB).await.unwrap();
    net.synced().await.unwrap();
    connected(net).await;
    let end = ended(net, id).await;
    assert_eq!((end.tally.failed, end.detail.as_str()), (0, ""));
    paid_once(net, id, before_msat).await;
}

async fn kill_alone(net: &mut Cluster) {
    tests::e2e::crash(net, PAYER).await;
}

/// Nobody can be paid within the time limit; afterwards the lines are retried.
async fn too_late(net: &mut Cluster) {
    let rows = invoices(net, 4).await;
    let before_msat = channel_balance(net, PAYER, HUB);
    net.stop(HUB).await.unwrap();
    let short = Settings { time_limit_seconds: 1, ..settings() };
    let id = accepted(net, short, file(&rows), "late").await;
    let end = ended(net, id).await;
    assert_eq!((end.state, end.tally.failed), (PayoutState::Completed, 4));
    for line in lines(net, id, &[LineState::Failed]).await {
        assert_eq!(line.reason, Some(LineReason::TimedOut), "{line:?}");
    }
    net.start(HUB).await.unwrap();
    net.synced().await.unwrap();
    connected(net).await;
    let unknown = ask(net, id, &Ask::Retry { lines: vec![5] }, "late 5").await;
    assert!(matches!(unknown, Err(PayoutError::UnknownLine { line: 5, .. })));
    ask(net, id, &Ask::Retry { lines: vec![] }, "late again").await.unwrap();
    ended(net, id).await;
    paid_once(net, id, before_msat).await;
    let nothing = ask(net, id, &Ask::Retry { lines: vec![1] }, "late, too").await;
    assert!(matches!(nothing, Err(PayoutError::Rejected(Rejection::NothingToRetry))));
}

/// Paused over a power cut, nothing is begun; resumed, it goes on.
async fn paused(net: &mut Cluster) {
    let rows = invoices(net, 80).await;
    let before_msat = channel_balance(net, PAYER, HUB);
    let id = accepted(net, Settings { concurrency: 3, ..settings() }, file(&rows), "pause").await;
    until(net, id, "some lines", |record| record.tally.paid >= 5).await;
    ask(net, id, &Ask::Pause, "pause it").await.unwrap();
    until(net, id, "those under way", |record| record.tally.paying == 0).await;
    kill(net).await;
    let still = net.node(PAYER).payouts.get(id).await.unwrap();
    assert_eq!((still.state, still.tally.paying), (PayoutState::Paused, 0));
    assert!(still.tally.pending > 0, "{still:?}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(net.node(PAYER).payouts.get(id).await.unwrap(), still);
    ask(net, id, &Ask::Resume, "resume it").await.unwrap();
    ended(net, id).await;
    paid_once(net, id, before_msat).await;
}

/// A line larger than the channel waits, and keeps no other line.
async fn dry(net: &mut Cluster) {
    let payee = net.node(PAYEE).lightning.node_id();
    let mut rows = invoices(net, 10).await;
    rows.insert(0, format!("{payee},{},", CAPACITY_SAT * 1_000));
    let made = create(net, settings(), file(&rows), "dry").await;
    assert!(!made.quote.is_covered());
    ask(net, made.id, &crate::stage::agreed(&made), "dry accept").await.unwrap();
    let now = until(net, made.id, "the others", |record| record.tally.paid == 10).await;
    assert_eq!((now.state, now.tally.pending), (PayoutState::Running, 1));
    until(net, made.id, "a word of why", |record| record.detail.contains("above what")).await;
    ask(net, made.id, &Ask::Cancel, "dry end").await.unwrap();
    assert_eq!(ended(net, made.id).await.tally.cancelled, 1);
}
