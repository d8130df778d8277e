//! `batch withdraw`, `deposit`, `swaps`.

use proto::v1::{
    DepositRequest, GetSwapRequest, ListSwapsRequest, ListSwapsResponse, Swap, SwapState,
    WatchSwapRequest, WithdrawRequest,
};

use super::batches::PREFIX_LEN_MIN;
use super::channels::record_id;
use super::{money, pages};
use crate::args::{BatchDepositArgs, BatchWithdrawArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, swap};

pub async fn withdraw(
    client: &Client,
    out: Output,
    args: BatchWithdrawArgs,
) -> Result<(), CliError> {
    let key = args.swap.mutation.key();
    let request = WithdrawRequest {
        idempotency_key: key.clone(),
        amount_sat: args.amount.0,
        address: args.address,
        max_fee_sat: args.swap.max_fee.map(|fee| fee.0),
        channel_record_id: channel(client, args.swap.channel.as_deref()).await?,
    };
    let begun = money(client.batches().withdraw(request).await, &key)?;
    follow(client, out, begun, args.swap.wait).await
}

pub async fn deposit(client: &Client, out: Output, args: BatchDepositArgs) -> Result<(), CliError> {
    let key = args.swap.mutation.key();
    let request = DepositRequest {
        idempotency_key: key.clone(),
        amount_sat: args.amount.0,
        max_fee_sat: args.swap.max_fee.map(|fee| fee.0),
        feerate_sat_per_vb: args.feerate,
        channel_record_id: channel(client, args.swap.channel.as_deref()).await?,
    };
    let begun = money(client.batches().deposit(request).await, &key)?;
    follow(client, out, begun, args.swap.wait).await
}

pub async fn list(client: &Client, out: Output) -> Result<(), CliError> {
    let list = ListSwapsResponse { swaps: all(client).await?, next_page_token: None };
    out.answer(&list, |list| swap::list(&list.swaps))
}

pub async fn show(client: &Client, out: Output, wanted: &str) -> Result<(), CliError> {
    if wanted.len() < PREFIX_LEN_MIN {
        return Err(CliError::Usage(format!("give {PREFIX_LEN_MIN} digits of the id at least")));
    }
    let begins = wanted.to_lowercase();
    let all = all(client).await?.into_iter();
    let found: Vec<Swap> =
        all.filter(|swap| hex::encode(&swap.swap_id).starts_with(&begins)).collect();
    let swap_id = match &found[..] {
        [one] => one.swap_id.clone(),
        [] => {
            let none = format!("no swap begins with {wanted}; see `batch swaps`");
            return Err(CliError::Usage(none));
        }
        _ => return Err(CliError::Usage(format!("{wanted} means several; give more digits"))),
    };
    let one = client.batches().get_swap(GetSwapRequest { swap_id }).await?.into_inner();
    out.answer(&one, swap::one)
}

/// Says what was begun; with `wait`, each step until its end.
async fn follow(client: &Client, out: Output, begun: Swap, wait: bool) -> Result<(), CliError> {
    let mut last = begun;
    if wait {
        let request = WatchSwapRequest { swap_id: last.swap_id.clone() };
        let mut states = client.batches().watch_swap(request).await?.into_inner();
        while let Some(next) = states.message().await? {
            out.note(&swap::line(&next));
            last = next;
        }
    }
    out.answer(&last, swap::one)?;
    match last.state() {
        SwapState::Failed => Err(CliError::Failed(format!("nothing was paid: {}", last.detail))),
        SwapState::Refunded => Err(CliError::Failed("the output was taken back".into())),
        _ => Ok(()),
    }
}

async fn channel(client: &Client, text: Option<&str>) -> Result<Option<Vec<u8>>, CliError> {
    match text {
        Some(text) => record_id(client, text).await.map(Some),
        None => Ok(None),
    }
}

async fn all(client: &Client) -> Result<Vec<Swap>, CliError> {
    let (swaps, _none) = pages(u32::MAX, |page_size, page_token| async move {
        let request = ListSwapsRequest { page_size: Some(page_size), page_token };
        let page = client.batches().list_swaps(request).await?.into_inner();
        Ok((page.swaps, page.next_page_token))
    })
    .await?;
    Ok(swaps)
}
