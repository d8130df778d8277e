//! Many payments at a time, and programs that die under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::party::{Books, Outcome, Target};
use crate::report::{Speed, Verdict};
use crate::wait::{Failure, holds, same, until, until_within};
use crate::world::{Balances, Node, World, start};

const PAYMENTS: usize = 1_000;
const IN_FLIGHT: usize = 30;
/// Above dust, so that each payment is an output of a commitment.
const AMOUNT_MSAT: u64 = 1_000_000;
const EXPIRY_SECONDS: u32 = 36_000;
/// Payments under which a program is killed, each way.
const KILLED_PAYMENTS: usize = 400;
/// The traffic is in full flow by then.
const BEFORE_KILL: Duration = Duration::from_millis(1_500);
/// So that most of the traffic is left for when a killed program is back.
const AFTER_ERROR: Duration = Duration::from_secs(1);
const DOWN: Duration = Duration::from_secs(1);
/// A peer may wait for a minute and more before it dials again.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(180);

/// A thousand invoices are paid, thirty at a time; all of them arrive.
pub async fn thousand(
    payer: &Node,
    payee: &Node,
    speed: &mut Option<Speed>,
) -> Result<Verdict, Failure> {
    let invoices = invoices(payee, PAYMENTS).await?;
    let before = Balances::of(payer, payee).await?;
    let (payer_before, payee_before) = (payer.books().await?, payee.books().await?);
    let began = Instant::now();
    let burst = burst(payer, invoices).await?;
    let took = began.elapsed();
    holds(burst.failed.is_empty(), || {
        format!("{} payments failed, one of them: {}", burst.failed.len(), burst.failed[0])
    })?;
    before.moved(payer, payee, PAYMENTS as u64 * AMOUNT_MSAT).await?;
    let (sent, received) = (payer.books().await?, payee.books().await?);
    same("sent, by the payer's books", sent.sent - payer_before.sent, PAYMENTS as u64)?;
    same("received, by the payee's", received.received - payee_before.received, PAYMENTS as u64)?;
    let measured = Speed { pair: String::new(), payments: PAYMENTS, took, each: burst.each };
    let note = format!("{} payments/s", measured.per_second());
    *speed = Some(measured);
    Ok(Verdict::Passed(note))
}

/// What became of a burst.
struct Burst {
    each: Vec<Duration>,
    failed: Vec<String>,
}

async fn invoices(payee: &Node, count: usize) -> Result<Vec<String>, Failure> {
    let mut invoices = Vec::with_capacity(count);
    for _ in 0..count {
        invoices.push(payee.invoice(AMOUNT_MSAT, EXPIRY_SECONDS).await?.bolt11);
    }
    Ok(invoices)
}

/// Pays all `invoices`, [`IN_FLIGHT`] at a time, once each.
async fn burst(payer: &Node, invoices: Vec<String>) -> Result<Burst, Failure> {
    let invoices = Arc::new(invoices);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (payer, invoices, next) = (Arc::clone(payer), Arc::clone(&invoices), Arc::clone(&next));
        workers.spawn(async move {
            let mut burst = Burst { each: Vec::new(), failed: Vec::new() };
            while let Some(invoice) = invoices.get(next.fetch_add(1, Ordering::Relaxed)) {
                let began = Instant::now();
                match payer.pay(Target::Invoice(invoice.clone())).await {
                    Ok(Outcome::Paid { .. }) => burst.each.push(began.elapsed()),
                    Ok(Outcome::Failed(why)) => burst.failed.push(why),
                    // The program is gone: whatever it began, its books will say.
                    Err(error) => {
                        burst.failed.push(error.to_string());
                        sleep(AFTER_ERROR).await;
                    }
                }
            }
            burst
        });
    }
    let mut all = Burst { each: Vec::new(), failed: Vec::new() };
    while let Some(burst) = workers.join_next().await {
        let burst = burst?;
        all.each.extend(burst.each);
        all.failed.extend(burst.failed);
    }
    Ok(all)
}

/// `victim` is killed while both sides pay each other. It comes back, the channels too, by
/// themselves, and every payment is in the books of both sides or of neither.
pub async fn killed(
    world: &World,
    left: &Node,
    right: &Node,
    victim: &Node,
) -> Result<Verdict, Failure> {
    let before = Balances::of(left, right).await?;
    let books_before = (left.books().await?, right.books().await?);
    let peer = right.id().await?;
    let to_right = invoices(right, KILLED_PAYMENTS).await?;
    let to_left = invoices(left, KILLED_PAYMENTS).await?;
    let (forth, back, up) =
        tokio::join!(burst(left, to_right), burst(right, to_left), async {
            sleep(BEFORE_KILL).await;
            victim.kill().await?;
            sleep(DOWN).await;
            start(victim).await
        });
    let (forth, back) = (forth?, back?);
    up?;
    let hit = forth.failed.len() + back.failed.len();
    holds(hit > 0, || "the kill came after the last payment".to_owned())?;
    until_within(RECONNECT_PATIENCE, "the channels after the kill", async || {
        for (side, other) in [(left, &peer), (right, &left.id().await?)] {
            let channels = side.channels().await?;
            if channels.iter().any(|channel| &channel.peer == other && !channel.active) {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    world.followed().await?;
    let (sent, received) = quiet(left, right, books_before).await?;
    let moved = i128::from(sent) - i128::from(received);
    if moved >= 0 {
        before.moved(left, right, u64::try_from(moved)?).await?;
    } else {
        before.flipped().moved(right, left, u64::try_from(-moved)?).await?;
    }
    let paid = forth.each.len() + back.each.len();
    Ok(Verdict::Passed(format!("{paid} of {} paid, {hit} hit", 2 * KILLED_PAYMENTS)))
}

/// Waits until nothing is in flight and the books of both agree on what came since `before`.
/// Returns what went from left to right and back, in msat.
async fn quiet(left: &Node, right: &Node, before: (Books, Books)) -> Result<(u64, u64), Failure> {
    let mut now = before;
    let agreed = until("books that agree", async || {
        now = (left.books().await?, right.books().await?);
        let in_flight = now.0.in_flight.saturating_sub(before.0.in_flight)
            + now.1.in_flight.saturating_sub(before.1.in_flight);
        let forth = now.0.sent - before.0.sent == now.1.received - before.1.received;
        let back = now.1.sent - before.1.sent == now.0.received - before.0.received;
        Ok(in_flight == 0 && forth && back)
    })
    .await;
    agreed.map_err(|error| format!("{error}: before {before:?}, now {now:?}"))?;
    let forth = now.0.sent_msat - before.0.sent_msat;
    let back = now.1.sent_msat - before.1.sent_msat;
    same("received on the right, msat", now.1.received_msat - before.1.received_msat, forth)?;
    same("received on the left, msat", now.0.received_msat - before.0.received_msat, back)?;
    Ok((forth, back))
}
