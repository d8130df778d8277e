//! The scenarios, each in a function that fails with words; and the order in which they run.
//!
//! `channels` opens, closes, reorganises and splices; `payments` pays and fails to pay; `traffic`
//! pays much and kills; `forced` closes by force on a chain that wants more than commitments pay.

mod channels;
mod forced;
mod payments;
mod traffic;

use std::path::Path;

use crate::party::{Kind, Opening};
use crate::report::Report;
use crate::wait::Failure;
use crate::world::{Programs, World};

/// What the miner takes where fees are not the question.
const ANY_FEE: u64 = 1;
/// More than any program here lets a commitment pay: without a child it never confirms.
const MORE_THAN_COMMITMENTS_PAY: u64 = 3;

/// Runs everything with one kind of stranger.
///
/// # Errors
///
/// If the programs do not start; a scenario that fails is in the report.
pub async fn with_stranger(
    programs: &Programs,
    kind: Kind,
    dir: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    let nodes = [(Kind::Ours, "ana"), (Kind::Ours, "ben"), (kind, "carol"), (kind, "dave")];
    let world = World::start(programs, &dir.join("open"), &nodes, ANY_FEE).await?;
    open_world(&world, kind, report).await;
    world.stop().await;
    Ok(())
}

async fn open_world(world: &World, kind: Kind, report: &mut Report) {
    let (ana, ben) = (&world.node("ana"), &world.node("ben"));
    let (carol, dave) = (&world.node("carol"), &world.node("dave"));
    // Both directions: who begins is named first, "we" or "they".
    let ways = [("we", ana, carol), ("they", carol, ana)];

    for (who, from, to) in ways {
        report.case(&format!("connect, {who} dial"), channels::connect(from, to)).await;
    }
    for (who, from, to) in ways {
        let name = format!("open and push, {who} open");
        report.case(&name, channels::open_and_push(world, from, to)).await;
    }
    for (who, from, to) in ways {
        report.case(&format!("pay an invoice, {who} pay"), payments::invoice(from, to)).await;
        report.case(&format!("keysend, {who} pay"), payments::keysend(from, to)).await;
    }
    // The stranger has more in one of the two channels: it begins, so that both need two.
    for (who, from, to) in [ways[1], ways[0]] {
        let name = format!("parts over two channels, {who} pay");
        report.case(&name, payments::parts(from, to)).await;
    }
    for (who, from, to) in ways {
        report.case(&format!("offer (BOLT 12), {who} pay"), payments::offer(from, to)).await;
        let name = format!("hold invoice, taken, {who} pay");
        report.case(&name, payments::hold_taken(from, to)).await;
        let name = format!("hold invoice, given back, {who} pay");
        report.case(&name, payments::hold_given_back(from, to)).await;
        let name = format!("unknown hash, {who} pay");
        report.case(&name, payments::unknown_hash(from, to)).await;
        report.case(&format!("expired invoice, {who} pay"), payments::expired(from, to)).await;
        report.case(&format!("too low, {who} pay"), payments::too_low(from, to)).await;
    }
    report.case("unreachable, we pay", payments::unreachable(ana, dave)).await;
    report.case("unreachable, they pay", payments::unreachable(carol, ben)).await;

    report
        .case("open to a third and a fourth", channels::open_line(world, ana, carol, ben, dave))
        .await;
    for (way, from, to) in [("", carol, dave), (", back", dave, carol)] {
        let name = format!("stranger to stranger through us{way}");
        report.case(&name, payments::routed(from, ana, to)).await;
    }
    for (way, from, to) in [("", ana, ben), (", back", ben, ana)] {
        let name = format!("from us to us through a stranger{way}");
        report.case(&name, payments::routed(from, carol, to)).await;
    }

    for (who, from, to) in ways {
        let name = format!("1,000 payments, 30 in flight, {who} pay");
        let mut speed = None;
        report.case(&name, traffic::thousand(from, to, &mut speed)).await;
        if let Some(mut speed) = speed {
            let other = |ours: bool| if ours { "tributary".to_owned() } else { kind.to_string() };
            speed.pair = format!("{} to {}", other(who == "we"), other(who != "we"));
            report.speed(speed);
        }
    }
    report.case("kill -9 of us under traffic", traffic::killed(world, ana, carol, ana)).await;

    for (who, from, to) in [("we", ana, dave), ("they", dave, ana)] {
        let name = format!("reorg while a channel opens, {who} open");
        report.case(&name, channels::reorg_while_opening(world, from, to)).await;
    }
    report.case("splice in, they ask", channels::splice(world, carol, ana)).await;
    for (who, from, to) in ways {
        let name = format!("close by agreement, {who} ask");
        report.case(&name, channels::close_by_agreement(world, from, to)).await;
    }
    report.case("close by agreement, fee raised (RBF)", channels::close_rbf(kind)).await;
    // Last: not every program brings its channels back.
    report.case("kill -9 of them under traffic", traffic::killed(world, ana, dave, dave)).await;
}

/// Force-closes by either side with HTLCs pending, on a chain whose miner leaves commitments alone.
///
/// # Errors
///
/// If the programs do not start; a scenario that fails is in the report.
pub async fn forced(
    programs: &Programs,
    kind: Kind,
    dir: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    let nodes = [(Kind::Ours, "ana"), (kind, "carol")];
    let dir = dir.join("forced");
    // Without estimates ldk-node pays one satoshi for everything: nothing of it would be mined.
    let block_min = if kind == Kind::Ldk { ANY_FEE } else { MORE_THAN_COMMITMENTS_PAY };
    let world = World::start(programs, &dir, &nodes, block_min).await?;
    let (ana, carol) = (&world.node("ana"), &world.node("carol"));
    for (who, closer, other) in [("we", ana, carol), ("they", carol, ana)] {
        let name =
            format!("close by force with HTLCs both ways, fee by a child (CPFP), {who} close");
        report.case(&name, forced::close(&world, closer, other)).await;
    }
    world.stop().await;
    Ok(())
}

/// Payments between strangers of two kinds, through us.
///
/// # Errors
///
/// If the programs do not start; a scenario that fails is in the report.
pub async fn between_strangers(
    programs: &Programs,
    dir: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    let nodes = [(Kind::Lnd, "carol"), (Kind::Ours, "ana"), (Kind::Ldk, "erin")];
    let world = World::start(programs, &dir.join("mixed"), &nodes, ANY_FEE).await?;
    let (carol, ana, erin) = (&world.node("carol"), &world.node("ana"), &world.node("erin"));
    let opened = report.case("open both channels", async {
        let opening = Opening { capacity_sat: 2_000_000, push_sat: 900_000, public: true };
        world.open(carol, ana, opening).await?;
        world.open(ana, erin, opening).await?;
        Ok(crate::report::PASSED)
    });
    if opened.await {
        report.case("LND to ldk-node through us", payments::routed(carol, ana, erin)).await;
        report.case("ldk-node to LND through us", payments::routed(erin, ana, carol)).await;
    }
    world.stop().await;
    Ok(())
}

/// The same payments between two nodes of one kind, for comparison.
///
/// # Errors
///
/// If the programs do not start, or a payment fails.
pub async fn speed(
    programs: &Programs,
    kind: Kind,
    dir: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    let dir = dir.join(format!("speed-{kind}"));
    let world = World::start(programs, &dir, &[(kind, "left"), (kind, "right")], ANY_FEE).await?;
    let (left, right) = (&world.node("left"), &world.node("right"));
    let opening = Opening { capacity_sat: 10_000_000, push_sat: 1_000_000, public: true };
    let opened = world.open(left, right, opening).await;
    let mut speed = None;
    let measured = match opened {
        Ok(_) => traffic::thousand(left, right, &mut speed).await,
        Err(error) => Err(error),
    };
    world.stop().await;
    measured?;
    if let Some(mut speed) = speed {
        speed.pair = format!("{kind} to {kind}");
        println!("{}: {} payments/s", speed.pair, speed.per_second());
        report.speed(speed);
    }
    Ok(())
}
