//! `tributary.v1.Channels`: open, watch, price and close channels.
//!
//! What a channel looks like to a caller is in `channel_view.rs`.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, Network, ScriptBuf};
use futures::stream;
use proto::v1;
use tonic::{Request, Response, Status};

use super::auth::Caller;
use super::channel_view::{channel, state};
use super::convert::{channel_ref, idempotency_key, known, node_id, within};
use super::gate::unbounded;
use super::mutation::{once, to_the_end};
use super::page::{self, Answers, List};
use super::server::{Door, RpcParts, stopping};
use super::status::{Reason, Refusal};
use crate::batches::JoinRequest;
use crate::channels::{
    ChannelRecord, ChannelState, ChannelWatch, CloseError, OpenError, OpenRequest,
};
use crate::journal::IdempotencyKey;
use crate::lightning::types::{ChannelRef, NodeId};
use crate::lightning::{ChannelSnapshot, ForwardingFees};

/// Blocks a hop may ask for: below, its HTLCs cannot be claimed in time; above, payers refuse.
const CLTV_EXPIRY_DELTA: std::ops::RangeInclusive<u32> = 36..=2_016;
/// How often a watch looks whether the peer came or went, or a claim was done: neither is a
/// recorded event.
const LOOK: Duration = Duration::from_secs(1);

/// The service.
pub(super) struct ChannelsService {
    door: Door,
}

impl ChannelsService {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl v1::channels_server::Channels for ChannelsService {
    async fn open(
        &self,
        request: Request<v1::OpenChannelRequest>,
    ) -> Result<Response<v1::Channel>, Status> {
        let purse = Caller::of(&request)?.purse();
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("OpenChannel", &request.idempotency_key)?;
        if request.funding() == v1::FundingKind::Batch {
            if purse.is_some() {
                return Err(unbounded("tributary.v1.Channels/Open with funding BATCH").into());
            }
            return open_in_batch(parts, request, key).await;
        }
        let open = open_request(request)?;
        let shared = Arc::clone(&parts);
        let view = to_the_end(&parts.tasks, async move {
            if let Some(first) = shared.channels.repetition(&open, Some(&key)).await? {
                return Ok(first);
            }
            shared.require_synced()?;
            Ok(shared.channels.request_open_from(open, Some(&key), purse.as_ref()).await?)
        })
        .await?;
        Ok(Response::new(channel(&parts.lightning, &view)))
    }

    type WatchStream = Answers<v1::Channel>;

    async fn watch(
        &self,
        request: Request<v1::WatchChannelRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let parts = self.door.parts()?;
        let id = channel_ref("record_id", &request.into_inner().record_id)?;
        let watch = parts.channels.watch(id).ok_or_else(|| unknown(id))?;
        let follow = Follow { parts, id, watch, shown: None };
        let states = stream::try_unfold(follow, |mut follow| async move {
            Ok(follow.next().await?.map(|channel| (channel, follow)))
        });
        Ok(Response::new(Box::pin(states)))
    }

    async fn list(
        &self,
        request: Request<v1::ListChannelsRequest>,
    ) -> Result<Response<v1::ListChannelsResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let filter = filter(request.filter)?;
        let size = page::size(request.page_size)?;
        let from = page::position(List::Channels, &filter, request.page_token.as_deref())?;
        let (channels, next) = list(&parts, &filter, from, size).await?;
        let next_page_token = next.map(|next| page::token(List::Channels, &filter, &next));
        Ok(Response::new(v1::ListChannelsResponse { channels, next_page_token }))
    }

    type ExportStream = Answers<v1::Channel>;

    async fn export(
        &self,
        request: Request<v1::ExportChannelsRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let filter = Arc::new(filter(request.into_inner().filter)?);
        let door = self.door.clone();
        door.parts()?;
        Ok(Response::new(page::export(move |from| {
            let (door, filter) = (door.clone(), Arc::clone(&filter));
            async move { list(&*door.parts()?, &filter, from, page::SIZE_MAX as usize).await }
        })))
    }

    async fn get(
        &self,
        request: Request<v1::GetChannelRequest>,
    ) -> Result<Response<v1::Channel>, Status> {
        let parts = self.door.parts()?;
        let id = channel_ref("record_id", &request.into_inner().record_id)?;
        Ok(Response::new(look_up(&parts, id).await?))
    }

    async fn close(
        &self,
        request: Request<v1::CloseChannelRequest>,
    ) -> Result<Response<v1::Channel>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("CloseChannel", &request.idempotency_key)?;
        let id = channel_ref("record_id", &request.record_id)?;
        if request.force && (request.address.is_some() || request.feerate_sat_per_vb.is_some()) {
            let field = if request.address.is_some() { "address" } else { "feerate_sat_per_vb" };
            let problem = "cannot be chosen when closing by force; leave it out";
            return Err(Refusal::field(field, problem).into());
        }
        let address = request.address.as_deref();
        let script = address.map(|text| script(text, parts.facts.network)).transpose()?;
        let feerate = feerate(request.feerate_sat_per_vb)?;
        let force = request.force;
        let shared = Arc::clone(&parts);
        let work = async move {
            match shared.channels.close(id, force, script, feerate).await {
                // A crash may have come between the close and the record of its key: what is
                // closed at its operator's wish is answered again, not refused.
                Err(CloseError::WrongState { state: ChannelState::Closed })
                    if shared.channels.recorded(id).is_some_and(|c| c.close_requested) => {}
                closed => drop(closed?),
            }
            Ok(())
        };
        once(&parts, key, &request, work, async { Ok(()) }).await?;
        Ok(Response::new(look_up(&parts, id).await?))
    }

    async fn update_policy(
        &self,
        request: Request<v1::UpdatePolicyRequest>,
    ) -> Result<Response<v1::Channel>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("UpdatePolicy", &request.idempotency_key)?;
        let id = channel_ref("record_id", &request.record_id)?;
        let base = request.fee_base_msat;
        let ppm = request.fee_proportional_millionths.map(ppm).transpose()?;
        let delta = request.cltv_expiry_delta.map(cltv_expiry_delta).transpose()?;
        let shared = Arc::clone(&parts);
        let work = async move {
            shared.channels.update_policy(id, base, ppm, delta).await?;
            Ok(())
        };
        once(&parts, key, &request, work, async { Ok(()) }).await?;
        Ok(Response::new(look_up(&parts, id).await?))
    }
}

/// Opens a channel in the next batch of the peer, a hub: what follows is shown by the channel, and
/// in more steps by the wish.
async fn open_in_batch(
    parts: Arc<RpcParts>,
    request: v1::OpenChannelRequest,
    key: IdempotencyKey,
) -> Result<Response<v1::Channel>, Status> {
    let (join, address) = batch_request(request)?;
    let shared = Arc::clone(&parts);
    let id = to_the_end(&parts.tasks, async move {
        let first = shared.batches.repetition(&join, Some(&key)).await?;
        let view = match first {
            Some(first) => first,
            None => {
                shared.require_synced()?;
                if let Some(address) = address {
                    let connected = shared.lightning.connect(join.hub, &address).await;
                    connected.map_err(|error| Refusal::from(OpenError::from(error)))?;
                }
                shared.batches.join(&join, Some(&key)).await?
            }
        };
        view.channel.ok_or_else(|| Refusal::new(Reason::Internal, "the wish has no channel"))
    })
    .await?;
    Ok(Response::new(look_up(&parts, id).await?))
}

/// What a request for a channel of a batch asks for. The hub funds it, so much of an ordinary
/// request has no meaning.
fn batch_request(
    request: v1::OpenChannelRequest,
) -> Result<(JoinRequest, Option<String>), Refusal> {
    let unsupported = |field: &'static str| {
        let message = format_args!(
            "{field} has no meaning where a batch of the peer funds the channel; leave it out"
        );
        Err(Refusal::new(Reason::FundingUnsupported, message).with("field", field))
    };
    if request.push_msat > 0 {
        return unsupported("push_msat");
    }
    if request.public {
        return unsupported("public");
    }
    if request.feerate_sat_per_vb.is_some() {
        return unsupported("feerate_sat_per_vb");
    }
    if request.policy.is_some() {
        return unsupported("policy");
    }
    let capacity = Amount::from_sat(request.capacity_sat);
    let hub = node_id("node_id", &request.node_id)?;
    Ok((JoinRequest { hub, capacity, inbound: capacity }, request.address))
}

fn open_request(request: v1::OpenChannelRequest) -> Result<OpenRequest, Refusal> {
    let fees = request
        .policy
        .map(|policy| {
            Ok::<_, Refusal>(ForwardingFees {
                base_msat: policy.fee_base_msat,
                ppm: ppm(policy.fee_proportional_millionths)?,
                cltv_expiry_delta: cltv_expiry_delta(policy.cltv_expiry_delta)?,
            })
        })
        .transpose()?;
    Ok(OpenRequest {
        peer: node_id("node_id", &request.node_id)?,
        address: request.address,
        capacity_sat: request.capacity_sat,
        push_msat: request.push_msat,
        announced: request.public,
        feerate_sat_per_vb: feerate(request.feerate_sat_per_vb)?,
        zero_reserve: request.zero_reserve,
        fees,
    })
}

fn ppm(ppm: u32) -> Result<u32, Refusal> {
    within(Reason::PolicyOutOfRange, "fee_proportional_millionths", ppm, 0..=1_000_000)
}

fn cltv_expiry_delta(blocks: u32) -> Result<u16, Refusal> {
    let blocks = within(Reason::PolicyOutOfRange, "cltv_expiry_delta", blocks, CLTV_EXPIRY_DELTA)?;
    Ok(u16::try_from(blocks).expect("the range ends below 65,536"))
}

/// Reads a feerate in sat/vB.
pub(super) fn feerate(sat_per_vb: Option<u64>) -> Result<Option<u64>, Refusal> {
    sat_per_vb
        .map(|rate| within(Reason::FeerateOutOfRange, "feerate_sat_per_vb", rate, 1..=10_000))
        .transpose()
}

/// Reads an address of `network`.
fn script(text: &str, network: Network) -> Result<ScriptBuf, Refusal> {
    let address = Address::<NetworkUnchecked>::from_str(text.trim()).map_err(|error| {
        Refusal::new(Reason::AddressInvalid, format_args!("address cannot be read: {error}"))
            .with("address", text)
    })?;
    let address = address.require_network(network).map_err(|_| {
        Refusal::new(Reason::WrongNetwork, format_args!("address is not on {network}"))
            .with("address", text)
            .with("network", network)
    })?;
    Ok(address.script_pubkey())
}

fn unknown(id: ChannelRef) -> Refusal {
    Refusal::new(Reason::ChannelUnknown, format_args!("no channel {id}")).with("record_id", id)
}

async fn look_up(parts: &RpcParts, id: ChannelRef) -> Result<v1::Channel, Refusal> {
    let view = parts.channels.look_up(id).await?.ok_or_else(|| unknown(id))?;
    Ok(channel(&parts.lightning, &view))
}

/// Which channels, checked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    states: States,
    peer: Option<NodeId>,
    public: Option<bool>,
}

/// States in the order given; a set would print in another order each time, and page tokens
/// are bound to what prints.
type States = Vec<v1::ChannelState>;

impl Filter {
    fn takes(
        &self,
        parts: &RpcParts,
        record: &ChannelRecord,
        live: Option<&ChannelSnapshot>,
    ) -> bool {
        self.peer.is_none_or(|peer| peer == record.peer)
            && self.public.is_none_or(|public| public == record.announced)
            && (self.states.is_empty()
                || self.states.contains(&state(&parts.lightning, record, live)))
    }
}

fn filter(filter: Option<v1::ChannelFilter>) -> Result<Filter, Refusal> {
    let Some(filter) = filter else {
        return Ok(Filter::default());
    };
    let mut seen = HashSet::new();
    let mut states = Vec::new();
    for value in filter.states {
        if seen.insert(value) {
            states.push(known("states", value)?);
        }
    }
    let peer = filter.counterparty_node_id;
    Ok(Filter {
        states,
        peer: peer.map(|id| node_id("counterparty_node_id", &id)).transpose()?,
        public: filter.public,
    })
}

async fn list(
    parts: &RpcParts,
    filter: &Filter,
    from: Option<Vec<u8>>,
    size: usize,
) -> Result<(Vec<v1::Channel>, Option<Vec<u8>>), Refusal> {
    let after = page::own_position(from)?.map(ChannelRef);
    let takes =
        |record: &ChannelRecord, live: Option<&ChannelSnapshot>| filter.takes(parts, record, live);
    let page = parts.channels.list(takes, after, size).await?;
    let channels = page.channels.iter().map(|view| channel(&parts.lightning, view)).collect();
    Ok((channels, page.next.map(|last| last.0.to_vec())))
}

/// One watch under way.
struct Follow {
    parts: Arc<RpcParts>,
    id: ChannelRef,
    watch: ChannelWatch,
    /// What was sent last.
    shown: Option<v1::Channel>,
}

impl Follow {
    /// The next state to send; `None` after the final one.
    async fn next(&mut self) -> Result<Option<v1::Channel>, Refusal> {
        let closed = v1::ChannelState::Closed;
        if self.shown.as_ref().is_some_and(|channel| channel.state() == closed) {
            return Ok(None);
        }
        if self.shown.is_some() {
            self.changed().await?;
        } else {
            self.watch.current().await?;
        }
        let channel = look_up(&self.parts, self.id).await?;
        self.shown = Some(channel.clone());
        Ok(Some(channel))
    }

    /// Waits until the record or what a caller sees of the state changes.
    async fn changed(&mut self) -> Result<(), Refusal> {
        let parts = Arc::clone(&self.parts);
        let mut record_can_change = true;
        loop {
            tokio::select! {
                biased;
                () = parts.tasks.stopped() => return Err(stopping()),
                next = self.watch.next(), if record_can_change => match next? {
                    Some(_) => return Ok(()),
                    // The record is closed; its money may still be on its way.
                    None => record_can_change = false,
                },
                () = tokio::time::sleep(LOOK) => {
                    let view = parts.channels.look_up(self.id).await?.ok_or_else(|| unknown(self.id))?;
                    let state = state(&parts.lightning, &view.record, view.live.as_ref());
                    if self.shown.as_ref().is_none_or(|shown| shown.state() != state) {
                        return Ok(());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> v1::OpenChannelRequest {
        let secp = bitcoin::secp256k1::Secp256k1::new();
        let key = bitcoin::secp256k1::SecretKey::from_slice(&[3; 32]).unwrap();
        v1::OpenChannelRequest {
            node_id: key.public_key(&secp).serialize().to_vec(),
            capacity_sat: 1_000_000,
            ..v1::OpenChannelRequest::default()
        }
    }

    fn refused(request: v1::OpenChannelRequest) -> Reason {
        open_request(request).unwrap_err().reason()
    }

    #[test]
    fn a_request_to_open_is_read_whole() {
        let policy = v1::ForwardingPolicy {
            fee_base_msat: 1,
            fee_proportional_millionths: 2,
            cltv_expiry_delta: 40,
        };
        let request = v1::OpenChannelRequest {
            address: Some("there:9735".into()),
            push_msat: 5,
            public: true,
            feerate_sat_per_vb: Some(3),
            zero_reserve: true,
            policy: Some(policy),
            ..open()
        };
        let read = open_request(request.clone()).unwrap();
        assert_eq!(read.peer.serialize().to_vec(), request.node_id);
        assert_eq!(read.capacity_sat, 1_000_000);
        assert_eq!((read.push_msat, read.announced, read.zero_reserve), (5, true, true));
        assert_eq!(read.feerate_sat_per_vb, Some(3));
        assert_eq!(read.address.as_deref(), Some("there:9735"));
        let fees = ForwardingFees { base_msat: 1, ppm: 2, cltv_expiry_delta: 40 };
        assert_eq!(read.fees, Some(fees));
    }

    #[test]
    fn a_request_to_open_is_refused_by_field() {
        assert_eq!(
            refused(v1::OpenChannelRequest { node_id: vec![2; 32], ..open() }),
            Reason::NodeIdInvalid
        );
        for rate in [0, 10_001] {
            let request = v1::OpenChannelRequest { feerate_sat_per_vb: Some(rate), ..open() };
            assert_eq!(refused(request), Reason::FeerateOutOfRange);
        }
        let batch = v1::OpenChannelRequest { funding: v1::FundingKind::Batch.into(), ..open() };
        assert_eq!(batch_request(batch.clone()).unwrap().0.capacity.to_sat(), batch.capacity_sat);
        for senseless in [
            v1::OpenChannelRequest { push_msat: 1, ..batch.clone() },
            v1::OpenChannelRequest { public: true, ..batch.clone() },
            v1::OpenChannelRequest { feerate_sat_per_vb: Some(2), ..batch.clone() },
            v1::OpenChannelRequest {
                policy: Some(v1::ForwardingPolicy::default()),
                ..batch.clone()
            },
        ] {
            let refusal = batch_request(senseless).unwrap_err();
            assert_eq!(refusal.reason(), Reason::FundingUnsupported);
        }
        let policy = v1::ForwardingPolicy { cltv_expiry_delta: 35, ..Default::default() };
        let request = v1::OpenChannelRequest { policy: Some(policy), ..open() };
        assert_eq!(refused(request), Reason::PolicyOutOfRange);
    }

    #[test]
    fn an_address_is_of_this_network_or_refused() {
        let regtest = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";
        assert!(script(regtest, Network::Regtest).unwrap().is_p2wpkh());
        let refused = |text, network| script(text, network).unwrap_err().reason();
        assert_eq!(refused(regtest, Network::Bitcoin), Reason::WrongNetwork);
        assert_eq!(refused("bcrt1qx", Network::Regtest), Reason::AddressInvalid);
    }

    #[test]
    fn a_filter_is_checked() {
        let states = vec![3, 3, 1];
        let read = filter(Some(v1::ChannelFilter { states, ..Default::default() })).unwrap();
        assert_eq!(read.states, [v1::ChannelState::Active, v1::ChannelState::Opening]);
        let odd = v1::ChannelFilter { states: vec![77], ..Default::default() };
        assert_eq!(filter(Some(odd)).unwrap_err().reason(), Reason::FieldInvalid);
    }
}
