//! `tributary.v1.Wallet`: receive, send and speed up coins on chain.

use std::sync::Arc;

use bitcoin::{Address, OutPoint};
use proto::v1;
use tonic::{Request, Response, Status};

use super::auth::Caller;
use super::channels::feerate;
use super::convert::{block_hash_bytes, idempotency_key, outpoint, txid, txid_bytes};
use super::mutation::to_the_end;
use super::page::{self, Answers, List};
use super::server::{Door, RpcParts};
use super::status::{Reason, Refusal};
use crate::onchain::SendCoins;
use crate::wallet::{Purpose, SendAmount, TransactionInfo, UnspentCoin, Wallet, WalletBalance};

/// The service.
pub(super) struct WalletService {
    door: Door,
}

impl WalletService {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl v1::wallet_server::Wallet for WalletService {
    async fn new_address(
        &self,
        request: Request<v1::NewAddressRequest>,
    ) -> Result<Response<v1::NewAddressResponse>, Status> {
        let parts = self.door.parts()?;
        let key = idempotency_key("NewAddress", &request.into_inner().idempotency_key)?;
        let address = parts.onchain.new_address(Some(&key)).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::NewAddressResponse { address }))
    }

    async fn get_balance(
        &self,
        _request: Request<v1::GetBalanceRequest>,
    ) -> Result<Response<v1::WalletBalance>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(balance(&parts.onchain.wallet().balance())))
    }

    async fn send(
        &self,
        request: Request<v1::SendRequest>,
    ) -> Result<Response<v1::WalletTransaction>, Status> {
        let purse = Caller::of(&request)?.purse();
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("Send", &request.idempotency_key)?;
        let send = send_coins(request)?;
        let shared = Arc::clone(&parts);
        let txid = to_the_end(&parts.tasks, async move {
            Ok(shared.onchain.send(&send, Some(&key), purse.as_ref()).await?)
        })
        .await?;
        Ok(Response::new(made(&parts, txid)?))
    }

    async fn bump_fee(
        &self,
        request: Request<v1::BumpFeeRequest>,
    ) -> Result<Response<v1::WalletTransaction>, Status> {
        let purse = Caller::of(&request)?.purse();
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("BumpFee", &request.idempotency_key)?;
        let old = txid("txid", &request.txid)?;
        let feerate = feerate(request.feerate_sat_per_vb)?;
        let shared = Arc::clone(&parts);
        let new = to_the_end(&parts.tasks, async move {
            Ok(shared.onchain.bump_fee(old, feerate, Some(&key), purse.as_ref()).await?)
        })
        .await?;
        Ok(Response::new(made(&parts, new)?))
    }

    async fn list_transactions(
        &self,
        request: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let token = request.page_token.as_deref();
        let from = page::position(List::Transactions, &(), token)?;
        let (transactions, next) = transactions(&parts, from, size)?;
        let next_page_token = next.map(|next| page::token(List::Transactions, &(), &next));
        Ok(Response::new(v1::ListTransactionsResponse { transactions, next_page_token }))
    }

    type ExportTransactionsStream = Answers<v1::WalletTransaction>;

    async fn export_transactions(
        &self,
        _request: Request<v1::ExportTransactionsRequest>,
    ) -> Result<Response<Self::ExportTransactionsStream>, Status> {
        let door = self.door.clone();
        door.parts()?;
        Ok(Response::new(page::export(move |from| {
            let door = door.clone();
            async move { transactions(&*door.parts()?, from, page::SIZE_MAX as usize) }
        })))
    }

    async fn list_unspent(
        &self,
        request: Request<v1::ListUnspentRequest>,
    ) -> Result<Response<v1::ListUnspentResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let token = request.page_token.as_deref();
        let from = page::position(List::Unspent, &(), token)?;
        let after = page::own_position(from)?;
        let mut coins = parts.onchain.wallet().list_unspent();
        coins.sort_by_key(coin_place);
        let mut rest =
            coins.iter().filter(|coin| after.is_none_or(|after| coin_place(coin) > after));
        let on_page: Vec<&UnspentCoin> = rest.by_ref().take(size).collect();
        let next_page_token = match (rest.next(), on_page.last()) {
            (Some(_), Some(last)) => Some(page::token(List::Unspent, &(), &coin_place(last))),
            _ => None,
        };
        let network = parts.facts.network;
        let unspent = on_page.into_iter().map(|coin| self::unspent(coin, network)).collect();
        Ok(Response::new(v1::ListUnspentResponse { unspent, next_page_token }))
    }
}

/// Writes how the coins for force-closes stand.
pub(super) fn anchor_reserve(wallet: &Wallet) -> v1::AnchorReserve {
    reserve(&wallet.balance())
}

fn reserve(balance: &WalletBalance) -> v1::AnchorReserve {
    let required = balance.reserved_for_anchors.to_sat();
    let missing = balance.anchor_reserve_missing.to_sat();
    // Held coins may be unconfirmed ones; what is missing is exact.
    let free = balance.confirmed.to_sat().saturating_sub(balance.held.to_sat());
    let available = match missing {
        0 => free.max(required),
        missing => required.saturating_sub(missing),
    };
    v1::AnchorReserve { required_sat: required, available_sat: available, missing_sat: missing }
}

fn balance(balance: &WalletBalance) -> v1::WalletBalance {
    v1::WalletBalance {
        confirmed_sat: balance.confirmed.to_sat(),
        unconfirmed_sat: balance.unconfirmed.to_sat(),
        immature_sat: balance.immature.to_sat(),
        reserved_for_anchors_sat: balance.reserved_for_anchors.to_sat(),
        locked_sat: balance.held.to_sat(),
        spendable_sat: balance.spendable.to_sat(),
    }
}

fn send_coins(request: v1::SendRequest) -> Result<SendCoins, Refusal> {
    use v1::send_request::Amount;
    let amount = match request.amount {
        Some(Amount::AmountSat(sat)) if sat > bitcoin::Amount::MAX_MONEY.to_sat() => {
            let message = format_args!("amount_sat {sat} is more than all bitcoin");
            return Err(Refusal::new(Reason::AmountOutOfRange, message).with("amount_sat", sat));
        }
        Some(Amount::AmountSat(sat)) => SendAmount::Exact(bitcoin::Amount::from_sat(sat)),
        Some(Amount::All(true)) => SendAmount::All,
        Some(Amount::All(false)) => return Err(Refusal::field("all", "must be true if given")),
        None => {
            return Err(Refusal::new(Reason::AmountMissing, "no amount is given")
                .remedy("give amount_sat, or all"));
        }
    };
    if request.max_fee_sat.is_some() && amount == SendAmount::All {
        return Err(Refusal::field("max_fee_sat", "goes with amount_sat only; leave it out"));
    }
    Ok(SendCoins {
        address: request.address,
        amount,
        feerate_sat_per_vb: feerate(request.feerate_sat_per_vb)?,
        max_fee: request.max_fee_sat.map(bitcoin::Amount::from_sat),
    })
}

/// Writes a transaction that was made by this call or by the one it repeats.
fn made(parts: &RpcParts, txid: bitcoin::Txid) -> Result<v1::WalletTransaction, Refusal> {
    let info = parts.onchain.wallet().transaction_ever(txid).ok_or_else(|| {
        let message = format_args!("transaction {txid} was made, and the wallet does not have it");
        Refusal::new(Reason::TransactionUnknown, message)
            .with("txid", txid)
            .money_may_have_moved(true)
    })?;
    Ok(transaction(&info, parts.height()))
}

fn transactions(
    parts: &RpcParts,
    from: Option<Vec<u8>>,
    size: usize,
) -> Result<(Vec<v1::WalletTransaction>, Option<Vec<u8>>), Refusal> {
    let after = page::own_position(from)?;
    let height = parts.height();
    let mut all = parts.onchain.wallet().list_transactions();
    all.sort_by_key(place);
    let mut rest = all.iter().filter(|info| after.is_none_or(|after| place(info) > after));
    let on_page: Vec<&TransactionInfo> = rest.by_ref().take(size).collect();
    let next = match (rest.next(), on_page.last()) {
        (Some(_), Some(last)) => Some(place(last).to_vec()),
        _ => None,
    };
    Ok((on_page.into_iter().map(|info| transaction(info, height)).collect(), next))
}

/// Where a transaction stands in the list: unconfirmed first, then newest first.
fn place(info: &TransactionInfo) -> [u8; 36] {
    let height = info.confirmed_in.map_or(u32::MAX, |block| block.height);
    let mut place = [0; 36];
    place[..4].copy_from_slice(&(u32::MAX - height).to_be_bytes());
    place[4..].copy_from_slice(&txid_bytes(info.txid));
    place
}

/// Where a coin stands in the list: largest first.
fn coin_place(coin: &UnspentCoin) -> [u8; 44] {
    let value = u64::MAX - coin.txout.value.to_sat();
    let OutPoint { txid, vout } = coin.outpoint;
    let mut place = [0; 44];
    place[..8].copy_from_slice(&value.to_be_bytes());
    place[8..40].copy_from_slice(&txid_bytes(txid));
    place[40..].copy_from_slice(&vout.to_be_bytes());
    place
}

fn transaction(info: &TransactionInfo, tip_height: u32) -> v1::WalletTransaction {
    let purpose = match &info.purpose {
        Some(Purpose::Funding) => v1::TransactionPurpose::ChannelFunding,
        Some(Purpose::Send | Purpose::SendAll(_)) => v1::TransactionPurpose::Send,
        Some(Purpose::Child | Purpose::Anchor) => v1::TransactionPurpose::FeeBump,
        Some(Purpose::Close) => v1::TransactionPurpose::ChannelClose,
        Some(Purpose::Sweep) => v1::TransactionPurpose::Sweep,
        Some(Purpose::Payout) => v1::TransactionPurpose::Payout,
        None if info.sent == bitcoin::Amount::ZERO => v1::TransactionPurpose::Receive,
        None => v1::TransactionPurpose::Unspecified,
    };
    let depth = |height: u32| (tip_height + 1).saturating_sub(height).max(1);
    v1::WalletTransaction {
        txid: txid_bytes(info.txid),
        raw: bitcoin::consensus::encode::serialize(&*info.transaction),
        purpose: purpose.into(),
        spent_sat: info.sent.to_sat(),
        received_sat: info.received.to_sat(),
        fee_sat: info.fee.map(bitcoin::Amount::to_sat),
        block_height: info.confirmed_in.map(|block| block.height),
        block_hash: info.confirmed_in.map(|block| block_hash_bytes(block.hash)),
        confirmations: info.confirmed_in.map_or(0, |block| depth(block.height)),
        first_seen_unix_ms: info.first_seen_seconds.saturating_mul(1_000),
        replaced_by_txid: info.replaced_by.map(txid_bytes),
    }
}

fn unspent(coin: &UnspentCoin, network: bitcoin::Network) -> v1::Unspent {
    v1::Unspent {
        outpoint: Some(outpoint(coin.outpoint)),
        value_sat: coin.txout.value.to_sat(),
        address: Address::from_script(&coin.txout.script_pubkey, network)
            .map(|address| address.to_string())
            .unwrap_or_default(),
        confirmations: coin.confirmations,
        locked: coin.held_by.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, BlockHash, ScriptBuf, Transaction, TxOut, Txid};

    use super::*;
    use crate::chain::BlockRef;
    use crate::wallet::CoinState;

    fn info(byte: u8, height: Option<u32>) -> TransactionInfo {
        let transaction = Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: Vec::new(),
            output: Vec::new(),
        };
        TransactionInfo {
            txid: Txid::from_byte_array([byte; 32]),
            transaction: Arc::new(transaction),
            sent: Amount::ZERO,
            received: Amount::from_sat(7),
            fee: None,
            confirmed_in: height
                .map(|height| BlockRef { height, hash: BlockHash::from_byte_array([9; 32]) }),
            purpose: None,
            first_seen_seconds: 3,
            replaced_by: None,
        }
    }

    #[test]
    fn unconfirmed_come_first_then_the_newest() {
        let mut all = [info(1, Some(5)), info(2, None), info(3, Some(8)), info(4, None)];
        all.sort_by_key(place);
        let order: Vec<u8> = all.iter().map(|info| info.txid.to_byte_array()[0]).collect();
        assert_eq!(order, [2, 4, 3, 1]);
    }

    #[test]
    fn a_transaction_counts_the_block_it_is_in() {
        let written = transaction(&info(1, Some(5)), 5);
        assert_eq!((written.confirmations, written.block_height), (1, Some(5)));
        assert_eq!(transaction(&info(1, Some(5)), 10).confirmations, 6);
        let pending = transaction(&info(1, None), 10);
        assert_eq!((pending.confirmations, &pending.block_hash), (0, &None));
        assert_eq!(pending.purpose(), v1::TransactionPurpose::Receive);
        assert_eq!((pending.received_sat, pending.first_seen_unix_ms), (7, 3_000));
    }

    #[test]
    fn coins_come_largest_first() {
        let coin = |sat, vout| UnspentCoin {
            outpoint: OutPoint { txid: Txid::from_byte_array([1; 32]), vout },
            txout: TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::new() },
            confirmations: 1,
            state: CoinState::Confirmed,
            held_by: None,
        };
        let mut coins = [coin(5, 2), coin(9, 1), coin(5, 0)];
        coins.sort_by_key(coin_place);
        let order: Vec<u32> = coins.iter().map(|coin| coin.outpoint.vout).collect();
        assert_eq!(order, [1, 0, 2]);
    }

    #[test]
    fn a_request_to_send_names_an_amount_or_all() {
        use v1::send_request::Amount as A;
        let send = |amount| v1::SendRequest { amount, ..v1::SendRequest::default() };
        let read = |amount| send_coins(send(amount)).map(|send| send.amount);
        assert_eq!(read(Some(A::AmountSat(5))), Ok(SendAmount::Exact(Amount::from_sat(5))));
        assert_eq!(read(Some(A::All(true))), Ok(SendAmount::All));
        let refused = |amount| read(amount).unwrap_err().reason();
        assert_eq!(refused(Some(A::All(false))), Reason::FieldInvalid);
        assert_eq!(refused(None), Reason::AmountMissing);
        assert_eq!(refused(Some(A::AmountSat(u64::MAX))), Reason::AmountOutOfRange);
    }

    #[test]
    fn a_short_reserve_says_by_how_much() {
        let short = WalletBalance {
            confirmed: Amount::from_sat(30),
            reserved_for_anchors: Amount::from_sat(100),
            anchor_reserve_missing: Amount::from_sat(70),
            ..WalletBalance::default()
        };
        let written = reserve(&short);
        assert_eq!(
            (written.required_sat, written.available_sat, written.missing_sat),
            (100, 30, 70)
        );
        let whole = WalletBalance {
            confirmed: Amount::from_sat(500),
            anchor_reserve_missing: Amount::ZERO,
            ..short
        };
        let written = reserve(&whole);
        assert_eq!((written.available_sat, written.missing_sat), (500, 0));
    }
}
