//! `batch quote`, `join`, `list`, `show`, `watch`, `export`, `verify`, `exit`, `release`, `hosted`.
//! What a hub's operator does by hand is in `hub.rs`, withdrawals and deposits in `swaps.rs`.

use std::path::Path;

use bitcoin::{Amount, ScriptBuf, TxOut};
use node::batches::PathFile;
use proto::v1::{
    BatchMembership, ConnectPeerRequest, EstimateBatchExitRequest, ExitBatchRequest,
    GetBatchRequest, HostedBatch, JoinBatchRequest, ListBatchesRequest, ListBatchesResponse,
    ListHostedBatchesRequest, ListHostedBatchesResponse, MembershipState, ReleaseBatchRequest,
    WatchBatchRequest,
};

use super::{hub, money, pages, swaps};
use crate::args::{BatchExitArgs, BatchJoinArgs, BatchQuoteArgs, BatchVerb};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, batch};

/// Digits of an id that are enough to look for it.
pub(super) const PREFIX_LEN_MIN: usize = 4;

/// Runs a verb on batches.
pub async fn run(verb: BatchVerb, client: &Client, out: Output) -> Result<(), CliError> {
    match verb {
        BatchVerb::Quote(args) => quote(client, out, &args).await,
        BatchVerb::Join(args) => join(client, out, args).await,
        BatchVerb::List => {
            let list =
                ListBatchesResponse { memberships: all(client).await?, next_page_token: None };
            out.answer(&list, |list| batch::memberships(&list.memberships))
        }
        BatchVerb::Show { wish } => {
            let membership = get(client, &wish).await?;
            out.answer(&membership, batch::membership)
        }
        BatchVerb::Watch { wish } => {
            let registration_id = registration(client, &wish).await?;
            watch(client, out, registration_id).await
        }
        BatchVerb::Export { wish, file } => export(client, out, &wish, &file).await,
        BatchVerb::Verify { .. } => unreachable!("run takes it before a node is dialled"),
        BatchVerb::Exit(args) => exit(client, out, args).await,
        BatchVerb::Release { wish, mutation } => {
            let registration_id = registration(client, &wish).await?;
            let key = mutation.key();
            let request = ReleaseBatchRequest { idempotency_key: key.clone(), registration_id };
            let membership = money(client.batches().release(request).await, &key)?;
            out.answer(&membership, batch::membership)
        }
        BatchVerb::Withdraw(args) => swaps::withdraw(client, out, args).await,
        BatchVerb::Deposit(args) => swaps::deposit(client, out, args).await,
        BatchVerb::Swaps { swap: None } => swaps::list(client, out).await,
        BatchVerb::Swaps { swap: Some(swap) } => swaps::show(client, out, &swap).await,
        BatchVerb::Open { gather, mutation } => hub::open(client, out, gather, &mutation).await,
        BatchVerb::Close { batch, mutation } => hub::close(client, out, &batch, &mutation).await,
        BatchVerb::Policy(args) => hub::policy(client, out, &args).await,
        BatchVerb::Hosted => {
            let batches = all_hosted(client).await?;
            let list = ListHostedBatchesResponse { batches, next_page_token: None };
            out.answer(&list, |list| batch::hosted(&list.batches))
        }
    }
}

async fn quote(client: &Client, out: Output, args: &BatchQuoteArgs) -> Result<(), CliError> {
    let request =
        EstimateBatchExitRequest { capacity_sat: args.capacity.0, users: Some(args.users) };
    let quote = client.batches().estimate_exit(request).await?.into_inner();
    out.answer(&quote, |quote| batch::quote(quote, args.capacity.0))
}

async fn join(client: &Client, out: Output, args: BatchJoinArgs) -> Result<(), CliError> {
    let capacity_sat = args.capacity.0;
    // What leaving may cost is told before anything is agreed on.
    let request = EstimateBatchExitRequest { capacity_sat, users: None };
    let quote = client.batches().estimate_exit(request).await?.into_inner();
    out.note(&batch::quote(&quote, capacity_sat));
    let hub_node_id = Vec::from(args.hub.node_id);
    if let Some(address) = args.hub.address {
        let idempotency_key = format!("connect-{}", args.mutation.key());
        let node_id = hub_node_id.clone();
        let request = ConnectPeerRequest { idempotency_key, node_id, address, keep: true };
        client.node().connect_peer(request).await?;
    }
    let key = args.mutation.key();
    let request = JoinBatchRequest {
        idempotency_key: key.clone(),
        hub_node_id,
        capacity_sat,
        inbound_sat: args.inbound.map(|inbound| inbound.0),
    };
    let mut membership = money(client.batches().join(request).await, &key)?;
    if args.wait {
        let id = membership.registration_id.clone();
        let ends = [MembershipState::Confirmed, MembershipState::Over, MembershipState::Dropped];
        membership = watch_until(client, out, id, &ends).await?.unwrap_or(membership);
    }
    out.answer(&membership, batch::membership)?;
    match membership.state() {
        MembershipState::Over | MembershipState::Dropped => {
            Err(CliError::Failed(format!("no channel came of it: {}", membership.detail)))
        }
        _ => Ok(()),
    }
}

async fn exit(client: &Client, out: Output, args: BatchExitArgs) -> Result<(), CliError> {
    let registration_id = registration(client, &args.wish).await?;
    let key = args.mutation.key();
    let request =
        ExitBatchRequest { idempotency_key: key.clone(), registration_id: registration_id.clone() };
    let mut membership = money(client.batches().exit(request).await, &key)?;
    if args.wait {
        let unrolled = [MembershipState::Unrolled];
        let last = watch_until(client, out, registration_id, &unrolled).await?;
        membership = last.unwrap_or(membership);
    }
    out.answer(&membership, batch::membership)
}

/// Says each step until the channel is in one of `ends`, or nothing can change any more.
async fn watch_until(
    client: &Client,
    out: Output,
    registration_id: Vec<u8>,
    ends: &[MembershipState],
) -> Result<Option<BatchMembership>, CliError> {
    let request = WatchBatchRequest { registration_id };
    let mut states = client.batches().watch(request).await?.into_inner();
    let mut last = None;
    while let Some(membership) = states.message().await? {
        out.note(&batch::line(&membership));
        let state = membership.state();
        last = Some(membership);
        if ends.contains(&state) {
            break;
        }
    }
    Ok(last)
}

async fn watch(client: &Client, out: Output, registration_id: Vec<u8>) -> Result<(), CliError> {
    let request = WatchBatchRequest { registration_id };
    let mut states = client.batches().watch(request).await?.into_inner();
    while let Some(membership) = states.message().await? {
        out.item(&membership, batch::line)?;
    }
    Ok(())
}

async fn export(client: &Client, out: Output, wish: &str, file: &Path) -> Result<(), CliError> {
    let membership = get(client, wish).await?;
    let path = membership.path.ok_or_else(|| {
        CliError::Failed(format!("there is no signed path yet: {}", membership.detail))
    })?;
    let output = |value_sat, script: Vec<u8>| TxOut {
        value: Amount::from_sat(value_sat),
        script_pubkey: ScriptBuf::from_bytes(script),
    };
    let file_of_path = PathFile::of_encoded(
        &path.encoded,
        output(path.root_value_sat, path.root_script),
        output(path.channel_value_sat, path.channel_script),
    )
    .map_err(|error| CliError::Failed(error.to_string()))?;
    std::fs::write(file, file_of_path.text())
        .map_err(|error| CliError::Failed(format!("cannot write {}: {error}", file.display())))?;
    out.note(&format!("written to {}; check it with `tributary batch verify`", file.display()));
    Ok(())
}

/// Checks a file of a path. Needs no node.
pub fn verify(out: Output, file: &Path) -> Result<(), CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| CliError::Usage(format!("cannot read {}: {error}", file.display())))?;
    let report = PathFile::read(&text)
        .and_then(|file| file.verify())
        .map_err(|error| CliError::Failed(error.to_string()))?;
    out.report(&report, batch::report)
}

/// Every wish.
async fn all(client: &Client) -> Result<Vec<BatchMembership>, CliError> {
    let (memberships, _none) = pages(u32::MAX, |page_size, page_token| async move {
        let request = ListBatchesRequest { page_size: Some(page_size), page_token };
        let page = client.batches().list(request).await?.into_inner();
        Ok((page.memberships, page.next_page_token))
    })
    .await?;
    Ok(memberships)
}

/// Every batch of this hub.
pub(super) async fn all_hosted(client: &Client) -> Result<Vec<HostedBatch>, CliError> {
    let (batches, _none) = pages(u32::MAX, |page_size, page_token| async move {
        let request = ListHostedBatchesRequest { page_size: Some(page_size), page_token };
        let page = client.batches().list_hosted(request).await?.into_inner();
        Ok((page.batches, page.next_page_token))
    })
    .await?;
    Ok(batches)
}

async fn get(client: &Client, wish: &str) -> Result<BatchMembership, CliError> {
    let registration_id = registration(client, wish).await?;
    Ok(client.batches().get(GetBatchRequest { registration_id }).await?.into_inner())
}

/// Finds a wish by its id or first digits.
async fn registration(client: &Client, wish: &str) -> Result<Vec<u8>, CliError> {
    if wish.len() < PREFIX_LEN_MIN {
        return Err(CliError::Usage(format!("give {PREFIX_LEN_MIN} digits of the id at least")));
    }
    let wanted = wish.to_lowercase();
    let mut found = all(client)
        .await?
        .into_iter()
        .filter(|membership| hex::encode(&membership.registration_id).starts_with(&wanted));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.registration_id),
        (Some(_), Some(_)) => {
            Err(CliError::Usage(format!("{wish} means several; give more digits")))
        }
        (None, _) => Err(CliError::Usage(format!("no wish begins with {wish}; see `batch list`"))),
    }
}
