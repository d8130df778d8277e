//! Payments that arrive, payments that must not, and payments through others.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::party::{Kind, Outcome, Secret, Target, Wrong};
use crate::report::{PASSED, Verdict};
use crate::wait::{Failure, PATIENCE, holds, until};
use crate::world::{Balances, Node, paid, pay_checked, taken};

const AMOUNT_MSAT: u64 = 50_000_000;
const EXPIRY_SECONDS: u32 = 3_600;
/// Least share of a payment over two channels: neither can carry it alone.
const PARTS_MIN: usize = 2;

/// An invoice of a neighbour is paid.
pub async fn invoice(payer: &Node, payee: &Node) -> Result<Verdict, Failure> {
    let invoice = payee.invoice(AMOUNT_MSAT, EXPIRY_SECONDS).await?;
    let target = Target::Invoice(invoice.bolt11);
    pay_checked(payer, payee, target, Some(&invoice.hash), AMOUNT_MSAT).await?;
    Ok(PASSED)
}

/// A neighbour is paid without an invoice.
pub async fn keysend(payer: &Node, payee: &Node) -> Result<Verdict, Failure> {
    let target = Target::Keysend(payee.id().await?, AMOUNT_MSAT);
    pay_checked(payer, payee, target, None, AMOUNT_MSAT).await?;
    Ok(PASSED)
}

/// More is paid than any one channel has.
pub async fn parts(payer: &Node, payee: &Node) -> Result<Verdict, Failure> {
    let peer = payee.id().await?;
    let channels = payer.channels().await?.into_iter().filter(|c| c.peer == peer && c.active);
    let limits: Vec<u64> = channels.map(|channel| channel.sendable_msat).collect();
    let (sum, most) = (limits.iter().sum::<u64>(), limits.iter().max().copied().unwrap_or(0));
    holds(sum > most, || format!("one channel is not enough: {limits:?}"))?;
    // More than the best can send at once by half of what the others can, in whole satoshis.
    let amount_msat = (most + (sum - most) / 2) / 1_000 * 1_000;
    let invoice = payee.invoice(amount_msat, EXPIRY_SECONDS).await?;
    let target = Target::Invoice(invoice.bolt11);
    let parts = pay_checked(payer, payee, target, Some(&invoice.hash), amount_msat).await?;
    holds(parts.is_none_or(|parts| parts >= PARTS_MIN), || format!("{parts:?} parts"))?;
    Ok(Verdict::Passed(format!("{} sat", amount_msat / 1_000)))
}

/// An offer of a neighbour is paid.
pub async fn offer(payer: &Node, payee: &Node) -> Result<Verdict, Failure> {
    if [payer, payee].iter().any(|node| node.kind() == Kind::Lnd) {
        return Ok(Verdict::NotSpoken("LND has no BOLT 12".to_owned()));
    }
    let Some(offer) = payee.offer(AMOUNT_MSAT).await? else {
        return Ok(Verdict::NotSpoken(format!("{} makes no offers", payee.kind())));
    };
    let before = Balances::of(payer, payee).await?;
    let (preimage, _, _) = paid(payer.pay(Target::Offer(offer)).await?)?;
    taken(payee, &crate::party::hash_of(&preimage)?, AMOUNT_MSAT).await?;
    before.moved(payer, payee, AMOUNT_MSAT).await?;
    Ok(PASSED)
}

/// Begins a payment beside the scenario.
pub fn begin(payer: &Node, target: Target) -> JoinHandle<Result<Outcome, Failure>> {
    let payer = Arc::clone(payer);
    tokio::spawn(async move { payer.pay(target).await })
}

/// Waits for the end of a payment that was begun.
///
/// # Errors
///
/// If it has none in time.
pub async fn end(payment: JoinHandle<Result<Outcome, Failure>>) -> Result<Outcome, Failure> {
    timeout(PATIENCE, payment).await.map_err(|_| "the payment had no end in time")??
}

/// Begins to pay a hold invoice and waits until the payment waits there.
///
/// # Errors
///
/// If it does not get there.
pub async fn hold(
    payer: &Node,
    payee: &Node,
    hash: &str,
    amount_msat: u64,
) -> Result<JoinHandle<Result<Outcome, Failure>>, Failure> {
    let invoice = payee.hold_invoice(hash, amount_msat).await?;
    let mut payment = begin(payer, Target::Invoice(invoice.bolt11));
    until(&format!("a payment held by {}", payee.name()), async || {
        if payment.is_finished() {
            let ended = (&mut payment).await??;
            return Err(format!("the payment ended before it was held: {ended:?}").into());
        }
        payee.is_held(hash).await
    })
    .await?;
    Ok(payment)
}

/// A payment waits at the payee, who takes it in the end.
pub async fn hold_taken(payer: &Node, payee: &Node) -> Result<Verdict, Failure> {
    let secret = Secret::new();
    let before = Balances::of(payer, payee).await?;
    let payment = hold(payer, payee, &secret.hash, AMOUNT_MSAT).await?;
    payee.settle(&secret).await?;
    let (preimage, _, _) = paid(end(payment).await?)?;
    holds(preimage == secret.preimage, || format!("the proof is {preimage}"))?;
    taken(payee, &secret.hash, AMOUNT_MSAT).await?;
    before.moved(payer, payee, AMOUNT_MSAT).await?;
    Ok(PASSED)
}

/// A payment waits at the payee, who gives it back.
pub async fn hold_given_back(payer: &Node, payee: &Node) -> Result<Verdict, Failure> {
    let secret = Secret::new();
    let before = Balances::of(payer, payee).await?;
    let payment = hold(payer, payee, &secret.hash, AMOUNT_MSAT).await?;
    payee.cancel(&secret.hash).await?;
    refused(payer, payee, &end(payment).await?, &secret.hash, before).await?;
    Ok(PASSED)
}

/// The payee has withdrawn the invoice: the hash is unknown to it.
pub async fn unknown_hash(payer: &Node, payee: &Node) -> Result<Verdict, Failure> {
    let secret = Secret::new();
    let before = Balances::of(payer, payee).await?;
    let invoice = payee.hold_invoice(&secret.hash, AMOUNT_MSAT).await?;
    payee.cancel(&secret.hash).await?;
    let outcome = payer.pay(Target::Invoice(invoice.bolt11)).await?;
    refused(payer, payee, &outcome, &secret.hash, before).await?;
    // A program that pays any hash is made to: nobody ever made an invoice for this one.
    let hash = Secret::new().hash;
    let wrong =
        Wrong { id: payee.id().await?, hash: hash.clone(), bolt11: None, amount_msat: AMOUNT_MSAT };
    if let Some(outcome) = payer.pay_wrongly(&wrong).await? {
        refused_by_payee(payer, &outcome)?;
        unmoved(payer, payee, &outcome, before).await?;
    }
    Ok(PASSED)
}

/// The invoice has expired.
pub async fn expired(payer: &Node, payee: &Node) -> Result<Verdict, Failure> {
    let before = Balances::of(payer, payee).await?;
    let invoice = payee.invoice(AMOUNT_MSAT, 1).await?;
    sleep(Duration::from_millis(2_500)).await;
    let outcome = payer.pay(Target::Invoice(invoice.bolt11)).await?;
    unmoved(payer, payee, &outcome, before).await?;
    nothing_taken(payee, &invoice.hash).await?;
    Ok(PASSED)
}

/// Half of what the invoice asks for is paid.
pub async fn too_low(payer: &Node, payee: &Node) -> Result<Verdict, Failure> {
    let before = Balances::of(payer, payee).await?;
    let invoice = payee.invoice(AMOUNT_MSAT, EXPIRY_SECONDS).await?;
    let wrong = Wrong {
        id: payee.id().await?,
        hash: invoice.hash.clone(),
        bolt11: Some(invoice.bolt11),
        amount_msat: AMOUNT_MSAT / 2,
    };
    let Some(outcome) = payer.pay_wrongly(&wrong).await? else {
        return Ok(Verdict::NotSpoken(format!("{} cannot be made to pay less", payer.kind())));
    };
    unmoved(payer, payee, &outcome, before).await?;
    nothing_taken(payee, &invoice.hash).await?;
    // LND sends what it is told to; the others refuse before anything is sent.
    if payer.kind() == Kind::Lnd {
        refused_by_payee(payer, &outcome)?;
        return Ok(Verdict::Passed("refused by the payee".to_owned()));
    }
    Ok(Verdict::Passed("refused by the payer".to_owned()))
}

/// The payee has no channel.
pub async fn unreachable(payer: &Node, payee: &Node) -> Result<Verdict, Failure> {
    let invoice = payee.invoice(AMOUNT_MSAT, EXPIRY_SECONDS).await?;
    match payer.pay(Target::Invoice(invoice.bolt11)).await? {
        Outcome::Failed(_) => {}
        outcome @ Outcome::Paid { .. } => return Err(format!("{outcome:?}").into()),
    }
    nothing_taken(payee, &invoice.hash).await?;
    Ok(PASSED)
}

/// A payment goes from `payer` over `hop` to `payee`, who are no neighbours; the hop is paid.
pub async fn routed(payer: &Node, hop: &Node, payee: &Node) -> Result<Verdict, Failure> {
    let payee_id = payee.id().await?;
    until(&format!("a way from {} to {}", payer.name(), payee.name()), async || {
        payer.reaches(&payee_id, AMOUNT_MSAT).await
    })
    .await?;
    let first = Balances::of(payer, hop).await?;
    let second = Balances::of(hop, payee).await?;
    let invoice = payee.invoice(AMOUNT_MSAT, EXPIRY_SECONDS).await?;
    let (preimage, fee_msat, _) = paid(payer.pay(Target::Invoice(invoice.bolt11)).await?)?;
    holds(crate::party::opens(&preimage, &invoice.hash)?, || format!("no proof: {preimage}"))?;
    holds(fee_msat > 0, || "the hop asks for a fee, and none was paid".to_owned())?;
    taken(payee, &invoice.hash, AMOUNT_MSAT).await?;
    first.moved(payer, hop, AMOUNT_MSAT + fee_msat).await?;
    second.moved(hop, payee, AMOUNT_MSAT).await?;
    Ok(Verdict::Passed(format!("fee {fee_msat} msat")))
}

/// The recipient refused, in its protocol's words, and nothing moved.
async fn refused(
    payer: &Node,
    payee: &Node,
    outcome: &Outcome,
    hash: &str,
    before: Balances,
) -> Result<(), Failure> {
    unmoved(payer, payee, outcome, before).await?;
    refused_by_payee(payer, outcome)?;
    nothing_taken(payee, hash).await
}

/// The payer knows that it was the recipient who refused.
fn refused_by_payee(payer: &Node, outcome: &Outcome) -> Result<(), Failure> {
    let Outcome::Failed(why) = outcome else { return Err(format!("{outcome:?}").into()) };
    let words = match payer.kind() {
        Kind::Ours => "RECIPIENT_REFUSED",
        Kind::Lnd => "INCORRECT_PAYMENT_DETAILS",
        Kind::Ldk => "RecipientRejected",
    };
    holds(why.contains(words), || format!("the payer does not know who refused: {why}"))
}

async fn unmoved(
    payer: &Node,
    payee: &Node,
    outcome: &Outcome,
    before: Balances,
) -> Result<(), Failure> {
    if let Outcome::Paid { .. } = outcome {
        return Err(format!("it was paid: {outcome:?}").into());
    }
    before.moved(payer, payee, 0).await
}

async fn nothing_taken(payee: &Node, hash: &str) -> Result<(), Failure> {
    let taken = payee.received_msat(hash).await?;
    holds(taken.is_none(), || format!("{} took {taken:?} msat", payee.name()))
}
