//! Mempool and relay policy.

use bitcoin::key::{Keypair, Secp256k1, TapTweak};
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::{Amount, FeeRate, Network, ScriptBuf, TapSighashType, TxOut, Witness};

use super::bench::*;
use super::cases;
use crate::chain::{ChainSource, FeeSource};

#[test]
fn policy_table_holds() {
    let chain = chain();
    for case in cases::all(&chain) {
        for (step, (package, expected)) in case.steps.iter().enumerate() {
            let word = word(chain.accept(package));
            assert_eq!(&word, expected, "{}, step {step}", case.name);
        }
    }
    // All that was taken makes one valid block.
    let waiting = chain.stats().waiting;
    assert!(waiting > 20);
    chain.mine(1, &sink());
    // Three end as parents whose child alone pays: they went along; nothing may be left.
    assert_eq!(chain.stats().waiting, 0);
}

#[test]
fn taproot_signature_is_checked() {
    let chain = chain();
    let secp = Secp256k1::new();
    let keys = Keypair::from_seckey_slice(&secp, &[7; 32]).unwrap();
    let script = ScriptBuf::new_p2tr(&secp, keys.x_only_public_key().0, None);
    let value = Amount::from_sat(50_000);
    let outpoint = chain.fund(&script, value).unwrap();
    chain.mine(1, &sink());
    let coin =
        Coin { outpoint, value: 50_000, witness: Witness::new(), sequence: bitcoin::Sequence::MAX };
    let mut tx = spend(2, &[&coin], vec![pay(1, 49_000)]);
    let spent = [TxOut { value, script_pubkey: script }];
    let hash = SighashCache::new(&tx)
        .taproot_key_spend_signature_hash(0, &Prevouts::All(&spent), TapSighashType::Default)
        .unwrap();
    let tweaked = keys.tap_tweak(&secp, None).to_keypair();
    let signature = secp.sign_schnorr_no_aux_rand(&hash.into(), &tweaked);
    let mut wrong = signature.serialize();
    wrong[40] ^= 1;
    tx.input[0].witness = Witness::from_slice(&[wrong]);
    assert_eq!(word(chain.accept(&[tx.clone()])), "mempool-script-verify-flag-failed");
    let refused = chain.mine_block_with(vec![tx.clone()], &sink()).unwrap_err();
    assert!(refused.to_string().contains("block-script-verify-flag-failed"), "{refused}");
    tx.input[0].witness = Witness::from_slice(&[signature.serialize()]);
    assert_eq!(word(chain.accept(&[tx.clone()])), "");
    // The same signature over another amount: taproot commits to what is spent.
    let mut richer = tx.clone();
    richer.output[0].value = Amount::from_sat(48_000);
    assert_eq!(word(chain.accept(&[richer])), "mempool-script-verify-flag-failed");
    chain.mine_block_with(vec![tx], &sink()).unwrap();
}

#[test]
fn chain_of_25_is_the_longest() {
    let chain = chain();
    let mut coin = coins(&chain, 1_000_000, 0..1).remove(0);
    for length in 1..=26 {
        let value = coin.value - 1_000;
        let tx = spend(2, &[&coin], vec![pay(1, value)]);
        let expected = if length <= 25 { "" } else { "too-long-mempool-chain" };
        assert_eq!(word(chain.accept(std::slice::from_ref(&tx))), expected, "length {length}");
        coin = output_coin(&tx, 0, 1);
    }
}

#[test]
fn replacement_may_not_spend_what_it_replaces() {
    let chain = chain();
    let coins = coins(&chain, 100_000, 0..2);
    let parent = spend(2, &[&coins[0]], vec![pay(1, 99_000)]);
    let below = output_coin(&parent, 0, 1);
    let both = spend(2, &[&coins[0], &below], vec![pay(2, 150_000)]);
    let fresh = spend(2, &[&coins[1]], vec![pay(3, 99_000)]);
    let adds = spend(2, &[&coins[0], &output_coin(&fresh, 0, 3)], vec![pay(2, 150_000)]);
    assert_eq!(word(chain.accept(&[parent])), "");
    assert_eq!(word(chain.accept(&[fresh])), "");
    assert_eq!(word(chain.accept(&[both])), "bad-txns-spends-conflicting-tx");
    assert_eq!(word(chain.accept(&[adds])), "replacement-adds-unconfirmed");
}

#[tokio::test]
async fn fee_spike_refuses_and_evicts() {
    let chain = chain();
    let coins = coins(&chain, 100_000, 0..3);
    let cheap = spend(2, &[&coins[0]], vec![pay(1, 99_500)]);
    let dear = spend(2, &[&coins[1]], vec![pay(1, 90_000)]);
    chain.accept(std::slice::from_ref(&cheap)).unwrap();
    chain.accept(std::slice::from_ref(&dear)).unwrap();
    chain.set_mempool_minimum(FeeRate::from_sat_per_vb(20).unwrap());
    assert_eq!(chain.mempool().await.unwrap(), vec![dear.compute_txid()]);
    assert_eq!(word(chain.accept(&[cheap])), "mempool min fee not met");
    assert_eq!(chain.mempool_minimum().await.unwrap(), FeeRate::from_sat_per_kwu(5_000));
    chain.set_mempool_minimum(FeeRate::ZERO);
    chain.set_min_relay(FeeRate::from_sat_per_vb(5).unwrap());
    let tx = spend(2, &[&coins[2]], vec![pay(1, 99_600)]);
    assert_eq!(word(chain.accept(&[tx])), "min relay fee not met");
}

#[tokio::test]
async fn estimates_are_those_set() {
    let chain = chain();
    assert_eq!(chain.estimate(6).await.unwrap(), None);
    let rate = FeeRate::from_sat_per_kwu;
    chain.set_fee_estimate(2, rate(9_000));
    chain.set_fee_estimate(144, rate(300));
    assert_eq!(chain.estimate(1).await.unwrap(), Some(rate(9_000)));
    assert_eq!(chain.estimate(143).await.unwrap(), Some(rate(9_000)));
    assert_eq!(chain.estimate(1_008).await.unwrap(), Some(rate(300)));
    assert_eq!(chain.network(), Network::Regtest);
}

#[test]
fn miner_takes_the_best_and_leaves_the_unpaid() {
    let chain = chain();
    let coins = coins(&chain, 100_000, 0..30);
    chain.set_min_relay(FeeRate::ZERO);
    let free = spend(2, &[&coins[0]], vec![pay(1, 100_000)]);
    chain.accept(std::slice::from_ref(&free)).unwrap();
    // 29 × 385,000 WU do not fit one block of 4,000,000.
    let bulky: Vec<_> = (1..30u64)
        .map(|n| spend(2, &[&coins[n as usize]], vec![pay(1, 1_000 * n), padding(96_000)]))
        .collect();
    for tx in &bulky {
        assert_eq!(word(chain.accept(std::slice::from_ref(tx))), "");
    }
    let hash = chain.mine(1, &sink())[0];
    let block = chain.export().pop().unwrap();
    assert_eq!(block.block_hash(), hash);
    let chosen: Vec<_> = block.txdata[1..].iter().map(|tx| tx.compute_txid()).collect();
    // The lower the output, the higher the fee.
    let best: Vec<_> = bulky[..chosen.len()].iter().map(|tx| tx.compute_txid()).collect();
    assert_eq!(chosen, best);
    assert_eq!(chosen.len(), 10);
    chain.mine(3, &sink());
    assert_eq!(chain.stats().waiting, 1);
}

#[test]
fn faucet_pays_a_thousand_between_two_blocks() {
    let chain = chain();
    let script = open_script(1).to_p2wsh();
    for _ in 0..1_000 {
        chain.fund(&script, Amount::from_sat(1_000)).unwrap();
    }
    let error = chain.fund(&script, Amount::from_int_btc(1_000)).unwrap_err();
    assert!(error.to_string().contains("premine more"), "{error}");
    chain.mine(1, &sink());
    let stats = chain.stats();
    assert_eq!((stats.waiting, stats.transactions), (0, 0));
}
