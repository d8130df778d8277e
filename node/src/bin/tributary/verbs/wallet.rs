//! `wallet address`, `balance`, `send`, `bump`, `transactions`, `coins`.

use proto::v1::{
    BumpFeeRequest, GetBalanceRequest, ListTransactionsRequest, ListTransactionsResponse,
    ListUnspentRequest, ListUnspentResponse, NewAddressRequest, SendRequest, send_request::Amount,
};

use super::{money, note_cut, pages};
use crate::args::{WalletSendArgs, WalletVerb};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, table, text};

/// Runs a verb on the wallet.
pub async fn run(verb: WalletVerb, client: &Client, out: Output) -> Result<(), CliError> {
    match verb {
        WalletVerb::Address(mutation) => {
            let request = NewAddressRequest { idempotency_key: mutation.key() };
            let answer = client.wallet().new_address(request).await?;
            out.answer(&answer.into_inner(), |answer| answer.address.clone())
        }
        WalletVerb::Balance => {
            let balance = client.wallet().get_balance(GetBalanceRequest {}).await?;
            out.answer(&balance.into_inner(), text::balance)
        }
        WalletVerb::Send(args) => {
            let key = args.mutation.key();
            let request = send_request(args, key.clone());
            let tx = money(client.wallet().send(request).await, &key)?;
            out.answer(&tx, text::transaction)
        }
        WalletVerb::Bump { txid, feerate, mutation } => {
            let key = mutation.key();
            let request = BumpFeeRequest {
                idempotency_key: key.clone(),
                txid: txid.into(),
                feerate_sat_per_vb: feerate,
            };
            let tx = money(client.wallet().bump_fee(request).await, &key)?;
            out.answer(&tx, text::transaction)
        }
        WalletVerb::Transactions(list) => transactions(client, out, list.limit).await,
        WalletVerb::Coins(list) => coins(client, out, list.limit).await,
    }
}

fn send_request(args: WalletSendArgs, key: String) -> SendRequest {
    SendRequest {
        idempotency_key: key,
        address: args.address,
        amount: match args.amount {
            Some(amount) => Some(Amount::AmountSat(amount.0)),
            None => args.all.then_some(Amount::All(true)),
        },
        feerate_sat_per_vb: args.feerate,
        max_fee_sat: args.max_fee.map(|fee| fee.0),
    }
}

async fn transactions(client: &Client, out: Output, limit: u32) -> Result<(), CliError> {
    let (transactions, next_page_token) = pages(limit, |size, token| {
        let mut service = client.wallet();
        async move {
            let request = ListTransactionsRequest { page_size: Some(size), page_token: token };
            let page = service.list_transactions(request).await?.into_inner();
            Ok((page.transactions, page.next_page_token))
        }
    })
    .await?;
    let response = ListTransactionsResponse { transactions, next_page_token };
    out.answer(&response, |r| table::transactions(&r.transactions))?;
    note_cut(out, &response.next_page_token);
    Ok(())
}

async fn coins(client: &Client, out: Output, limit: u32) -> Result<(), CliError> {
    let (unspent, next_page_token) = pages(limit, |size, token| {
        let mut service = client.wallet();
        async move {
            let request = ListUnspentRequest { page_size: Some(size), page_token: token };
            let page = service.list_unspent(request).await?.into_inner();
            Ok((page.unspent, page.next_page_token))
        }
    })
    .await?;
    let response = ListUnspentResponse { unspent, next_page_token };
    out.answer(&response, |r| table::coins(&r.unspent))?;
    note_cut(out, &response.next_page_token);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    #[test]
    fn everything_is_only_sent_when_said() {
        let amount = |words: &str| {
            let words =
                ["tributary", "wallet", "send", "bcrt1q"].into_iter().chain(words.split(' '));
            match Cli::try_parse_from(words).unwrap().verb {
                Verb::Wallet(WalletVerb::Send(args)) => send_request(args, "k".to_owned()).amount,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(amount("0.01btc"), Some(Amount::AmountSat(1_000_000)));
        assert_eq!(amount("0"), Some(Amount::AmountSat(0)));
        assert_eq!(amount("--all"), Some(Amount::All(true)));
    }
}
