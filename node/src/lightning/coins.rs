//! The wallet as LDK's fee bumping sees it.

use std::sync::Arc;

use bitcoin::{OutPoint, Psbt, ScriptBuf, Sequence, Transaction};
use lightning::util::wallet_utils::{Utxo, WalletSourceSync};

use crate::wallet::Wallet;

/// LDK counts the empty `script_sig`'s length byte, in weight units, with the witness.
const EMPTY_SCRIPT_SIG: u64 = 4;

/// Lends the wallet's confirmed, unreserved coins to LDK.
pub struct WalletCoins {
    wallet: Arc<Wallet>,
}

impl WalletCoins {
    /// Lends from `wallet`.
    pub fn new(wallet: Arc<Wallet>) -> Self {
        Self { wallet }
    }
}

impl WalletSourceSync for WalletCoins {
    fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
        Ok(self
            .wallet
            .confirmed_coins(None)
            .into_iter()
            .map(|coin| Utxo {
                outpoint: coin.outpoint,
                output: coin.txout,
                satisfaction_weight: EMPTY_SCRIPT_SIG + coin.satisfaction_weight.to_wu(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            })
            .collect())
    }

    fn get_prevtx(&self, outpoint: OutPoint) -> Result<Transaction, ()> {
        self.wallet.previous_transaction(outpoint).ok_or_else(|| {
            tracing::error!(%outpoint, "wallet does not know the transaction of its own coin");
        })
    }

    fn get_change_script(&self) -> Result<ScriptBuf, ()> {
        let (script, _durable_before_any_output) = self.wallet.change_script();
        Ok(script)
    }

    fn sign_psbt(&self, psbt: Psbt) -> Result<Transaction, ()> {
        self.wallet.sign_psbt(psbt).map_err(|error| {
            tracing::error!(%error, "wallet could not sign a fee bump");
        })
    }
}
