//! Consensus rules for one transaction: shape, locks, values and scripts.
//!
//! Scripts are judged by Bitcoin Core's own interpreter. What a mempool asks beyond consensus
//! is in `policy`; rules for a whole block are in `ledger`.

use bitcoin::consensus::encode::serialize;
use bitcoin::{Amount, Transaction, TxOut};
use bitcoinconsensus::{Utxo, VERIFY_ALL_PRE_TAPROOT, VERIFY_TAPROOT, verify_with_flags};

/// Blocks before a coinbase output may be spent.
pub(crate) const COINBASE_MATURITY: u32 = 100;
/// The heaviest block.
pub(crate) const MAX_BLOCK_WEIGHT: u64 = 4_000_000;
/// The most signature operations of a block, in BIP 141 cost.
pub(crate) const MAX_BLOCK_SIGOPS_COST: usize = 80_000;
/// Lock times from here on are times, below they are heights (BIP 65).
const LOCKTIME_THRESHOLD: u32 = 500_000_000;
/// BIP 68: this bit switches the relative lock off.
const SEQUENCE_DISABLED: u32 = 1 << 31;
/// BIP 68: this bit says units of 512 seconds rather than blocks.
const SEQUENCE_SECONDS: u32 = 1 << 22;
const SEQUENCE_MASK: u32 = 0xffff;

/// An output and where it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coin {
    pub output: TxOut,
    /// Height of its block; for an output of the mempool, of the next block.
    pub height: u32,
    pub coinbase: bool,
}

/// Checks what needs no context.
pub(crate) fn check_shape(tx: &Transaction) -> Result<(), &'static str> {
    if tx.input.is_empty() {
        return Err("bad-txns-vin-empty");
    }
    if tx.output.is_empty() {
        return Err("bad-txns-vout-empty");
    }
    if tx.base_size() as u64 * 4 > MAX_BLOCK_WEIGHT {
        return Err("bad-txns-oversize");
    }
    let mut total = Amount::ZERO;
    for output in &tx.output {
        if output.value > Amount::MAX_MONEY {
            return Err("bad-txns-vout-toolarge");
        }
        total = total
            .checked_add(output.value)
            .filter(|sum| *sum <= Amount::MAX_MONEY)
            .ok_or("bad-txns-txouttotal-toolarge")?;
    }
    let mut seen = std::collections::HashSet::with_capacity(tx.input.len());
    if !tx.input.iter().all(|i| seen.insert(i.previous_output)) {
        return Err("bad-txns-inputs-duplicate");
    }
    if tx.is_coinbase() {
        if !(2..=100).contains(&tx.input[0].script_sig.len()) {
            return Err("bad-cb-length");
        }
    } else if tx.input.iter().any(|i| i.previous_output.is_null()) {
        return Err("bad-txns-prevout-null");
    }
    Ok(())
}

/// Says whether the lock time lets `tx` into a block at `height` (BIP 65, BIP 113).
///
/// `median_time` is the median time past of the block before.
pub(crate) fn is_final(tx: &Transaction, height: u32, median_time: u32) -> bool {
    let lock = tx.lock_time.to_consensus_u32();
    let now = if lock < LOCKTIME_THRESHOLD { height } else { median_time };
    lock < now || tx.input.iter().all(|i| i.sequence.is_final())
}

/// Says whether relative locks let `tx` into a block at `height` (BIP 68).
///
/// `median_time_at` gives the median time past of the best chain's block at a height.
pub(crate) fn sequence_locks_met(
    tx: &Transaction,
    coins: &[Coin],
    height: u32,
    median_time_at: impl Fn(u32) -> u32,
) -> bool {
    // The version is compared as unsigned, as consensus does.
    if (tx.version.0 as u32) < 2 {
        return true;
    }
    tx.input.iter().zip(coins).all(|(input, coin)| {
        let sequence = input.sequence.to_consensus_u32();
        if sequence & SEQUENCE_DISABLED != 0 {
            return true;
        }
        let lock = u64::from(sequence & SEQUENCE_MASK);
        if sequence & SEQUENCE_SECONDS != 0 {
            let since = u64::from(median_time_at(coin.height.saturating_sub(1)));
            since + lock * 512 <= u64::from(median_time_at(height.saturating_sub(1)))
        } else {
            u64::from(coin.height) + lock <= u64::from(height)
        }
    })
}

/// Checks maturity and values; returns the fee.
pub(crate) fn check_values(
    tx: &Transaction,
    coins: &[Coin],
    height: u32,
) -> Result<Amount, &'static str> {
    let mut inputs = Amount::ZERO;
    for coin in coins {
        if coin.coinbase && height < coin.height + COINBASE_MATURITY {
            return Err("bad-txns-premature-spend-of-coinbase");
        }
        inputs = inputs
            .checked_add(coin.output.value)
            .filter(|sum| *sum <= Amount::MAX_MONEY)
            .ok_or("bad-txns-inputvalues-outofrange")?;
    }
    let outputs = tx.output.iter().map(|o| o.value).sum::<Amount>();
    inputs.checked_sub(outputs).ok_or("bad-txns-in-belowout")
}

/// Runs Bitcoin Core's interpreter over every input; `Err` is the first failing input.
pub(crate) fn check_scripts(tx: &Transaction, coins: &[Coin]) -> Result<(), usize> {
    let outputs: Vec<&TxOut> = coins.iter().map(|coin| &coin.output).collect();
    check_spends(tx, &outputs)
}

/// As [`check_scripts`], for inputs of which only the outputs that they spend are known.
pub(crate) fn check_spends(tx: &Transaction, outputs: &[&TxOut]) -> Result<(), usize> {
    let raw = serialize(tx);
    let spent: Vec<Utxo> = outputs
        .iter()
        .map(|output| Utxo {
            script_pubkey: output.script_pubkey.as_bytes().as_ptr(),
            script_pubkey_len: output.script_pubkey.len() as u32,
            value: output.value.to_sat() as i64,
        })
        .collect();
    for (index, output) in outputs.iter().enumerate() {
        verify_with_flags(
            output.script_pubkey.as_bytes(),
            output.value.to_sat(),
            &raw,
            Some(&spent),
            index,
            VERIFY_ALL_PRE_TAPROOT | VERIFY_TAPROOT,
        )
        .map_err(|_| index)?;
    }
    Ok(())
}

/// Returns the signature operations of `tx` in BIP 141 cost.
pub(crate) fn sigops_cost(tx: &Transaction, coins: &[Coin]) -> usize {
    tx.total_sigop_cost(|outpoint| {
        tx.input
            .iter()
            .zip(coins)
            .find(|(input, _)| input.previous_output == *outpoint)
            .map(|(_, coin)| coin.output.clone())
    })
}

/// Returns what a block at `height` may create on regtest, which halves every 150 blocks.
pub(crate) fn subsidy(height: u32) -> Amount {
    let halvings = height / 150;
    Amount::from_sat(if halvings >= 64 { 0 } else { Amount::from_int_btc(50).to_sat() >> halvings })
}
