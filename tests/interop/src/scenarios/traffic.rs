//! Many payments at a time, and programs that die under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::party::{Books, Kind, Outcome, Target};
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
/// What is on its way when the books agree arrives soon.
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);
/// The payments of both sides, the kill and the start.
const TRAFFIC_PATIENCE: Duration = Duration::from_secs(180);
/// What ldk-node says, at once, while its channel has no slot for another HTLC: those that are
/// being removed count as well. It keeps no line; whoever calls it tries again.
const NO_SLOT: &str = "Failed to send the given payment";
const AFTER_NO_SLOT: Duration = Duration::from_millis(20);
const SLOT_PATIENCE: Duration = Duration::from_secs(10);
/// What ldk-node says when its manager is older than a monitor.
const OUTDATED: &str = "OutdatedChannelManager";
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
                let mut outcome = payer.pay(Target::Invoice(invoice.clone())).await;
                while matches!(&outcome, Ok(Outcome::Failed(why)) if why.contains(NO_SLOT))
                    && began.elapsed() < SLOT_PATIENCE
                {
                    sleep(AFTER_NO_SLOT).await;
                    outcome = payer.pay(Target::Invoice(invoice.clone())).await;
                }
                match outcome {
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
    let traffic = async {
        tokio::join!(burst(left, to_right), burst(right, to_left), async {
            sleep(BEFORE_KILL).await;
            victim.kill().await?;
            sleep(DOWN).await;
            start(victim).await
        })
    };
    let Ok((forth, back, up)) = timeout(TRAFFIC_PATIENCE, traffic).await else {
        return stuck(victim);
    };
    let (forth, back) = (forth?, back?);
    up?;
    if victim.tail(usize::MAX).contains(OUTDATED) {
        return stuck(victim);
    }
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
    let forgiven = Forgiven::of(left, right, victim);
    let Quiet { forth: sent, back: received, stuck } =
        quiet(left, right, books_before, forgiven).await?;
    let lost = lost(left, right, before, (sent, received), forgiven).await?;
    let paid = forth.each.len() + back.each.len();
    let lost = match lost {
        0 => String::new(),
        lost => format!("; LND gave {lost} back that it had taken (note on kills)"),
    };
    let stuck = match stuck {
        0 => String::new(),
        stuck => format!("; LND shows {stuck} under way that it never sent (note on kills)"),
    };
    Ok(Verdict::Passed(format!("{paid} of {} paid, {hit} hit{lost}{stuck}", 2 * KILLED_PAYMENTS)))
}

/// Payments have no end: a program that has closed the channels by itself is why, or nobody knows.
fn stuck(victim: &Node) -> Result<Verdict, Failure> {
    if victim.tail(usize::MAX).contains(OUTDATED) {
        return Ok(Verdict::Upstream(
            "ldk-node writes its channel manager beside its monitors, not with them: killed under \
             traffic it finds the manager outdated at its start and closes every channel that was \
             in use by force (`OutdatedChannelManager`)"
                .to_owned(),
        ));
    }
    Err(format!("payments had no end within {} s", TRAFFIC_PATIENCE.as_secs()).into())
}

/// How many payments the books of a side may show as taken that it gave back again.
///
/// LND takes the payments of one commitment one by one and notes only at the end that it did
/// (`processRemoteAdds` and `SetFwdFilter` in its `htlcswitch/link.go`). Killed in between, it
/// refuses all of them at its start as replayed onions, also those whose preimage is out. It is
/// the loser; payers are right in every case.
///
/// What it was about to send it may show as under way for ever, though its channel has no HTLC for
/// it (its issue 5152): the balances of both sides say that nothing moved.
#[derive(Debug, Clone, Copy, Default)]
struct Forgiven {
    left: u64,
    right: u64,
}

impl Forgiven {
    fn of(left: &Node, right: &Node, victim: &Node) -> Self {
        let of = |side: &Node| {
            let forgiven = side.kind() == Kind::Lnd && side.name() == victim.name();
            if forgiven { IN_FLIGHT as u64 } else { 0 }
        };
        Self { left: of(left), right: of(right) }
    }
}

/// Compares what moved with the payers' books, msat each way; returns how many payments a victim
/// gave back that its payer has a proof of.
async fn lost(
    left: &Node,
    right: &Node,
    before: Balances,
    (forth, back): (u64, u64),
    forgiven: Forgiven,
) -> Result<u64, Failure> {
    let mut lost = 0;
    loop {
        let forth = forth - if forgiven.right > 0 { lost * AMOUNT_MSAT } else { 0 };
        let back = back - if forgiven.left > 0 { lost * AMOUNT_MSAT } else { 0 };
        // The first comparison waits for what is still on its way.
        let patience = if lost == 0 { SETTLE_PATIENCE } else { Duration::ZERO };
        let moved = forth.abs_diff(back);
        let compared = if forth >= back {
            before.moved_within(patience, left, right, moved).await
        } else {
            before.flipped().moved_within(patience, right, left, moved).await
        };
        match compared {
            Ok(()) => return Ok(lost),
            Err(_) if lost < forgiven.left.max(forgiven.right) => lost += 1,
            Err(error) => return Err(error),
        }
    }
}

/// What the books say once they agree.
struct Quiet {
    /// From left to right by the payer's books, msat.
    forth: u64,
    /// From right to left.
    back: u64,
    /// Payments that a victim shows as under way though no HTLC carries them.
    stuck: u64,
}

/// Waits until nothing is in flight and the books of both agree on what came since `before`.
async fn quiet(
    left: &Node,
    right: &Node,
    before: (Books, Books),
    forgiven: Forgiven,
) -> Result<Quiet, Failure> {
    let mut now = before;
    let agree =
        |sent: u64, received: u64, forgiven: u64| received >= sent && received - sent <= forgiven;
    let began = Instant::now();
    let mut stuck = 0;
    let agreed = until("books that agree", async || {
        now = (left.books().await?, right.books().await?);
        let (l, r) = (now.0.since(before.0), now.1.since(before.1));
        // First comes what does end.
        let patient = began.elapsed() < SETTLE_PATIENCE;
        let may_be_stuck = |forgiven: u64| if patient { 0 } else { forgiven };
        stuck = l.in_flight + r.in_flight;
        Ok(l.in_flight <= may_be_stuck(forgiven.left)
            && r.in_flight <= may_be_stuck(forgiven.right)
            && agree(l.sent, r.received, forgiven.right)
            && agree(r.sent, l.received, forgiven.left))
    })
    .await;
    agreed.map_err(|error| format!("{error}: before {before:?}, now {now:?}"))?;
    let (l, r) = (now.0.since(before.0), now.1.since(before.1));
    for (sent, received, forgiven) in [
        (l.sent_msat, r.received_msat, forgiven.right),
        (r.sent_msat, l.received_msat, forgiven.left),
    ] {
        holds(agree(sent, received, forgiven * AMOUNT_MSAT), || {
            format!("{sent} msat sent, {received} received")
        })?;
    }
    Ok(Quiet { forth: l.sent_msat, back: r.sent_msat, stuck })
}
