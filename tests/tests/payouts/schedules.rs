//! Payouts at a time and over and over, within a budget, over power cuts.

use std::time::Duration;

use node::dev::Cluster;
use node::payments::{Direction, PaymentState};
use node::payouts::{
    Ask, LineReason, LineState, PayoutRecord, PayoutState, Period, Recurrence, Settings,
};
use tests::e2e::{channel_balance, payments};

use crate::stage::{
    HUB, PAYER, accepted, ask, create, ended, file, invoices, kill, line, lines, paid_once,
    settings, steps, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_run_within_their_budget() {
    tests::e2e::embedded("payouts again and again", scenario).await;
}

async fn scenario(net: &mut Cluster) {
    line(net).await;
    at_a_time(net).await;
    counted(net).await;
    out_of_budget(net).await;
    missed(net).await;
}

fn now_ms(net: &Cluster) -> u64 {
    u64::try_from(net.node(PAYER).environment.clock.now().as_millis()).unwrap()
}

fn every(seconds: u64, runs_max: Option<u32>, budget_msat: u64) -> Settings {
    let period = Period::Seconds(seconds);
    let recurrence = Recurrence { period, runs_max, until_ms: None, budget_msat };
    Settings { recurrence: Some(recurrence), ..settings() }
}

fn salaries(net: &Cluster) -> Vec<String> {
    // Over one hop: the channel to the payee is no public one.
    let key = net.node(HUB).lightning.node_id();
    vec![format!("{key},10000,first"), format!("{key},20000,second")]
}

async fn runs(net: &Cluster, schedule: &PayoutRecord) -> Vec<PayoutRecord> {
    let of = |run: &PayoutRecord| run.parent.is_some_and(|(id, _)| id == schedule.id);
    net.node(PAYER).payouts.list(of, None, 100).await.unwrap().0
}

/// How many payments of the two salaries their receiver has.
async fn taken(net: &Cluster) -> [usize; 2] {
    let all = payments(net, HUB).await;
    [10_000, 20_000].map(|amount_msat| {
        all.iter()
            .filter(|one| one.direction == Direction::Inbound && one.amount_msat == amount_msat)
            .filter(|one| one.state == PaymentState::Succeeded)
            .count()
    })
}

async fn at_a_time(net: &mut Cluster) {
    let rows = invoices(net, 5).await;
    let before_msat = channel_balance(net, PAYER, HUB);
    let later = Settings { not_before_ms: Some(now_ms(net) + 2_500), ..settings() };
    let id = accepted(net, later, file(&rows), "later").await;
    let waits = net.node(PAYER).payouts.get(id).await.unwrap();
    assert_eq!((waits.state, waits.started_ms), (PayoutState::Scheduled, None));
    kill(net).await;
    let end = ended(net, id).await;
    assert!(end.started_ms >= end.settings.not_before_ms, "{end:?}");
    paid_once(net, id, before_msat).await;
}

async fn counted(net: &mut Cluster) {
    let mut rows = salaries(net);
    rows.extend(invoices(net, 1).await);
    let made = create(net, every(1, Some(3), 10_000_000), file(&rows), "three").await;
    let bad = lines(net, made.id, &[LineState::Bad]).await;
    assert_eq!(bad[0].reason, Some(LineReason::NotRepeatable));
    ask(net, made.id, &crate::stage::agreed(&made), "three accept").await.unwrap();
    until(net, made.id, "a run", |record| record.runs.made >= 1).await;
    kill(net).await;
    until(net, made.id, "another", |record| record.runs.made >= 2).await;
    kill(net).await;
    let end = ended(net, made.id).await;
    assert_eq!((end.state, end.runs.made), (PayoutState::Completed, 3));
    let made_runs = runs(net, &end).await;
    assert_eq!(made_runs.len(), 3);
    let cost: u64 = made_runs.iter().map(PayoutRecord::cost_msat).sum();
    assert_eq!(cost, end.runs.spent_msat);
    assert_eq!(taken(net).await, [3, 3], "each run once");
    let balance = net.node(PAYER).payouts.reconcile(made.id).await.unwrap();
    assert_eq!(balance.runs_msat, cost);
    for run in &made_runs {
        net.node(PAYER).payouts.reconcile(run.id).await.unwrap();
        assert_eq!(run.tally.paid, 2, "{run:?}");
    }
    let refused = ask(net, made_runs[0].id, &Ask::Retry { lines: vec![] }, "of a run").await;
    assert!(refused.is_err());
}

/// What is left of a budget does not cover another run: no run is made.
async fn out_of_budget(net: &mut Cluster) {
    let rows = salaries(net);
    let bound = Settings { max_line_fee_msat: Some(100), ..every(1, None, 90_300) };
    let id = accepted(net, bound, file(&rows), "budget").await;
    // A run costs 30,000 msat and may cost 30,200: there is room for three, and not for four.
    let end = ended(net, id).await;
    assert_eq!(end.runs.made, 3, "{end:?}");
    assert!(end.runs.spent_msat == 90_000 && end.detail.contains("budget"), "{end:?}");
    assert_eq!(taken(net).await, [6, 6]);
}

/// Times that go by while the node is down are made up for once, and counted.
async fn missed(net: &mut Cluster) {
    let rows = salaries(net);
    let id = accepted(net, every(1, None, 10_000_000), file(&rows), "missed").await;
    let rests = |record: &PayoutRecord| record.runs.made >= 1 && record.runs.open.is_none();
    let before = until(net, id, "a run", rests).await.runs.made;
    net.crash(PAYER).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3_200)).await;
    net.start(PAYER).await.unwrap();
    net.synced().await.unwrap();
    tests::e2e::connected(net).await;
    let after = until(net, id, "another run", |record| record.runs.made > before).await;
    assert!(after.runs.missed >= 2, "{after:?}");
    ask(net, id, &Ask::Cancel, "enough").await.unwrap();
    let end = ended(net, id).await;
    assert_eq!(end.state, PayoutState::Cancelled);
    let made = usize::try_from(end.runs.made).unwrap();
    assert_eq!(taken(net).await, [6 + made, 6 + made]);
    assert!(!steps(net, id).is_empty());
}
