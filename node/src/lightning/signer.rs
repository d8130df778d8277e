//! The keys LDK signs with: its own derivation, our randomness, our wallet's addresses.
//!
//! `KeysManager` alone would send closed channels' money to keys of its own. Here every
//! destination is an address of the wallet, so funds come home without a sweep where possible.

use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::ecdsa::{RecoverableSignature, Signature};
use bitcoin::secp256k1::{All, PublicKey, Scalar, Secp256k1, schnorr};
use bitcoin::{ScriptBuf, Transaction, TxOut};
use lightning::ln::inbound_payment::ExpandedKey;
use lightning::ln::msgs::UnsignedGossipMessage;
use lightning::ln::script::ShutdownScript;
use lightning::offers::invoice::UnsignedBolt12Invoice;
use lightning::sign::{
    ChangeDestinationSourceSync, EntropySource, InMemorySigner, KeysManager, NodeSigner,
    OutputSpender, PeerStorageKey, ReceiveAuthKey, Recipient, SignerProvider,
    SpendableOutputDescriptor,
};
use lightning_invoice::RawBolt11Invoice;

use crate::environment::Environment;
use crate::wallet::Wallet;

/// LDK's signer with this node's entropy and wallet.
pub struct NodeKeys {
    inner: KeysManager,
    environment: Environment,
    wallet: Arc<Wallet>,
}

impl NodeKeys {
    /// Derives all Lightning keys from `seed`.
    pub fn new(seed: &[u8; 32], environment: Environment, wallet: Arc<Wallet>) -> Self {
        // Channel key ids must never repeat: LDK derives them from the start time and a
        // counter. The nanoseconds are random so that a clock set back cannot repeat them.
        let started = environment.clock.now();
        let nanos = u32::from_be_bytes(environment.entropy.bytes());
        let inner = KeysManager::new(seed, started.as_secs(), nanos, true);
        Self { inner, environment, wallet }
    }

    /// This node's identity.
    pub fn node_id(&self) -> PublicKey {
        self.inner.get_node_id(Recipient::Node).expect("LDK's in-memory keys have a node id")
    }

    /// A fresh address of the wallet. It is durable before any message that carries it leaves:
    /// its record is enqueued here, the message waits behind the gate.
    fn wallet_script(&self) -> ScriptBuf {
        let (script, _durable_before_any_output) = self.wallet.shutdown_script();
        script
    }
}

impl EntropySource for NodeKeys {
    fn get_secure_random_bytes(&self) -> [u8; 32] {
        self.environment.entropy.bytes()
    }
}

impl NodeSigner for NodeKeys {
    fn get_expanded_key(&self) -> ExpandedKey {
        self.inner.get_expanded_key()
    }

    fn get_peer_storage_key(&self) -> PeerStorageKey {
        self.inner.get_peer_storage_key()
    }

    fn get_receive_auth_key(&self) -> ReceiveAuthKey {
        self.inner.get_receive_auth_key()
    }

    fn get_node_id(&self, recipient: Recipient) -> Result<PublicKey, ()> {
        self.inner.get_node_id(recipient)
    }

    fn ecdh(
        &self,
        recipient: Recipient,
        other_key: &PublicKey,
        tweak: Option<&Scalar>,
    ) -> Result<SharedSecret, ()> {
        self.inner.ecdh(recipient, other_key, tweak)
    }

    fn sign_invoice(
        &self,
        invoice: &RawBolt11Invoice,
        recipient: Recipient,
    ) -> Result<RecoverableSignature, ()> {
        self.inner.sign_invoice(invoice, recipient)
    }

    fn sign_bolt12_invoice(
        &self,
        invoice: &UnsignedBolt12Invoice,
    ) -> Result<schnorr::Signature, ()> {
        self.inner.sign_bolt12_invoice(invoice)
    }

    fn sign_gossip_message(&self, msg: UnsignedGossipMessage<'_>) -> Result<Signature, ()> {
        self.inner.sign_gossip_message(msg)
    }

    fn sign_message(&self, msg: &[u8]) -> Result<String, ()> {
        self.inner.sign_message(msg)
    }
}

impl SignerProvider for NodeKeys {
    type EcdsaSigner = InMemorySigner;

    fn generate_channel_keys_id(&self, inbound: bool, user_channel_id: u128) -> [u8; 32] {
        self.inner.generate_channel_keys_id(inbound, user_channel_id)
    }

    fn derive_channel_signer(&self, channel_keys_id: [u8; 32]) -> InMemorySigner {
        self.inner.derive_channel_signer(channel_keys_id)
    }

    fn get_destination_script(&self, _channel_keys_id: [u8; 32]) -> Result<ScriptBuf, ()> {
        Ok(self.wallet_script())
    }

    fn get_shutdown_scriptpubkey(&self) -> Result<ShutdownScript, ()> {
        ShutdownScript::try_from(self.wallet_script()).map_err(|error| {
            tracing::error!(?error, "wallet address does not fit a shutdown script");
        })
    }
}

impl OutputSpender for NodeKeys {
    fn spend_spendable_outputs(
        &self,
        descriptors: &[&SpendableOutputDescriptor],
        outputs: Vec<TxOut>,
        change_destination_script: ScriptBuf,
        feerate_sat_per_1000_weight: u32,
        locktime: Option<LockTime>,
        secp_ctx: &Secp256k1<All>,
    ) -> Result<Transaction, ()> {
        self.inner.spend_spendable_outputs(
            descriptors,
            outputs,
            change_destination_script,
            feerate_sat_per_1000_weight,
            locktime,
            secp_ctx,
        )
    }
}

impl ChangeDestinationSourceSync for NodeKeys {
    fn get_change_destination_script(&self) -> Result<ScriptBuf, ()> {
        Ok(self.wallet_script())
    }
}
