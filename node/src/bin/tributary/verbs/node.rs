//! `info`, `peers`, `connect`, `disconnect`, `stop`.

use proto::v1::{
    ConnectPeerRequest, DisconnectPeerRequest, GetInfoRequest, ListPeersRequest, ListPeersResponse,
    StopRequest,
};

use super::{note_cut, pages};
use crate::args::{ConnectArgs, DisconnectArgs, ListArgs, MutationArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, table, text};

/// Shows the node.
pub async fn info(client: &Client, out: Output) -> Result<(), CliError> {
    let info = client.node().get_info(GetInfoRequest {}).await?;
    out.answer(&info.into_inner(), text::info)
}

/// Lists peers.
pub async fn peers(client: &Client, out: Output, args: &ListArgs) -> Result<(), CliError> {
    let (peers, next_page_token) = pages(args.limit, |size, token| {
        let mut service = client.node();
        async move {
            let request = ListPeersRequest { page_size: Some(size), page_token: token };
            let page = service.list_peers(request).await?.into_inner();
            Ok((page.peers, page.next_page_token))
        }
    })
    .await?;
    let response = ListPeersResponse { peers, next_page_token };
    out.answer(&response, |r| table::peers(&r.peers))?;
    note_cut(out, &response.next_page_token);
    Ok(())
}

/// Connects to a peer.
pub async fn connect(client: &Client, out: Output, args: ConnectArgs) -> Result<(), CliError> {
    let request = ConnectPeerRequest {
        idempotency_key: args.mutation.key(),
        node_id: args.peer.node_id.into(),
        address: args.peer.address.unwrap_or_default(),
        keep: !args.once,
    };
    let peer = client.node().connect_peer(request).await?.into_inner();
    out.answer(&peer, |peer| table::peers(std::slice::from_ref(peer)))
}

/// Closes the connection to a peer.
pub async fn disconnect(
    client: &Client,
    out: Output,
    args: DisconnectArgs,
) -> Result<(), CliError> {
    let request = DisconnectPeerRequest {
        idempotency_key: args.mutation.key(),
        node_id: args.node_id.into(),
    };
    let answer = client.node().disconnect_peer(request).await?;
    out.answer(&answer.into_inner(), |_| "disconnected".to_owned())
}

/// Stops the node.
pub async fn stop(client: &Client, out: Output, args: &MutationArgs) -> Result<(), CliError> {
    let request = StopRequest { idempotency_key: args.key() };
    let answer = client.node().stop(request).await?;
    out.answer(&answer.into_inner(), |_| "the node is stopping".to_owned())
}
