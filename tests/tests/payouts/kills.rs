//! Files of hundreds and of ten thousand lines, and a payer whose power goes three times.

use std::time::Instant;

use node::dev::Cluster;
use node::payouts::{LineReason, LineState, Source};
use tests::e2e::channel_balance;

use crate::stage::{
    HUB, PAYEE, PAYER, agreed, ask, create, ended, file, invoices, kill, line, lines, paid_once,
    settings, steps, until,
};

const KILLS: u32 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_three_times_each_good_line_is_paid_once() {
    tests::e2e::embedded("payouts", async |net| scenario(net, 600).await).await;
}

/// `just payouts`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn ten_thousand_lines_killed_three_times() {
    tests::e2e::embedded("payouts", async |net| scenario(net, 10_000).await).await;
}

/// So many lines, of which 3 % are bad, in every way that the file itself can be.
async fn rows(net: &Cluster, count: u64) -> (Vec<String>, usize) {
    let bad = count * 3 / 100;
    let mut rows = invoices(net, count - bad).await;
    let to_itself = net.node(PAYER).lightning.node_id();
    let payee = net.node(PAYEE).lightning.node_id();
    for number in 0..bad {
        let twin = rows[number as usize].clone();
        let row = match number % 7 {
            0 => twin,
            1 => format!("{},7,", twin.split(',').next().unwrap()),
            2 => "lnbcrt1nonsense,5,".to_owned(),
            3 => "bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqc8gma6,1000,dust"
                .to_owned(),
            4 => format!("{to_itself},5,"),
            5 => format!("{payee},,no amount"),
            _ => "a,b".to_owned(),
        };
        // Spread over the file, behind what they repeat.
        let place = rows.len() - (number as usize * 13) % (rows.len() / 2);
        rows.insert(place, row);
    }
    (rows, bad as usize)
}

async fn scenario(net: &mut Cluster, count: u64) {
    line(net).await;
    let (rows, bad) = rows(net, count).await;
    assert_eq!(rows.len() as u64, count);
    let before_msat = channel_balance(net, PAYER, HUB);
    let source: Source = file(&rows);
    let began = Instant::now();
    let made = create(net, settings(), source.clone(), "big").await;
    let judged = began.elapsed();
    let quote = &made.quote;
    assert_eq!((quote.good_lines + quote.bad_lines) as u64, count);
    assert_eq!(quote.bad_lines as usize, bad, "{quote:?}");
    assert!(quote.estimated_fee_msat > 0 && quote.estimated_fee_msat <= quote.max_fee_msat);
    for line in lines(net, made.id, &[LineState::Bad]).await {
        assert!(line.reason.is_some() && !line.detail.is_empty() && line.file_line.is_some());
        assert_eq!(line.file_line, Some(u64::from(line.number) + 1));
        assert_ne!(line.reason, Some(LineReason::Unexpected));
    }

    let began = Instant::now();
    ask(net, made.id, &agreed(&made), "big accept").await.unwrap();
    for number in 1..=KILLS {
        let share = made.quote.good_lines * number / (KILLS + 1);
        until(net, made.id, "a part of it", |record| record.tally.paid >= share).await;
        kill(net).await;
        // The callers did not hear; the same words give the same answers.
        let again = create(net, settings(), source.clone(), "big").await;
        assert_eq!(again, made);
        let heard = ask(net, made.id, &agreed(&made), "big accept").await.unwrap();
        assert_eq!(heard.id, made.id);
    }
    let end = ended(net, made.id).await;
    let took = began.elapsed();
    let balance = paid_once(net, made.id, before_msat).await;
    assert_eq!(balance.lines as u64, count);
    assert_eq!(end.tally.failed, 0);
    let told = steps(net, made.id);
    assert_eq!(told.len(), 4, "created, accepted, started, completed: {told:?}");
    println!(
        "{count} lines, {bad} bad: judged in {judged:.1?}; {} paid in {took:.1?} over {KILLS} kills; {} msat and {} msat fees, balanced",
        end.tally.paid, balance.tally.paid_msat, balance.tally.fee_msat
    );
}
