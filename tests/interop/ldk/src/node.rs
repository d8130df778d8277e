//! The methods: each converts, calls ldk-node once or twice, and converts back.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use ldk_node::bitcoin::Network;
use ldk_node::bitcoin::secp256k1::PublicKey;
use ldk_node::config::Config;
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::lightning::offers::offer::Offer;
use ldk_node::lightning::routing::gossip::NodeId;
use ldk_node::lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};
use ldk_node::lightning_types::payment::{PaymentHash, PaymentPreimage};
use ldk_node::logger::LogLevel;
use ldk_node::payment::{PaymentDirection, PaymentKind, PaymentStatus};
use ldk_node::{Builder, Event, LightningBalance, Node, PendingSweepBalance, UserChannelId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Failure;
use crate::outcomes::Outcomes;

/// How long a payment may take.
const PAY_PATIENCE: Duration = Duration::from_secs(590);

/// How the node is set up.
#[derive(Debug, Deserialize)]
pub(crate) struct Settings {
    dir: String,
    alias: String,
    listen: String,
    rpc_host: String,
    rpc_port: u16,
    rpc_user: String,
    rpc_password: String,
}

/// A node that is served.
pub(crate) struct Served {
    node: Node,
    outcomes: Outcomes,
}

impl Served {
    /// Builds and starts the node.
    ///
    /// # Errors
    ///
    /// If ldk-node refuses.
    pub(crate) fn start(settings: &Settings) -> Result<Self, Failure> {
        let config = Config {
            storage_dir_path: settings.dir.clone(),
            network: Network::Regtest,
            listening_addresses: Some(vec![address(&settings.listen)?]),
            ..Config::default()
        };
        let mut builder = Builder::from_config(config);
        builder.set_node_alias(settings.alias.clone())?;
        builder.set_gossip_source_p2p();
        builder.set_filesystem_logger(None, Some(LogLevel::Info));
        builder.set_chain_source_bitcoind_rpc(
            settings.rpc_host.clone(),
            settings.rpc_port,
            settings.rpc_user.clone(),
            settings.rpc_password.clone(),
        );
        let node = builder.build()?;
        node.start()?;
        Ok(Self { node, outcomes: Outcomes::default() })
    }

    /// Stops the node in order.
    ///
    /// # Errors
    ///
    /// If ldk-node refuses.
    pub(crate) fn stop(&self) -> Result<(), Failure> {
        Ok(self.node.stop()?)
    }

    /// Takes events and confirms them, as ldk-node asks of every program, for ever.
    pub(crate) fn take_events(&self) {
        loop {
            match self.node.wait_next_event() {
                Event::PaymentSuccessful {
                    payment_id: Some(id),
                    payment_preimage,
                    fee_paid_msat,
                    ..
                } => {
                    let preimage = payment_preimage.map(|preimage| hex(&preimage.0));
                    let outcome = json!({ "preimage": preimage, "fee_msat": fee_paid_msat });
                    self.outcomes.ended(hex(&id.0), outcome);
                }
                Event::PaymentFailed { payment_id: Some(id), reason, .. } => {
                    self.outcomes.ended(hex(&id.0), json!({ "failed": format!("{reason:?}") }));
                }
                Event::PaymentClaimable { payment_hash, claimable_amount_msat, .. } => {
                    if self.outcomes.held(hex(&payment_hash.0), claimable_amount_msat)
                        && let Err(error) = self.node.bolt11_payment().fail_for_hash(payment_hash)
                    {
                        eprintln!("interop-ldk: a payment cannot be given back: {error}");
                    }
                }
                event => eprintln!("interop-ldk: {event:?}"),
            }
            if let Err(error) = self.node.event_handled() {
                eprintln!("interop-ldk: an event cannot be confirmed: {error}");
                return;
            }
        }
    }

    /// Answers one request.
    ///
    /// # Errors
    ///
    /// If a parameter is odd or ldk-node refuses.
    pub(crate) fn serve(&self, request: &Value) -> Result<Value, Failure> {
        let params = Params(&request["params"]);
        let method = request["method"].as_str().ok_or("no method")?;
        match method {
            "info" => {
                let height = self.node.status().current_best_block.height;
                Ok(json!({ "id": self.node.node_id().to_string(), "height": height }))
            }
            "balances" => self.balances(),
            "address" => Ok(json!(self.node.onchain_payment().new_address()?.to_string())),
            "connect" => {
                let to = address(params.text("address")?)?;
                self.node.connect(params.node("node")?, to, true)?;
                Ok(Value::Null)
            }
            "disconnect" => {
                self.node.disconnect(params.node("node")?)?;
                Ok(Value::Null)
            }
            "peers" => {
                let peers = self.node.list_peers().into_iter().filter(|peer| peer.is_connected);
                Ok(json!(peers.map(|peer| peer.node_id.to_string()).collect::<Vec<_>>()))
            }
            "open" => self.open(&params),
            "channels" => Ok(self.channels()),
            "close" => self.close(&params),
            "splice_in" => {
                let channel = self.user_channel(&params)?;
                self.node.splice_in(
                    &channel,
                    params.node("node")?,
                    params.number("amount_sat")?,
                )?;
                Ok(Value::Null)
            }
            "invoice" => self.invoice(&params),
            "held_msat" => Ok(json!(self.outcomes.held_msat(params.text("hash")?))),
            "settle" => self.settle(&params),
            "cancel" => {
                let hash = PaymentHash(bytes32(params.text("hash")?)?);
                if self.outcomes.withdraw(params.text("hash")?) {
                    self.node.bolt11_payment().fail_for_hash(hash)?;
                }
                Ok(Value::Null)
            }
            "offer" => {
                let offers = self.node.bolt12_payment();
                let amount_msat = params.number("amount_msat")?;
                let offer = offers.receive(amount_msat, "interop", None, None)?;
                Ok(json!(offer.to_string()))
            }
            "pay" => self.pay(&params),
            "payments" => Ok(self.payments()),
            "reaches" => Ok(json!(self.reaches(params.node("node")?))),
            other => Err(format!("no method {other}").into()),
        }
    }

    fn balances(&self) -> Result<Value, Failure> {
        let balances = self.node.list_balances();
        let channels = self.node.list_channels();
        let open_ids: Vec<_> = channels.iter().map(|channel| channel.channel_id).collect();
        // HTLCs of open channels are listed like those of closed ones.
        let of_closed = |balance: &&LightningBalance| !open_ids.contains(&channel_of(balance));
        let closings = balances.lightning_balances.iter().filter(of_closed).count();
        // What is swept and confirmed stays on the list for weeks.
        let unswept = balances.pending_balances_from_channel_closures.iter().filter(|sweep| {
            !matches!(sweep, PendingSweepBalance::AwaitingThresholdConfirmations { .. })
        });
        Ok(json!({
            "total_sat": balances.total_onchain_balance_sats,
            "spendable_sat": balances.spendable_onchain_balance_sats,
            "reserve_sat": balances.total_anchor_channels_reserve_sats,
            "closings": closings,
            "sweeps": unswept.count(),
        }))
    }

    fn open(&self, params: &Params<'_>) -> Result<Value, Failure> {
        let (peer, to) = (params.node("node")?, address(params.text("address")?)?);
        let capacity = params.number("capacity_sat")?;
        let push = Some(params.number("push_sat")? * 1_000);
        let id = if params.0["public"] == true {
            self.node.open_announced_channel(peer, to, capacity, push, None)?
        } else {
            self.node.open_channel(peer, to, capacity, push, None)?
        };
        Ok(json!(id.0.to_string()))
    }

    fn channels(&self) -> Value {
        let channels = self.node.list_channels().into_iter();
        channels
            .map(|channel| {
                let reserve = channel.unspendable_punishment_reserve.unwrap_or_default();
                json!({
                    "id": channel.user_channel_id.0.to_string(),
                    "peer": channel.counterparty_node_id.to_string(),
                    "funding": channel.funding_txo.map(|o| (o.txid.to_string(), o.vout)),
                    "active": channel.is_usable,
                    "local_msat": channel.outbound_capacity_msat + reserve * 1_000,
                    "sendable_msat": channel.next_outbound_htlc_limit_msat,
                })
            })
            .collect()
    }

    fn user_channel(&self, params: &Params<'_>) -> Result<UserChannelId, Failure> {
        Ok(UserChannelId(params.text("channel")?.parse()?))
    }

    fn close(&self, params: &Params<'_>) -> Result<Value, Failure> {
        let (channel, peer) = (self.user_channel(params)?, params.node("node")?);
        if params.0["force"] == true {
            self.node.force_close_channel(&channel, peer, None)?;
        } else {
            self.node.close_channel(&channel, peer)?;
        }
        Ok(Value::Null)
    }

    fn invoice(&self, params: &Params<'_>) -> Result<Value, Failure> {
        let about = Bolt11InvoiceDescription::Direct(Description::new("interop".to_owned())?);
        let amount = params.number("amount_msat")?;
        let expiry = u32::try_from(params.number("expiry_seconds")?)?;
        let receive = self.node.bolt11_payment();
        let invoice = match params.0["hash"].as_str() {
            Some(hash) => {
                let hash = PaymentHash(bytes32(hash)?);
                receive.receive_for_hash(amount, &about, expiry, hash)?
            }
            None => receive.receive(amount, &about, expiry)?,
        };
        let hash = invoice.payment_hash().to_string();
        Ok(json!({ "bolt11": invoice.to_string(), "hash": hash }))
    }

    fn settle(&self, params: &Params<'_>) -> Result<Value, Failure> {
        let hash = params.text("hash")?;
        let preimage = PaymentPreimage(bytes32(params.text("preimage")?)?);
        let held = self.outcomes.held_msat(hash).ok_or("nothing is held for this hash")?;
        self.node.bolt11_payment().claim_for_hash(PaymentHash(bytes32(hash)?), held, preimage)?;
        Ok(Value::Null)
    }

    fn pay(&self, params: &Params<'_>) -> Result<Value, Failure> {
        let sent = if let Some(invoice) = params.0["invoice"].as_str() {
            let invoice = Bolt11Invoice::from_str(invoice).map_err(|e| format!("{e:?}"))?;
            match params.0["amount_msat"].as_u64() {
                Some(amount) => {
                    self.node.bolt11_payment().send_using_amount(&invoice, amount, None)
                }
                None => self.node.bolt11_payment().send(&invoice, None),
            }
        } else if let Some(offer) = params.0["offer"].as_str() {
            let offer = Offer::from_str(offer).map_err(|error| format!("{error:?}"))?;
            self.node.bolt12_payment().send(&offer, None, None, None)
        } else {
            let amount_msat = params.number("amount_msat")?;
            self.node.spontaneous_payment().send(amount_msat, params.node("node")?, None)
        };
        match sent {
            Ok(id) => self.outcomes.wait(&hex(&id.0), PAY_PATIENCE),
            // What ldk-node refuses to begin, it refuses for good.
            Err(error) => Ok(json!({ "failed": error.to_string() })),
        }
    }

    fn payments(&self) -> Value {
        let payments = self.node.list_payments().into_iter();
        let mut sums: HashMap<&str, (u64, u64)> = HashMap::new();
        let mut received: HashMap<String, u64> = HashMap::new();
        for payment in payments {
            let amount_msat = payment.amount_msat.unwrap_or_default();
            let hash = match payment.kind {
                PaymentKind::Onchain { .. } => continue,
                PaymentKind::Bolt11 { hash, .. } | PaymentKind::Spontaneous { hash, .. } => {
                    Some(hash)
                }
                PaymentKind::Bolt12Offer { hash, .. } => hash,
                _ => None,
            };
            let sum = match (payment.direction, payment.status) {
                (PaymentDirection::Outbound, PaymentStatus::Succeeded) => "sent",
                (PaymentDirection::Outbound, PaymentStatus::Pending) => "in_flight",
                (PaymentDirection::Inbound, PaymentStatus::Succeeded) => {
                    if let Some(hash) = hash {
                        received.insert(hash.to_string(), amount_msat);
                    }
                    "received"
                }
                _ => continue,
            };
            let sum = sums.entry(sum).or_default();
            *sum = (sum.0 + 1, sum.1 + amount_msat);
        }
        json!({ "sums": sums, "received": received })
    }

    /// Whether a channel of `node` is announced with the terms of both sides, or is with us.
    fn reaches(&self, node: PublicKey) -> bool {
        let graph = self.node.network_graph();
        let known = graph.node(&NodeId::from_pubkey(&node));
        let mut channels = known.into_iter().flat_map(|known| known.channels);
        let both_ways = channels.any(|id| {
            graph.channel(id).is_some_and(|c| c.one_to_two.is_some() && c.two_to_one.is_some())
        });
        let direct = |c: &ldk_node::ChannelDetails| c.counterparty_node_id == node && c.is_usable;
        both_ways || self.node.list_channels().iter().any(direct)
    }
}

fn channel_of(balance: &LightningBalance) -> ldk_node::lightning::ln::types::ChannelId {
    use LightningBalance as B;
    match balance {
        B::ClaimableOnChannelClose { channel_id, .. }
        | B::ClaimableAwaitingConfirmations { channel_id, .. }
        | B::ContentiousClaimable { channel_id, .. }
        | B::MaybeTimeoutClaimableHTLC { channel_id, .. }
        | B::MaybePreimageClaimableHTLC { channel_id, .. }
        | B::CounterpartyRevokedOutputClaimable { channel_id, .. } => *channel_id,
    }
}

/// Parameters of a request.
struct Params<'a>(&'a Value);

impl Params<'_> {
    fn text(&self, name: &str) -> Result<&str, Failure> {
        self.0[name].as_str().ok_or_else(|| format!("{name} is no text").into())
    }

    fn number(&self, name: &str) -> Result<u64, Failure> {
        self.0[name].as_u64().ok_or_else(|| format!("{name} is no number").into())
    }

    fn node(&self, name: &str) -> Result<PublicKey, Failure> {
        Ok(self.text(name)?.parse()?)
    }
}

fn address(text: &str) -> Result<SocketAddress, Failure> {
    SocketAddress::from_str(text).map_err(|error| format!("{text}: {error:?}").into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes32(text: &str) -> Result<[u8; 32], Failure> {
    let byte = |at: usize| text.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    let bytes = bytes.ok_or_else(|| format!("{text} is no hex"))?;
    bytes.try_into().map_err(|_| format!("{text} has not 32 bytes").into())
}
