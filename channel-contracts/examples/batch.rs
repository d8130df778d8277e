//! Signs the tree of a batch with all parties in one process and prints what it takes: time,
//! bytes of a path, and what an exit, the batch and its end weigh on the chain.
//!
//! Run with `cargo run --release -p channel-contracts --example batch -- 256`.
// Measuring is all it does, so it reads the machine's clock.
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::time::Instant;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Amount, OutPoint, TxOut, Txid, absolute};
use channel_contracts::musig::reclaim::SweepSecret;
use channel_contracts::musig::{HubNonces, NonceSeed, TreeSecret, UserNonces};
use channel_contracts::script::{ExpiryLeaf, FundingScript};
use channel_contracts::tree::{
    BatchCost, ExitCost, Member, PlannedTree, Radix, SignedPath, Terms, TreeTerms, UserSlot,
};

/// Bytes made from a name and a number instead of drawn: never do this with money.
fn bytes(name: &str, number: u16) -> [u8; 32] {
    sha256::Hash::hash(format!("{name} {number}").as_bytes()).to_byte_array()
}

fn secret(name: &str, number: u16) -> Result<TreeSecret, &'static str> {
    TreeSecret::from_bytes(bytes(name, number)).ok_or("a hash is a secret")
}

fn main() -> Result<(), Box<dyn Error>> {
    let sizes: Vec<usize> =
        std::env::args().skip(1).map(|size| size.parse()).collect::<Result<_, _>>()?;
    for users in if sizes.is_empty() { vec![8, 64, 256] } else { sizes } {
        batch(users)?;
    }
    Ok(())
}

fn batch(users: usize) -> Result<(), Box<dyn Error>> {
    let slots = || (0..users as u16).map(UserSlot);
    let hub = secret("hub", 0)?;
    let secrets: Vec<TreeSecret> =
        slots().map(|slot| secret("user", slot.0)).collect::<Result<_, _>>()?;
    let funding = |slot: UserSlot| -> Result<TxOut, &'static str> {
        let keys = [secret("hub funding", slot.0)?, secret("user funding", slot.0)?];
        let script = FundingScript::new(keys[0].public_key(), keys[1].public_key());
        Ok(TxOut { value: Amount::from_sat(100_000), script_pubkey: script.script_pubkey() })
    };
    let channels: Vec<TxOut> = slots().map(funding).collect::<Result<_, _>>()?;
    let sweep = SweepSecret::from_bytes(bytes("sweep", 0)).ok_or("a hash is a secret")?;
    let leaf = ExpiryLeaf {
        expiry: absolute::Height::from_consensus(904_032)?,
        sweep_key: sweep.public_key(),
    };
    let radix = Radix::for_size(users);
    let terms = TreeTerms { hub_key: hub.public_key(), leaf, radix };
    let members = secrets
        .iter()
        .zip(&channels)
        .map(|(secret, funding)| Member { tree_key: secret.public_key(), funding: funding.clone() })
        .collect();

    let began = Instant::now();
    let planned = PlannedTree::new(terms, members)?;
    let root_output = planned.root_output();
    let root = OutPoint::new(Txid::from_byte_array(bytes("batch", 0)), 0);
    let tree = planned.fund(root)?;
    let built = began.elapsed();

    // Each user checks the hub's proposal. On the network they all do so at the same time.
    let began = Instant::now();
    let mut agreed = vec![];
    for slot in slots() {
        let terms = Terms {
            own_key: secrets[slot.index()].public_key(),
            root,
            root_output: root_output.clone(),
            expiry: leaf.expiry,
            channel: channels[slot.index()].clone(),
        };
        agreed.push((slot, tree.proposal(slot)?.verify(&terms)?));
    }
    let checked = began.elapsed();

    let began = Instant::now();
    let seed = |name, number| NonceSeed::from_fresh_randomness(bytes(name, number));
    let mut gathering = HubNonces::begin(tree, hub, seed("hub seed", 0))?;
    let mut sessions = vec![];
    let mut ends = vec![];
    for (slot, agreed) in agreed {
        ends.push(agreed.ends.clone());
        let seed = seed("user seed", slot.0);
        let secret = secrets[slot.index()].clone();
        let (session, nonces) = UserNonces::begin(agreed, secret, seed)?;
        gathering.add(slot, nonces)?;
        sessions.push((slot, session));
    }
    let mut verifying = gathering.aggregate().map_err(|(_, error)| error)?;
    for (slot, session) in sessions {
        let signed = session.sign(&verifying.aggregated(slot)?)?;
        verifying.add(slot, signed.partials().to_vec())?;
    }
    let signed = verifying.finish().map_err(|(_, error)| error)?;
    let signing = began.elapsed();

    let encoded = signed.path(UserSlot(0))?.encode();
    let began = Instant::now();
    SignedPath::decode(&encoded)?.verify(&ends[0])?;
    let verified = began.elapsed();

    let shape = *signed.tree().shape();
    let (exit, cost) = (ExitCost::worst(&shape), BatchCost::of(&shape));
    println!(
        "{users} users, radix {radix}, {} levels, {} transactions",
        shape.levels(),
        shape.nodes().len()
    );
    println!("  build the tree          {built:?}");
    println!("  check a proposal        {:?} each", checked / users as u32);
    println!("  sign, all partials verified, in one process: {signing:?}");
    println!("  path                    {} bytes, verified in {verified:?}", encoded.len());
    println!("  exit                    {} vB in {} blocks", exit.total_vb(), exit.blocks);
    println!(
        "  batch                   {} vB to open, {} to reclaim, {} to sweep, {} per period: {} mvB per user",
        cost.open_vb,
        cost.reclaim_vb,
        cost.sweep_vb,
        cost.period_vb,
        cost.open_and_reclaim_millivb_per_user(),
    );
    println!("  ordinary channels       {} vB", cost.ordinary_vb);
    Ok(())
}
