//! One LDK node with nothing around it: real keys and real signatures, but no network, no store,
//! no log, and a route that is given rather than searched.
//!
//! What stands in for the rest of a node is `parts.rs`; messages between parties are `wire.rs`,
//! blocks are `chain.rs`.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Network, ScriptBuf, Transaction};
use lightning::chain::BlockLocator;
use lightning::chain::chainmonitor::ChainMonitor;
use lightning::events::{Event, EventsProvider};
use lightning::ln::channelmanager::{ChainParameters, ChannelManager, PaymentId};
use lightning::ln::outbound_payment::{RecipientOnionFields, Retry};
use lightning::ln::types::ChannelId;
use lightning::onion_message::messenger::NullMessageRouter;
use lightning::routing::router::{Path, RouteParameters};
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner, Recipient};
use lightning::util::config::{MaxDustHTLCExposure, UserConfig};
use node::lightning::ChannelPolicy;

use super::parts::{FixedFeerate, Forget, GivenRoute, NoFilter, Outbox, Silence};
use crate::Failure;

/// HTLCs that one side may have in flight: the most that a commitment without fee allows.
pub(crate) const HTLC_SLOTS: u16 = 114;
/// When the parties begin, in seconds since 1970. Blocks follow in time.
pub(crate) const GENESIS_TIME: u32 = 1_700_000_000;

type Monitors = ChainMonitor<
    InMemorySigner,
    Arc<NoFilter>,
    Arc<Outbox>,
    Arc<FixedFeerate>,
    Arc<Silence>,
    Arc<Forget>,
    Arc<KeysManager>,
>;
type Manager = ChannelManager<
    Arc<Monitors>,
    Arc<Outbox>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<FixedFeerate>,
    Arc<GivenRoute>,
    Arc<NullMessageRouter>,
    Arc<Silence>,
>;

/// What a party's events mean to a measurement.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A channel it opens waits for its funding transaction.
    FundingNeeded { temporary_id: ChannelId, peer: PublicKey, capacity_sat: u64, script: ScriptBuf },
    /// Its payment `number` arrived.
    Paid { number: u64, at: Instant, fee_msat: u64 },
    /// It forwarded a payment.
    Forwarded { fee_msat: u64 },
}

/// One LDK node.
pub(crate) struct Party {
    pub(crate) id: PublicKey,
    pub(crate) manager: Manager,
    pub(crate) monitors: Arc<Monitors>,
    outbox: Arc<Outbox>,
    route: Arc<GivenRoute>,
}

impl Party {
    /// Makes the party with this number; its keys follow from it. The chain stands at `tip`.
    pub(crate) fn new(number: u8, tip: BlockLocator) -> Result<Self, Failure> {
        let seed = [number.wrapping_add(1); 32];
        let keys = Arc::new(KeysManager::new(&seed, u64::from(GENESIS_TIME), 0, true));
        let id = keys.get_node_id(Recipient::Node).map_err(|()| "no node id")?;
        let (outbox, fees) = (Arc::new(Outbox::default()), Arc::new(FixedFeerate));
        let (logger, route) = (Arc::new(Silence), Arc::new(GivenRoute::default()));
        let monitors = Arc::new(ChainMonitor::new(
            None,
            Arc::clone(&outbox),
            Arc::clone(&logger),
            Arc::clone(&fees),
            Arc::new(Forget),
            Arc::clone(&keys),
            keys.get_peer_storage_key(),
            false,
        ));
        let manager = ChannelManager::new(
            fees,
            Arc::clone(&monitors),
            Arc::clone(&outbox),
            Arc::clone(&route),
            Arc::new(NullMessageRouter {}),
            logger,
            Arc::clone(&keys),
            Arc::clone(&keys),
            keys,
            user_config(),
            ChainParameters { network: Network::Regtest, best_block: tip },
            GENESIS_TIME,
        );
        Ok(Self { id, manager, monitors, outbox, route })
    }

    /// Fixes the route of everything it pays. The first one stays.
    pub(crate) fn use_route(&self, path: Path) {
        self.route.set(path);
    }

    /// Pays by keysend over its fixed route. `number` comes back with [`Notice::Paid`].
    pub(crate) fn pay(&self, number: u64, params: &RouteParameters) -> Result<(), Failure> {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        let onion = RecipientOnionFields::spontaneous_empty(params.final_value_msat);
        self.manager
            .send_spontaneous_payment(
                None,
                onion,
                PaymentId(id),
                params.clone(),
                Retry::Attempts(0),
            )
            .map_err(|error| format!("payment {number} was not sent: {error:?}"))?;
        Ok(())
    }

    /// Takes its events and answers them: claims every payment, accepts every channel.
    ///
    /// # Errors
    ///
    /// A payment failed or a channel closed.
    pub(crate) fn handle_events(&self) -> Result<Handled, Failure> {
        let events = RefCell::new(Vec::new());
        self.manager.process_pending_events(&|event: Event| {
            events.borrow_mut().push(event);
            Ok(())
        });
        let events = events.into_inner();
        let mut handled = Handled { events: events.len(), notices: Vec::new() };
        for event in events {
            handled.notices.extend(self.handle(event)?);
        }
        Ok(handled)
    }

    fn handle(&self, event: Event) -> Result<Option<Notice>, Failure> {
        match event {
            Event::PaymentClaimable { purpose, .. } => {
                let preimage = purpose.preimage().ok_or("a payment came without its preimage")?;
                self.manager.claim_funds(preimage);
            }
            Event::PaymentSent { payment_id, fee_paid_msat, .. } => {
                let PaymentId([n0, n1, n2, n3, n4, n5, n6, n7, ..]) =
                    payment_id.ok_or("a payment without an id")?;
                return Ok(Some(Notice::Paid {
                    number: u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]),
                    at: Instant::now(),
                    fee_msat: fee_paid_msat.unwrap_or(0),
                }));
            }
            Event::PaymentForwarded { total_fee_earned_msat, .. } => {
                return Ok(Some(Notice::Forwarded {
                    fee_msat: total_fee_earned_msat.unwrap_or(0),
                }));
            }
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => self
                .manager
                .accept_inbound_channel(&temporary_channel_id, &counterparty_node_id, 0, None)
                .map_err(|error| format!("the channel was not accepted: {error:?}"))?,
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                ..
            } => {
                return Ok(Some(Notice::FundingNeeded {
                    temporary_id: temporary_channel_id,
                    peer: counterparty_node_id,
                    capacity_sat: channel_value_satoshis,
                    script: output_script,
                }));
            }
            Event::PaymentFailed { .. }
            | Event::PaymentPathFailed { .. }
            | Event::HTLCHandlingFailed { .. }
            | Event::ChannelClosed { .. } => return Err(format!("{event:?}").into()),
            _ => {}
        }
        Ok(None)
    }

    /// Takes what it broadcast.
    pub(crate) fn take_broadcasts(&self) -> Vec<Transaction> {
        self.outbox.take()
    }

    /// What its channels let it send, msat: its balance less a reserve that never changes.
    pub(crate) fn spendable_msat(&self) -> u64 {
        self.manager.list_channels().iter().map(|channel| channel.outbound_capacity_msat).sum()
    }
}

/// What [`Party::handle_events`] did.
pub(crate) struct Handled {
    /// Events there were.
    pub(crate) events: usize,
    /// Those that a measurement wants.
    pub(crate) notices: Vec<Notice>,
}

/// The configuration of our node where it matters to a payment.
fn user_config() -> UserConfig {
    let policy = ChannelPolicy::default();
    let mut config = UserConfig::default();
    let handshake = &mut config.channel_handshake_config;
    handshake.minimum_depth = policy.minimum_depth;
    handshake.our_max_accepted_htlcs = HTLC_SLOTS;
    handshake.our_htlc_minimum_msat = policy.htlc_minimum_msat;
    handshake.unannounced_channel_max_inbound_htlc_value_in_flight_percentage =
        policy.max_inflight_percent;
    handshake.negotiate_scid_privacy = true;
    handshake.announce_for_forwarding = false;
    handshake.negotiate_anchors_zero_fee_htlc_tx = true;
    handshake.negotiate_anchor_zero_fee_commitments = policy.zero_fee_commitments;
    config.channel_handshake_limits.force_announced_channel_preference = false;
    config.channel_config.forwarding_fee_base_msat = policy.forwarding_fee_base_msat;
    config.channel_config.forwarding_fee_proportional_millionths = policy.forwarding_fee_ppm;
    config.channel_config.cltv_expiry_delta = policy.cltv_expiry_delta;
    config.channel_config.max_dust_htlc_exposure =
        MaxDustHTLCExposure::FixedLimitMsat(policy.max_dust_exposure_sat.saturating_mul(1_000));
    config.accept_forwards_to_priv_channels = true;
    config
}
