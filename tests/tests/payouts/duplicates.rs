//! A hundred callers with one key, and a power cut among them: one effect, one answer.

use std::sync::Arc;

use node::dev::Cluster;
use node::journal::{PayoutId, PayoutStep};
use node::payouts::{Ask, LineReason, LineState, PayoutRecord, PayoutState, Settings};
use tests::e2e::{channel_balance, invoice};
use tokio::task::JoinSet;

use crate::stage::{
    HUB, PAYEE, PAYER, agreed, ask, create, ended, file, invoices, key, kill, line, lines,
    paid_once, settings, steps, until,
};

const CALLERS: usize = 100;

/// What a hundred callers hear of one change.
async fn all(net: &Cluster, id: PayoutId, ask: &Ask, name: &str) -> PayoutRecord {
    let mut calls = JoinSet::new();
    for _ in 0..CALLERS {
        let (payouts, ask, key) = (Arc::clone(&net.node(PAYER).payouts), ask.clone(), key(name));
        calls.spawn(async move { payouts.change(id, &ask, &key, None).await.unwrap() });
    }
    one(calls.join_all().await)
}

fn one(answers: Vec<PayoutRecord>) -> PayoutRecord {
    assert_eq!(answers.len(), CALLERS);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    answers[0].clone()
}

fn slow(concurrency: u32) -> Settings {
    Settings { concurrency, ..settings() }
}

fn count(net: &Cluster, id: PayoutId, step: &PayoutStep) -> usize {
    let same = |told: &&PayoutStep| std::mem::discriminant(*told) == std::mem::discriminant(step);
    steps(net, id).iter().filter(same).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_is_one_effect_and_one_answer() {
    tests::e2e::embedded("payout duplicates", scenario).await;
}

async fn scenario(net: &mut Cluster) {
    line(net).await;
    let before_msat = channel_balance(net, PAYER, HUB);
    // The first line is under way until the payee says so, and no other begins before.
    let held = tests::e2e::hold(net, PAYEE, 5_000, tests::e2e::preimage(7)).await;
    let mut rows = vec![format!("{},,", held.invoice)];
    rows.extend(invoices(net, 39).await);
    // The payee does not want it any more when it comes.
    let withdrawn = invoice(net, PAYEE, Some(9_000)).await;
    rows.push(format!("{},,", withdrawn.invoice));
    let source = file(&rows);

    let mut calls = JoinSet::new();
    for _ in 0..CALLERS {
        let (payouts, source) = (Arc::clone(&net.node(PAYER).payouts), source.clone());
        calls.spawn(async move { payouts.create(slow(1), source, &key("c")).await.unwrap() });
    }
    let made = one(calls.join_all().await);
    let listed = net.node(PAYER).payouts.list(|_| true, None, 10).await.unwrap().0;
    assert_eq!(listed, std::slice::from_ref(&made));

    net.node(PAYEE)
        .payments
        .cancel_invoice(withdrawn.hash, node::store::Batch::default())
        .await
        .unwrap();
    let id = made.id;
    let accepted = all(net, id, &agreed(&made), "a").await;
    assert_eq!(accepted.state, PayoutState::Running);
    let id_held = held.hash.inbound_id();
    tests::e2e::received(net, PAYEE, id_held, node::payments::PaymentState::Held).await;
    let paused = all(net, id, &Ask::Pause, "p").await;
    assert_eq!(paused.state, PayoutState::Paused);
    let resumed = all(net, id, &Ask::Resume, "r").await;
    assert_eq!(resumed.state, PayoutState::Running);
    net.node(PAYEE).payments.settle(tests::e2e::preimage(7)).await.unwrap();
    let first = ended(net, id).await;
    assert_eq!((first.tally.paid, first.tally.failed), (40, 1));
    let failed = lines(net, id, &[LineState::Failed]).await;
    assert_eq!(failed[0].reason, Some(LineReason::Rejected));
    let retried = all(net, id, &Ask::Retry { lines: vec![failed[0].number] }, "t").await;
    assert_eq!((retried.state, retried.tally.pending), (PayoutState::Running, 1));
    let second = ended(net, id).await;
    assert_eq!((second.tally.paid, second.tally.failed), (40, 1));
    assert_eq!(lines(net, id, &[LineState::Failed]).await[0].attempts, 1);

    // After a power cut, the same answers, of what is long over.
    kill(net).await;
    assert_eq!(create(net, slow(1), source.clone(), "c").await, made);
    for (word, name, answer) in [
        (agreed(&made), "a", accepted),
        (Ask::Pause, "p", paused),
        (Ask::Resume, "r", resumed),
        (Ask::Retry { lines: vec![failed[0].number] }, "t", retried),
    ] {
        assert_eq!(ask(net, id, &word, name).await.unwrap(), answer);
    }
    assert_eq!(ended(net, id).await, second);
    let started = PayoutStep::Started;
    assert_eq!(count(net, id, &started), 1);
    assert_eq!(count(net, id, &PayoutStep::Retried { lines: 1 }), 1);
    assert_eq!(count(net, id, &PayoutStep::Paused), 1);
    let balance = net.node(PAYER).payouts.reconcile(id).await.unwrap();
    tests::e2e::settled(net).await;
    assert_eq!(balance.lightning_msat, before_msat - channel_balance(net, PAYER, HUB));

    // Another request under a key that was used is refused.
    let other = net.node(PAYER).payouts.create(slow(1), file(&rows[..3]), &key("c")).await;
    assert!(other.is_err());
    cancelled(net).await;
    cut_off(net).await;
}

async fn cancelled(net: &mut Cluster) {
    let rows = invoices(net, 60).await;
    let made = create(net, slow(2), file(&rows), "c2").await;
    ask(net, made.id, &agreed(&made), "a2").await.unwrap();
    until(net, made.id, "some lines", |record| record.tally.paid > 3).await;
    let heard = all(net, made.id, &Ask::Cancel, "x2").await;
    assert!(matches!(heard.state, PayoutState::Cancelling | PayoutState::Cancelled));
    assert_eq!(heard.tally.pending, 0);
    let end = ended(net, made.id).await;
    assert_eq!(end.state, PayoutState::Cancelled);
    assert_eq!(end.tally.paid + end.tally.cancelled, 60, "what was under way ended: {end:?}");
    net.node(PAYER).payouts.reconcile(made.id).await.unwrap();
    kill(net).await;
    assert_eq!(ask(net, made.id, &Ask::Cancel, "x2").await.unwrap(), heard);
    assert_eq!(ended(net, made.id).await, end);
}

/// The power goes while a hundred callers make and accept one payout.
async fn cut_off(net: &mut Cluster) {
    let rows = invoices(net, 5).await;
    let source = file(&rows);
    let before_msat = channel_balance(net, PAYER, HUB);
    let mut calls = JoinSet::new();
    for _ in 0..CALLERS {
        let (payouts, source) = (Arc::clone(&net.node(PAYER).payouts), source.clone());
        calls.spawn(async move {
            let made = payouts.create(settings(), source, &key("c3")).await?;
            payouts.change(made.id, &agreed(&made), &key("a3"), None).await
        });
    }
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    kill(net).await;
    let heard: Vec<PayoutRecord> = calls.join_all().await.into_iter().flatten().collect();
    let made = create(net, settings(), source, "c3").await;
    let accepted = ask(net, made.id, &agreed(&made), "a3").await.unwrap();
    // Whoever heard anything before the cut hears the same now.
    assert!(heard.iter().all(|answer| *answer == accepted), "{heard:?}");
    ended(net, made.id).await;
    paid_once(net, made.id, before_msat).await;
}
