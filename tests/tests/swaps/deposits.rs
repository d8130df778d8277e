//! From the chain to a channel.

use bitcoin::Amount;
use channel_contracts::swap::margins::{DEPOSIT_REFUND_BLOCKS, FINAL_DEPTH};
use node::dev::Cluster;
use node::swaps::{DepositRequest, SwapState};
use tests::e2e::{connect, conserved, spender, wallet_sat};

use crate::stage::{
    HUB, SWAP_SAT, carried, deposit, power_cuts, settle_down, spent, stands, start, swap,
};

const COINS_SAT: u64 = 1_000_000;
async fn start_with_coins(net: &mut Cluster) -> Vec<node::store::MemoryDisk> {
    let disks = start(net, &["ada"]).await;
    net.fund(&["ada"], Amount::from_sat(COINS_SAT), 2).await.unwrap();
    disks
}

pub async fn a_deposit_is_paid_and_spent(net: &mut Cluster) {
    start_with_coins(net).await;
    let before = net.node("ada").lightning.channels()[0].local_msat;
    let id = deposit(net, "ada", SWAP_SAT).await;
    carried(net, "ada", id).await;
    net.mine(1).await.unwrap();
    stands(net, "ada", id, &[SwapState::Confirmed]).await;
    settle_down().await;
    assert_eq!(swap(net, HUB, id).await.state, SwapState::Confirmed, "not buried yet");
    net.mine(1).await.unwrap();
    stands(net, "ada", id, &[SwapState::Spending]).await;
    spent(net, HUB, id).await;
    let output = swap(net, HUB, id).await.output.unwrap();
    let spend = spender(net, output).await.unwrap();
    assert_eq!(spend.input[0].witness.len(), 1, "a signature for both keys, no script");
    net.mine(FINAL_DEPTH).await.unwrap();
    for name in [HUB, "ada"] {
        stands(net, name, id, &[SwapState::Done]).await;
    }
    let paid_msat = swap(net, "ada", id).await.payment_msat.unwrap();
    let now = net.node("ada").lightning.channels()[0].local_msat;
    assert_eq!(now - before, paid_msat);
    println!("  {SWAP_SAT} sat on chain became {paid_msat} msat in the channel");
    assert!((SWAP_SAT * 1_000 - 2_000_000..SWAP_SAT * 1_000).contains(&paid_msat));
    conserved(net).await;
}

pub async fn a_user_whose_hub_is_gone_takes_its_deposit_back(net: &mut Cluster) {
    start_with_coins(net).await;
    let before = net.node("ada").lightning.channels()[0].local_msat;
    let id = deposit(net, "ada", SWAP_SAT).await;
    carried(net, "ada", id).await;
    net.stop(HUB).await.unwrap();
    net.mine(u32::from(DEPOSIT_REFUND_BLOCKS) - 1).await.unwrap();
    stands(net, "ada", id, &[SwapState::Confirmed]).await;
    net.mine(1).await.unwrap();
    stands(net, "ada", id, &[SwapState::Refunding]).await;
    spent(net, "ada", id).await;
    net.mine(FINAL_DEPTH).await.unwrap();
    stands(net, "ada", id, &[SwapState::Refunded]).await;
    let fees = COINS_SAT - wallet_sat(net, "ada");
    println!("  two transactions cost {fees} sat");
    assert!(fees < 5_000, "{fees} sat of fees");
    // The hub comes back and pays nothing.
    net.start(HUB).await.unwrap();
    connect(net, "ada").await;
    stands(net, HUB, id, &[SwapState::Failed]).await;
    assert_eq!(net.node("ada").lightning.channels()[0].local_msat, before);
    conserved(net).await;
}

pub async fn a_power_cut_at_any_commit_of_a_deposit_loses_nothing(net: &mut Cluster) {
    let disks = start_with_coins(net).await;
    power_cuts(net, &disks, async |net, number| {
        let amount = Amount::from_sat(10_000 + number);
        let ask = DepositRequest { amount, max_fee: None, feerate: None, channel: None };
        net.node("ada").swaps.deposit(&ask, None).await
    })
    .await;
    net.mine(FINAL_DEPTH).await.unwrap();
    conserved(net).await;
}
