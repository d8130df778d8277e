//! Whole batches for tests: keys, channels, trees, signed by everybody.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Amount, OutPoint, TxOut, Txid, absolute};
use channel_contracts::musig::reclaim::SweepSecret;
use channel_contracts::musig::{
    HubNonces, HubPartials, NonceSeed, PublicNonce, SignedTree, TreeSecret, UserNonces, UserSigned,
};
use channel_contracts::script::{ExpiryLeaf, FundingScript};
use channel_contracts::tree::{BatchTree, Member, PlannedTree, Radix, Terms, TreeTerms, UserSlot};

/// Height at which the batches of the tests expire.
pub const EXPIRY: u32 = 804_032;

/// 32 bytes that belong to `name` and `number` only.
pub fn bytes(name: &str, number: u64) -> [u8; 32] {
    let mut data = name.as_bytes().to_vec();
    data.extend(number.to_be_bytes());
    sha256::Hash::hash(&data).to_byte_array()
}

pub fn secret(name: &str, number: u64) -> TreeSecret {
    TreeSecret::from_bytes(bytes(name, number)).unwrap()
}

pub fn seed(name: &str, number: u64) -> NonceSeed {
    NonceSeed::from_fresh_randomness(bytes(name, number))
}

/// A hub and its users, with secrets and channels.
pub struct Batch {
    pub hub: TreeSecret,
    pub sweep: SweepSecret,
    pub users: Vec<TreeSecret>,
    pub terms: TreeTerms,
    pub members: Vec<Member>,
}

impl Batch {
    /// A batch of `users` with channels of 100,000 sat and a little.
    pub fn new(users: usize, radix: u8) -> Self {
        Self::with_values(&(0..users as u64).map(|user| 100_000 + user).collect::<Vec<_>>(), radix)
    }

    /// A batch with a channel for each value, in sat.
    pub fn with_values(values: &[u64], radix: u8) -> Self {
        let hub = secret("hub", 0);
        let sweep = SweepSecret::from_bytes(bytes("sweep", 0)).unwrap();
        let users: Vec<_> = (0..values.len() as u64).map(|user| secret("user", user)).collect();
        let member = |(user, value): (usize, &u64)| Member {
            tree_key: users[user].public_key(),
            funding: channel(user as u64, *value),
        };
        let members = values.iter().enumerate().map(member).collect();
        let terms = TreeTerms {
            hub_key: hub.public_key(),
            leaf: ExpiryLeaf {
                expiry: absolute::Height::from_consensus(EXPIRY).unwrap(),
                sweep_key: sweep.public_key(),
            },
            radix: Radix::new(radix).unwrap(),
        };
        Self { hub, sweep, users, terms, members }
    }

    pub fn tree(&self) -> BatchTree {
        let planned = PlannedTree::new(self.terms, self.members.clone()).unwrap();
        planned.fund(root()).unwrap()
    }

    /// What the user of `slot` knows by itself.
    pub fn terms_of(&self, tree: &BatchTree, slot: UserSlot) -> Terms {
        Terms {
            own_key: self.users[slot.index()].public_key(),
            root: root(),
            root_output: tree.nodes()[0].spent.clone(),
            expiry: self.terms.leaf.expiry,
            channel: self.members[slot.index()].funding.clone(),
        }
    }

    /// Every user's session after a full check of its proposal, with its nonces.
    pub fn begin(&self, tree: &BatchTree, round: u64) -> Vec<(UserNonces, Vec<PublicNonce>)> {
        slots(self.users.len())
            .map(|slot| {
                let agreed =
                    tree.proposal(slot).unwrap().verify(&self.terms_of(tree, slot)).unwrap();
                let seed = seed("user seed", round * 10_000 + u64::from(slot.0));
                UserNonces::begin(agreed, self.users[slot.index()].clone(), seed).unwrap()
            })
            .collect()
    }

    /// The hub after the nonces of all, and every user after signing.
    pub fn exchange(&self, tree: BatchTree, round: u64) -> (HubPartials, Vec<UserSigned>) {
        let users = self.begin(&tree, round);
        let mut hub = HubNonces::begin(tree, self.hub.clone(), seed("hub seed", round)).unwrap();
        for (slot, (_, nonces)) in slots(users.len()).zip(&users) {
            hub.add(slot, nonces.clone()).unwrap();
        }
        let hub = hub.aggregate().unwrap();
        let sign = |(slot, (user, _)): (UserSlot, (UserNonces, _))| {
            user.sign(&hub.aggregated(slot).unwrap()).unwrap()
        };
        let signed = slots(users.len()).zip(users).map(sign).collect();
        (hub, signed)
    }

    /// The whole ceremony.
    pub fn sign(&self) -> SignedTree {
        let (mut hub, users) = self.exchange(self.tree(), 0);
        for (slot, user) in slots(users.len()).zip(&users) {
            hub.add(slot, user.partials().to_vec()).unwrap();
        }
        hub.finish().unwrap()
    }
}

pub fn slots(users: usize) -> impl Iterator<Item = UserSlot> {
    (0..users as u16).map(UserSlot)
}

/// Where the root output of every test batch stands.
pub fn root() -> OutPoint {
    OutPoint::new(Txid::from_byte_array(bytes("batch transaction", 0)), 1)
}

/// The funding output of a channel of both sides' keys.
pub fn channel(user: u64, value: u64) -> TxOut {
    let secp = Secp256k1::new();
    let key = |name| SecretKey::from_slice(&bytes(name, user)).unwrap().public_key(&secp);
    let script = FundingScript::new(key("hub funding"), key("user funding"));
    TxOut { value: Amount::from_sat(value), script_pubkey: script.script_pubkey() }
}
