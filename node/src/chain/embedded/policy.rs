//! Relay policy that needs no mempool: standard forms, dust, witness limits, feerates.
//!
//! Not checked, because the interpreter at hand knows consensus flags only: low S, strict
//! encodings, `MINIMALIF`, `NULLFAIL` and the flags that discourage upgradable opcodes.

use bitcoin::policy::{DEFAULT_BYTES_PER_SIGOP, MAX_STANDARD_TX_SIGOPS_COST};
use bitcoin::taproot::{LeafVersion, TAPROOT_ANNEX_PREFIX, TAPROOT_LEAF_MASK};
use bitcoin::{Amount, FeeRate, Script, Transaction, TxIn, TxOut, WitnessVersion};

use super::ledger::is_unspendable;
use super::rules::{self, Coin};

/// The version of transactions that are topologically restricted until confirmation.
pub(crate) const TRUC_VERSION: i32 = 3;
const MAX_STANDARD_WEIGHT: u64 = 400_000;
/// Smaller ones could pose as inner nodes of a merkle tree.
const MIN_STANDARD_BASE_SIZE: usize = 65;
const MAX_SCRIPT_SIG_SIZE: usize = 1_650;
const MAX_DATA_CARRIER_BYTES: usize = 100_000;
const MAX_DUST_OUTPUTS: usize = 1;
const MAX_P2SH_SIGOPS: usize = 15;
const MAX_P2WSH_SCRIPT_SIZE: usize = 3_600;
const MAX_P2WSH_STACK_ITEMS: usize = 100;
const MAX_STACK_ITEM_SIZE: usize = 80;

/// Feerates of the relay policy; the mempool's floor may rise and fall.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feerates {
    pub min_relay: FeeRate,
    /// What a replacement pays on top for its own relay.
    pub incremental: FeeRate,
    /// What counts as dust is worth less than its own spending at this rate.
    pub dust_relay: FeeRate,
    /// The floor of a full mempool.
    pub mempool_minimum: FeeRate,
}

/// Returns the fee for `vsize` virtual bytes, rounded up.
pub(crate) fn fee_ceil(rate: FeeRate, vsize: u64) -> Amount {
    let sat_per_kvb = u128::from(rate.to_sat_per_kwu()) * 4;
    let fee = (sat_per_kvb * u128::from(vsize)).div_ceil(1_000);
    Amount::from_sat(u64::try_from(fee).unwrap_or(u64::MAX))
}

/// Returns the virtual size that policy reckons with.
pub(crate) fn policy_vsize(tx: &Transaction, sigops: usize) -> u64 {
    let by_sigops = sigops as u64 * u64::from(DEFAULT_BYTES_PER_SIGOP);
    tx.weight().to_wu().max(by_sigops).div_ceil(4)
}

/// Says whether `output` costs more to spend than it is worth.
pub(crate) fn is_dust(output: &TxOut, dust_relay: FeeRate) -> bool {
    let script = &output.script_pubkey;
    if is_unspendable(script) {
        return false;
    }
    let spend_size =
        if script.is_witness_program() { 32 + 4 + 1 + 107 / 4 + 4 } else { 32 + 4 + 1 + 107 + 4 };
    output.value < fee_ceil(dust_relay, (output.size() + spend_size) as u64)
}

/// Says whether `tx` has an output that only its own child should spend.
pub(crate) fn has_dust(tx: &Transaction, dust_relay: FeeRate) -> bool {
    tx.output.iter().any(|o| is_dust(o, dust_relay))
}

/// Checks the form of a transaction.
pub(crate) fn check_standard(tx: &Transaction, dust_relay: FeeRate) -> Result<(), &'static str> {
    if !(1..=TRUC_VERSION).contains(&tx.version.0) {
        return Err("version");
    }
    if tx.weight().to_wu() > MAX_STANDARD_WEIGHT {
        return Err("tx-size");
    }
    for input in &tx.input {
        if input.script_sig.len() > MAX_SCRIPT_SIG_SIZE {
            return Err("scriptsig-size");
        }
        if !input.script_sig.is_push_only() {
            return Err("scriptsig-not-pushonly");
        }
    }
    let mut data_left = MAX_DATA_CARRIER_BYTES;
    for output in &tx.output {
        let script = &output.script_pubkey;
        if !is_standard_output(script) {
            return Err("scriptpubkey");
        }
        if script.is_op_return() {
            data_left = data_left.checked_sub(script.len()).ok_or("datacarrier")?;
        }
    }
    let dust = tx.output.iter().filter(|o| is_dust(o, dust_relay)).count();
    if dust > MAX_DUST_OUTPUTS {
        return Err("dust");
    }
    if tx.base_size() < MIN_STANDARD_BASE_SIZE {
        return Err("tx-size-small");
    }
    Ok(())
}

fn is_standard_output(script: &Script) -> bool {
    let null_data = || Script::from_bytes(&script.as_bytes()[1..]).is_push_only();
    match script.witness_version() {
        Some(WitnessVersion::V0) => script.is_p2wpkh() || script.is_p2wsh(),
        Some(_) => true,
        None if script.is_op_return() => null_data(),
        None => {
            script.is_p2pkh() || script.is_p2sh() || script.is_p2pk() || is_small_multisig(script)
        }
    }
}

fn is_small_multisig(script: &Script) -> bool {
    let keys = script.as_bytes().iter().rev().nth(1);
    // OP_1 to OP_3 before OP_CHECKMULTISIG.
    script.is_multisig() && keys.is_some_and(|n| (0x51..=0x53).contains(n))
}

/// Pay to anchor: `OP_1 <4e73>`, spendable by everybody without a witness.
fn is_p2a(script: &Script) -> bool {
    script.as_bytes() == [0x51, 0x02, 0x4e, 0x73]
}

/// Checks what a transaction spends and how, and its signature operations.
pub(crate) fn check_inputs(
    tx: &Transaction,
    coins: &[Coin],
    sigops: usize,
) -> Result<(), &'static str> {
    for (input, coin) in tx.input.iter().zip(coins) {
        let script = &coin.output.script_pubkey;
        let known_program = script.is_p2tr() || is_p2a(script);
        let standard = match script.witness_version() {
            Some(WitnessVersion::V0) | None => is_standard_output(script),
            Some(_) => known_program,
        };
        let p2sh_sigops = match input.script_sig.redeem_script() {
            Some(redeem) if script.is_p2sh() => redeem.count_sigops(),
            _ => 0,
        };
        if !standard || p2sh_sigops > MAX_P2SH_SIGOPS {
            return Err("bad-txns-nonstandard-inputs");
        }
    }
    if !tx.input.iter().zip(coins).all(|(i, c)| is_standard_witness(i, c)) {
        return Err("bad-witness-nonstandard");
    }
    if sigops > MAX_STANDARD_TX_SIGOPS_COST as usize {
        return Err("bad-txns-too-many-sigops");
    }
    Ok(())
}

fn is_standard_witness(input: &TxIn, coin: &Coin) -> bool {
    if input.witness.is_empty() {
        return true;
    }
    let mut script = coin.output.script_pubkey.as_script();
    if is_p2a(script) {
        return false;
    }
    let p2sh = script.is_p2sh();
    if p2sh {
        match input.script_sig.redeem_script() {
            Some(redeem) => script = redeem,
            None => return false,
        }
    }
    let stack: Vec<&[u8]> = input.witness.iter().collect();
    let small = |items: &[&[u8]]| items.iter().all(|item| item.len() <= MAX_STACK_ITEM_SIZE);
    if script.is_p2wsh() {
        let (witness_script, items) = stack.split_last().expect("the witness is not empty");
        return witness_script.len() <= MAX_P2WSH_SCRIPT_SIZE
            && items.len() <= MAX_P2WSH_STACK_ITEMS
            && small(items);
    }
    if script.is_p2tr() && !p2sh && stack.len() >= 2 {
        let control = stack[stack.len() - 1];
        return match control.first() {
            // No meaning is defined for an annex, so none is relayed.
            Some(&TAPROOT_ANNEX_PREFIX) | None => false,
            Some(first) if first & TAPROOT_LEAF_MASK == LeafVersion::TapScript.to_consensus() => {
                small(&stack[..stack.len() - 2])
            }
            Some(_) => true,
        };
    }
    script.is_witness_program()
}

/// Checks a fee against the floors; for a package the sums.
pub(crate) fn check_feerate(
    feerates: &Feerates,
    fee: Amount,
    vsize: u64,
) -> Result<(), &'static str> {
    if fee < fee_ceil(feerates.mempool_minimum, vsize) {
        return Err("mempool min fee not met");
    }
    if fee < fee_ceil(feerates.min_relay, vsize) {
        return Err("min relay fee not met");
    }
    Ok(())
}

/// Returns signature operations and policy size of `tx`.
pub(crate) fn measure(tx: &Transaction, coins: &[Coin]) -> (usize, u64) {
    let sigops = rules::sigops_cost(tx, coins);
    (sigops, policy_vsize(tx, sigops))
}
