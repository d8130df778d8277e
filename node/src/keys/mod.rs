//! The seed, what is derived from it, and the wallet's signatures: the only room with secrets.
//!
//! | what | path | who uses it |
//! |---|---|---|
//! | wallet account (BIP 86) | `m/86'/coin'/0'` | `wallet/`, public descriptors only |
//! | Lightning seed | `m/9735'/coin'/0'`, the private key's 32 bytes | LDK's `KeysManager` |
//! | secrets of batches | `m/9736'/coin'/0'`, HMACs under the private key | `batches/`, see `batch.rs` |
//! | secrets of towers | `m/9738'/coin'/0'`, HMACs under the private key | `tower/`, see `tower.rs` |
//! | secret of tokens | `m/9737'/coin'/0'`, the private key's 32 bytes | `tokens/` |
//! | secrets of webhooks | `m/9739'/coin'/0'`, HMACs under the private key | `webhooks/`, see `webhook.rs` |
//! | node identity | `m/0'` of the BIP 32 master made from the Lightning seed | as LDK derives it |
//!
//! `coin'` is `0'` on mainnet and `1'` elsewhere (SLIP 44). TLS keys and the
//! administrator's token are not derived from the seed and not kept here. Read `sealed.rs` for the file, `signing.rs` for the
//! signatures.

mod batch;
mod phrase;
mod sealed;
mod signing;
mod tower;
mod webhook;

use std::fmt;
use std::path::Path;

use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint, Xpriv, Xpub};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Network, NetworkKind};
use zeroize::Zeroizing;

pub use batch::BatchSecrets;
pub use phrase::{PhraseError, RecoveryPhrase, WordCount};
pub use sealed::{SEALED_SEED_FILE, SealCost, SealError, UnlockError};
pub use signing::SignError;
pub use tower::TowerSecrets;
pub use webhook::WebhookSecrets;

use crate::environment::Entropy;
use phrase::Seed;

/// Purpose of Lightning keys: the port of Lightning, hardened.
const LIGHTNING_PURPOSE: u32 = 9735;
/// Purpose of the path below which the secrets of batches are derived: ours.
const BATCH_PURPOSE: u32 = 9736;
/// Purpose of the path of the secret that tokens begin with: ours.
const TOKEN_PURPOSE: u32 = 9737;
/// Purpose of the path below which the secrets of towers are derived: ours.
const TOWER_PURPOSE: u32 = 9738;
/// Purpose of the path below which the secrets of webhooks are derived: ours.
const WEBHOOK_PURPOSE: u32 = 9739;
/// Purpose of taproot single-key accounts, BIP 86.
const BIP86_PURPOSE: u32 = 86;

/// What a new seed is made of, see [`Keys::create`].
#[derive(Debug)]
pub struct NewSeed<'a> {
    /// The words.
    pub phrase: &'a RecoveryPhrase,
    /// BIP 39's optional passphrase; it must be remembered together with the words.
    pub passphrase: &'a str,
    /// The password that seals the seed on disk.
    pub password: &'a str,
    /// What a guess of the password costs.
    pub cost: SealCost,
}

/// The unlocked keys of a node.
pub struct Keys {
    network: Network,
    seed: Seed,
    secp: Secp256k1<All>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("network", &self.network).field("seed", &self.seed).finish()
    }
}

/// The public half of the wallet: two BIP 86 descriptors with their key origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletDescriptors {
    /// `tr(.../0/*)`, for addresses that are given to others.
    pub external: String,
    /// `tr(.../1/*)`, for change.
    pub internal: String,
}

impl Keys {
    /// Seals a new seed in `dir` (made if absent) and returns its keys.
    ///
    /// # Errors
    ///
    /// [`SealError::AlreadyExists`] if `dir` has a seed: a seed is never overwritten.
    pub fn create(
        dir: &Path,
        network: Network,
        new: &NewSeed<'_>,
        entropy: &dyn Entropy,
    ) -> Result<Self, SealError> {
        let seed = new.phrase.seed(new.passphrase);
        sealed::create(dir, &seed, new.password, new.cost, entropy)?;
        Ok(Self::new(network, seed))
    }

    /// Whether `dir` holds a sealed seed.
    pub fn exist_in(dir: &Path) -> bool {
        sealed::path_in(dir).exists()
    }

    /// Opens the seed of `dir`.
    ///
    /// # Errors
    ///
    /// [`UnlockError`] tells a missing file, a wrong password and a damaged file apart.
    pub fn unlock(dir: &Path, network: Network, password: &str) -> Result<Self, UnlockError> {
        Ok(Self::new(network, sealed::open(dir, password)?))
    }

    /// Seals the seed of these keys in `dir` anew, with another password.
    ///
    /// # Errors
    ///
    /// That of the disk; the old file is intact then.
    pub fn change_password(
        &self,
        dir: &Path,
        password: &str,
        cost: SealCost,
        entropy: &dyn Entropy,
    ) -> Result<(), SealError> {
        sealed::replace(dir, &self.seed, password, cost, entropy)
    }

    /// Makes keys that live in memory only: for `tributary dev`, tests and simulations.
    pub fn in_memory(network: Network, phrase: &RecoveryPhrase, passphrase: &str) -> Self {
        Self::new(network, phrase.seed(passphrase))
    }

    fn new(network: Network, seed: Seed) -> Self {
        Self { network, seed, secp: Secp256k1::new() }
    }

    /// The network whose addresses the keys make.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The seed for LDK's `KeysManager`, from which it derives every channel's keys.
    pub fn lightning_seed(&self) -> Zeroizing<[u8; 32]> {
        let mut key = self.derive(&[LIGHTNING_PURPOSE, self.coin(), 0]);
        let seed = Zeroizing::new(key.private_key.secret_bytes());
        key.private_key.non_secure_erase();
        seed
    }

    /// The secrets of batches.
    pub fn batch_secrets(&self) -> BatchSecrets {
        let mut key = self.derive(&[BATCH_PURPOSE, self.coin(), 0]);
        let secrets = BatchSecrets::new(Zeroizing::new(key.private_key.secret_bytes()));
        key.private_key.non_secure_erase();
        secrets
    }

    /// The secrets of towers, of both sides.
    pub fn tower_secrets(&self) -> TowerSecrets {
        let mut key = self.derive(&[TOWER_PURPOSE, self.coin(), 0]);
        let secrets = TowerSecrets::new(Zeroizing::new(key.private_key.secret_bytes()));
        key.private_key.non_secure_erase();
        secrets
    }

    /// What the chain of every token begins with.
    pub fn token_secret(&self) -> Zeroizing<[u8; 32]> {
        let mut key = self.derive(&[TOKEN_PURPOSE, self.coin(), 0]);
        let secret = Zeroizing::new(key.private_key.secret_bytes());
        key.private_key.non_secure_erase();
        secret
    }

    /// The secrets that webhooks are signed with.
    pub fn webhook_secrets(&self) -> WebhookSecrets {
        let mut key = self.derive(&[WEBHOOK_PURPOSE, self.coin(), 0]);
        let secrets = WebhookSecrets::new(Zeroizing::new(key.private_key.secret_bytes()));
        key.private_key.non_secure_erase();
        secrets
    }

    /// The node's identity on the Lightning network.
    pub fn node_id(&self) -> PublicKey {
        // LDK reads its seed as a BIP 32 seed and takes the first hardened child; the network
        // changes nothing but the encoding of a key that is never encoded.
        let mut key = Xpriv::new_master(NetworkKind::Test, self.lightning_seed().as_ref())
            .and_then(|master| master.derive_priv(&self.secp, &hardened(&[0])))
            .expect("BIP 32 fails for one seed in 2^127");
        let node_id = key.private_key.public_key(&self.secp);
        key.private_key.non_secure_erase();
        node_id
    }

    /// The wallet's public descriptors.
    pub fn wallet_descriptors(&self) -> WalletDescriptors {
        let account = Xpub::from_priv(&self.secp, &self.wallet_account());
        let origin = format!("[{}/{BIP86_PURPOSE}'/{}'/0']", self.fingerprint(), self.coin());
        WalletDescriptors {
            external: format!("tr({origin}{account}/0/*)"),
            internal: format!("tr({origin}{account}/1/*)"),
        }
    }

    /// The master key's fingerprint, which marks our keys in a PSBT.
    pub fn fingerprint(&self) -> Fingerprint {
        self.master().fingerprint(&self.secp)
    }

    fn wallet_account(&self) -> Xpriv {
        self.derive(&[BIP86_PURPOSE, self.coin(), 0])
    }

    fn master(&self) -> Xpriv {
        Xpriv::new_master(self.network, self.seed.0.as_ref())
            .expect("BIP 32 fails for one seed in 2^127")
    }

    fn derive(&self, path: &[u32]) -> Xpriv {
        self.master()
            .derive_priv(&self.secp, &hardened(path))
            .expect("BIP 32 fails for one key in 2^127")
    }

    /// Coin type, SLIP 44.
    fn coin(&self) -> u32 {
        match self.network {
            Network::Bitcoin => 0,
            _ => 1,
        }
    }
}

fn hardened(path: &[u32]) -> DerivationPath {
    path.iter()
        .map(|index| ChildNumber::from_hardened_idx(*index).expect("our indexes are small"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use bdk_wallet::{KeychainKind, Wallet};

    use super::*;
    use crate::environment::OsEntropy;

    const ABANDON: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

    fn abandon(network: Network) -> Keys {
        Keys::in_memory(network, &RecoveryPhrase::parse(ABANDON).unwrap(), "")
    }

    /// Source: the test vectors of BIP 86.
    #[test]
    fn addresses_match_the_vectors_of_bip_86() {
        let keys = abandon(Network::Bitcoin);
        let descriptors = keys.wallet_descriptors();
        assert!(descriptors.external.contains(
            "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ"
        ));
        let wallet = Wallet::create(descriptors.external, descriptors.internal)
            .network(Network::Bitcoin)
            .create_wallet_no_persist()
            .unwrap();
        let address = |keychain, index| wallet.peek_address(keychain, index).address.to_string();
        assert_eq!(
            address(KeychainKind::External, 0),
            "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"
        );
        assert_eq!(
            address(KeychainKind::External, 1),
            "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh"
        );
        assert_eq!(
            address(KeychainKind::Internal, 0),
            "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7"
        );
    }

    /// The node id is the one LDK's `KeysManager` takes from the same seed (computed with LDK
    /// 0.3.0-rc3); a change here would give every node another identity.
    #[test]
    fn lightning_keys_are_stable() {
        let keys = abandon(Network::Regtest);
        assert_eq!(
            hex::encode(*keys.lightning_seed()),
            "dc904038e950ba91fc76cebcdf3634001ebd82e889ccca88225df84f70f71e33"
        );
        assert_eq!(
            keys.node_id(),
            PublicKey::from_str(
                "022f0dfc16b19b507b3639fc0e1dedb5d9a40e1cab5890e6c5c6e118d4f4107c2c"
            )
            .unwrap()
        );
    }

    #[test]
    fn networks_and_passphrases_do_not_share_keys() {
        let main = abandon(Network::Bitcoin);
        let test = abandon(Network::Signet);
        let phrase = RecoveryPhrase::parse(ABANDON).unwrap();
        let salted = Keys::in_memory(Network::Bitcoin, &phrase, "salt");
        assert_ne!(main.node_id(), test.node_id());
        assert_ne!(main.node_id(), salted.node_id());
        assert_ne!(main.wallet_descriptors(), salted.wallet_descriptors());
    }

    #[test]
    fn created_keys_unlock_to_the_same_keys() {
        let dir = tempfile::tempdir().unwrap();
        let phrase = RecoveryPhrase::generate(WordCount::TwentyFour, &OsEntropy);
        let new = NewSeed {
            phrase: &phrase,
            passphrase: "extra",
            password: "first",
            cost: SealCost::insecure_for_tests(),
        };
        assert!(!Keys::exist_in(dir.path()));
        let keys = Keys::create(dir.path(), Network::Regtest, &new, &OsEntropy).unwrap();
        assert!(Keys::exist_in(dir.path()));
        let unlocked = Keys::unlock(dir.path(), Network::Regtest, "first").unwrap();
        assert_eq!(keys.node_id(), unlocked.node_id());
        assert_eq!(keys.wallet_descriptors(), unlocked.wallet_descriptors());

        unlocked
            .change_password(dir.path(), "second", SealCost::insecure_for_tests(), &OsEntropy)
            .unwrap();
        assert!(matches!(
            Keys::unlock(dir.path(), Network::Regtest, "first"),
            Err(UnlockError::WrongPassword { .. })
        ));
        let again = Keys::unlock(dir.path(), Network::Regtest, "second").unwrap();
        assert_eq!(keys.node_id(), again.node_id());
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(
            format!("{:?}", abandon(Network::Regtest)),
            "Keys { network: Regtest, seed: Seed([redacted]) }"
        );
    }
}
