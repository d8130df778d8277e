//! The configuration: one file, one struct, every key documented in `configs/node.default.toml`.
//!
//! [`Config::load`] reads the file, flags are set over it by the caller, and
//! [`Config::validate`] judges the whole. `load.rs` holds the reading and its errors,
//! `validate.rs` the ranges, `secret.rs` references to secrets, `text.rs` how values are
//! written. No secret is read here: a [`SecretRef`] is resolved where it is used.

mod load;
mod payouts;
mod secret;
mod text;
mod tower;
mod validate;
mod webhook;

use std::path::PathBuf;

use bitcoin::Network;
use serde::{Deserialize, Serialize};

pub use load::ConfigError;
pub use payouts::PayoutConfig;
pub use secret::{SecretError, SecretRef, SecretRefError};
pub use text::{PeerAddress, PeerAddressError, network_from_name, network_name};
pub use tower::TowerConfig;
pub use validate::InvalidConfig;
pub use webhook::WebhookConfig;

/// All settings of a node. `Default` is what an empty file means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The Bitcoin network.
    #[serde(with = "text::network")]
    pub network: Network,
    /// Where the node keeps its data; empty means `~/.tributary/<network>`.
    pub data_dir: PathBuf,
    /// The name the node announces, at most 32 bytes.
    pub alias: String,
    /// Log filter, in the syntax of `tracing-subscriber`'s `EnvFilter`.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where the seed's password comes from; `None` asks at the terminal.
    pub keys: KeysConfig,
    /// The chain.
    pub chain: ChainConfig,
    /// The store.
    pub store: StoreConfig,
    /// Channels, peers and forwarding.
    pub lightning: LightningConfig,
    /// Coins and on-chain fees.
    pub wallet: WalletConfig,
    /// Channel batches.
    pub batch: BatchConfig,
    /// This node as a tower for others.
    pub tower: TowerConfig,
    /// The API.
    pub rpc: RpcConfig,
    /// Events told over HTTP.
    pub webhook: WebhookConfig,
    /// Many payments from one file.
    pub payouts: PayoutConfig,
    /// Bounds on what one payment may do.
    pub limits: LimitsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: Network::Regtest,
            data_dir: PathBuf::new(),
            alias: "tributary".into(),
            log: "info".into(),
            log_format: LogFormat::Text,
            keys: KeysConfig::default(),
            chain: ChainConfig::default(),
            store: StoreConfig::default(),
            lightning: LightningConfig::default(),
            wallet: WalletConfig::default(),
            batch: BatchConfig::default(),
            tower: TowerConfig::default(),
            rpc: RpcConfig::default(),
            webhook: WebhookConfig::default(),
            payouts: PayoutConfig::default(),
            limits: LimitsConfig::default(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Section `[keys]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// Reference to the password of the sealed seed; `None` asks at the terminal.
    #[serde(with = "text::empty_is_none")]
    pub password: Option<SecretRef>,
}

/// Section `[chain]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChainConfig {
    /// Where blocks come from.
    pub backend: ChainBackend,
    /// Seconds without a new block before the status says that the chain stalls.
    pub stall_warning_seconds: u64,
    /// Height of the first block a new wallet looks at; `0` means the tip at its creation.
    pub birthday_height: u32,
    /// The connection to bitcoind.
    pub bitcoind: BitcoindConfig,
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self {
            backend: ChainBackend::Bitcoind,
            stall_warning_seconds: 3 * 60 * 60,
            birthday_height: 0,
            bitcoind: BitcoindConfig::default(),
        }
    }
}

/// Where blocks come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChainBackend {
    /// One or more bitcoind over RPC.
    Bitcoind,
    /// A regtest chain inside the process; gone when it ends.
    Embedded,
}

/// Section `[chain.bitcoind]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BitcoindConfig {
    /// RPC endpoints, the preferred one first; empty means the local one on its usual port.
    pub urls: Vec<String>,
    /// Cookie file; empty with an empty `user` means bitcoind's usual place.
    pub cookie_file: PathBuf,
    /// RPC user, instead of a cookie.
    pub user: String,
    /// Reference to the password of `user`.
    #[serde(with = "text::empty_is_none")]
    pub password: Option<SecretRef>,
}

/// Section `[store]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The engine.
    pub engine: StoreEngine,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { engine: StoreEngine::Fjall }
    }
}

/// The engines of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreEngine {
    /// sled with our own syncs.
    Sled,
    /// fjall.
    Fjall,
    /// Nothing survives the process: for `tributary dev` and tests.
    Memory,
}

impl StoreEngine {
    /// The engine's name, as in the file.
    pub fn name(self) -> &'static str {
        match self {
            StoreEngine::Sled => "sled",
            StoreEngine::Fjall => "fjall",
            StoreEngine::Memory => "memory",
        }
    }
}

/// Section `[lightning]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LightningConfig {
    /// `host:port` to accept peers on; empty accepts none.
    pub listen_addresses: Vec<String>,
    /// `host:port` told to the network; empty announces none.
    pub announce_addresses: Vec<String>,
    /// Peers to stay connected to.
    pub peers: Vec<PeerAddress>,
    /// Milliseconds a received HTLC may wait for company before it is forwarded or claimable.
    pub forward_delay_ms: u64,
    /// HTLCs a peer may have in flight towards us per channel.
    pub max_accepted_htlcs: u16,
    /// Share of a channel that may be in flight towards us, percent.
    pub max_inflight_percent: u8,
    /// Whether channels get zero-fee commitments where the peer knows them.
    pub zero_fee_commitments: bool,
    /// Confirmations before a channel is used.
    pub minimum_depth: u32,
    /// Blocks between the expiries of an incoming HTLC and its outgoing one.
    pub cltv_expiry_delta: u16,
    /// Blocks the peer waits for its own output after it closes alone.
    pub to_self_delay: u16,
    /// Fixed fee of one forward, millisatoshi.
    pub forwarding_fee_base_msat: u32,
    /// Proportional fee of a forward, millionths.
    pub forwarding_fee_ppm: u32,
    /// Whether peers may open channels to us.
    pub accept_inbound_channels: bool,
    /// Smallest channel a peer may open, satoshi.
    pub inbound_channel_min_sat: u64,
    /// Largest channel a peer may open, satoshi.
    pub inbound_channel_max_sat: u64,
    /// Weight of a channel's monitor, KiB, from which its opener renews it by a splice; 0 never.
    pub renew_monitor_kib: u64,
    /// The most a renewal may pay, satoshi per virtual byte.
    pub renew_feerate_max_sat_per_vb: u64,
    /// Whether the node learns the network's channels from its peers.
    pub gossip_sync: bool,
}

impl Default for LightningConfig {
    fn default() -> Self {
        Self {
            listen_addresses: vec!["0.0.0.0:9735".into()],
            announce_addresses: Vec::new(),
            peers: Vec::new(),
            forward_delay_ms: 2,
            max_accepted_htlcs: 483,
            max_inflight_percent: 100,
            zero_fee_commitments: true,
            minimum_depth: 3,
            cltv_expiry_delta: 80,
            to_self_delay: 144,
            forwarding_fee_base_msat: 0,
            forwarding_fee_ppm: 500,
            accept_inbound_channels: true,
            inbound_channel_min_sat: 20_000,
            inbound_channel_max_sat: 1_000_000_000,
            renew_monitor_kib: 32_768,
            renew_feerate_max_sat_per_vb: 30,
            gossip_sync: true,
        }
    }
}

/// Section `[batch]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// What the node does in batches.
    pub role: BatchRole,
    /// Hub: most users of a batch; it closes when it is full.
    pub users_max: usize,
    /// Hub: milliseconds for which a batch gathers users.
    pub gathering_ms: u64,
    /// Hub: smallest channel, satoshi.
    pub capacity_min_sat: u64,
    /// Hub: largest channel, satoshi.
    pub capacity_max_sat: u64,
    /// Hub: what a place costs, satoshi.
    pub fee_sat: u64,
    /// Hub: blocks from a batch's beginning to its expiry. A user accepts half as many.
    pub life_blocks: u32,
    /// Hub: the most users whose batches expire within a day.
    pub expiring_users_max: usize,
    /// Seconds a user has for each step; a user waits six times as long for the hub.
    pub step_seconds: u64,
    /// User: the most a place may cost, satoshi.
    pub fee_max_sat: u64,
    /// The most that an exit pays for a path's transactions, sat/vB.
    pub exit_feerate_max_sat_per_vb: u64,
    /// Hub: what it is worth to have a satoshi of a batch back a whole life before the expiry, in
    /// millionths of it.
    pub early_value_ppm: u32,
    /// Hub: blocks without another release before paths of users who keep their keys are published.
    pub reclaim_patience_blocks: u32,
    /// Hub: what it earns with a withdrawal or a deposit, in millionths of the amount.
    pub swap_fee_ppm: u32,
    /// Least that is withdrawn or deposited at once, satoshi.
    pub swap_min_sat: u64,
    /// Hub: most that is withdrawn or deposited at once, satoshi.
    pub swap_max_sat: u64,
    /// Hub: blocks for which a paid withdrawal waits for others to share a transaction with.
    pub swap_patience_blocks: u32,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            role: BatchRole::User,
            users_max: 256,
            gathering_ms: 60_000,
            capacity_min_sat: 1_500,
            capacity_max_sat: 10_000_000,
            fee_sat: 0,
            life_blocks: 4_032,
            expiring_users_max: 4_096,
            step_seconds: 10,
            fee_max_sat: 1_000,
            exit_feerate_max_sat_per_vb: 500,
            early_value_ppm: 5_000,
            reclaim_patience_blocks: 144,
            swap_fee_ppm: 1_000,
            swap_min_sat: 10_000,
            swap_max_sat: 50_000_000,
            swap_patience_blocks: 6,
        }
    }
}

/// What a node does in batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchRole {
    /// It forms and funds them.
    Hub,
    /// It joins those of others when it is asked to.
    User,
    /// Both.
    Both,
    /// Nothing.
    Off,
}

impl BatchRole {
    /// Whether it funds batches.
    pub fn is_hub(self) -> bool {
        matches!(self, Self::Hub | Self::Both)
    }

    /// Whether it joins batches.
    pub fn is_user(self) -> bool {
        matches!(self, Self::User | Self::Both)
    }
}

/// Section `[wallet]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WalletConfig {
    /// Satoshi kept back for each open channel, to pay for its exit.
    pub anchor_reserve_sat_per_channel: u64,
    /// Blocks within which our own transactions should confirm.
    pub confirmation_target_blocks: u16,
}

impl Default for WalletConfig {
    fn default() -> Self {
        Self { anchor_reserve_sat_per_channel: 10_000, confirmation_target_blocks: 6 }
    }
}

/// Section `[rpc]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpcConfig {
    /// `host:port` of the API.
    pub listen: String,
    /// Certificate, PEM; empty means `tls.crt` in the data directory, made if absent.
    pub tls_cert: PathBuf,
    /// Its private key, PEM; empty means `tls.key` in the data directory.
    pub tls_key: PathBuf,
    /// Names and addresses a made certificate is valid for, besides the local ones.
    pub tls_extra_names: Vec<String>,
    /// The administrator's token; empty means `admin.token` in the data directory.
    pub token_file: PathBuf,
    /// Certificate of the authority whose clients are let in, PEM; empty asks for none.
    pub client_ca: PathBuf,
    /// Calls a second with one baked token; 0 is without limit.
    pub token_calls_per_second: u32,
    /// Calls a second of one method with one baked token; 0 is without limit.
    pub method_calls_per_second: u32,
    /// Calls at work at once.
    pub calls_at_work_max: usize,
    /// Calls that wait for others.
    pub calls_waiting_max: usize,
}

impl Default for RpcConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9736".into(),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            tls_extra_names: Vec::new(),
            token_file: PathBuf::new(),
            client_ca: PathBuf::new(),
            token_calls_per_second: 1_000,
            method_calls_per_second: 500,
            calls_at_work_max: 256,
            calls_waiting_max: 4_096,
        }
    }
}

/// Section `[limits]`: what a payment may do if its request does not say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Routing fee that is always allowed, millisatoshi.
    pub payment_fee_base_msat: u64,
    /// Routing fee allowed on top, millionths of the amount.
    pub payment_fee_ppm: u32,
    /// Parts one payment is split into at most.
    pub payment_parts_max: u8,
    /// Seconds after which no further attempt starts.
    pub payment_timeout_seconds: u64,
    /// Payments in flight at once; further ones wait.
    pub payments_in_flight_max: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            payment_fee_base_msat: 10_000,
            payment_fee_ppm: 10_000,
            payment_parts_max: 16,
            payment_timeout_seconds: 60,
            payments_in_flight_max: 10_000,
        }
    }
}

impl Config {
    /// Where the node keeps its data, with the default and `~` worked out.
    pub fn data_dir(&self) -> PathBuf {
        if self.data_dir.as_os_str().is_empty() {
            return home().join(".tributary").join(network_name(self.network));
        }
        expand(&self.data_dir)
    }

    /// The bitcoind endpoints, with the default worked out.
    pub fn bitcoind_urls(&self) -> Vec<String> {
        if !self.chain.bitcoind.urls.is_empty() {
            return self.chain.bitcoind.urls.clone();
        }
        let port = match self.network {
            Network::Bitcoin => 8332,
            Network::Testnet => 18332,
            Network::Testnet4 => 48332,
            Network::Signet => 38332,
            Network::Regtest => 18443,
        };
        vec![format!("http://127.0.0.1:{port}")]
    }

    /// The cookie file to use, with the default worked out; `None` if a user is configured.
    pub fn bitcoind_cookie_file(&self) -> Option<PathBuf> {
        let bitcoind = &self.chain.bitcoind;
        if !bitcoind.cookie_file.as_os_str().is_empty() {
            return Some(expand(&bitcoind.cookie_file));
        }
        if !bitcoind.user.is_empty() {
            return None;
        }
        let folder = match self.network {
            Network::Bitcoin => "",
            Network::Testnet => "testnet3",
            Network::Testnet4 => "testnet4",
            Network::Signet => "signet",
            Network::Regtest => "regtest",
        };
        Some(home().join(".bitcoin").join(folder).join(".cookie"))
    }

    /// The API's certificate file.
    pub fn tls_cert_file(&self) -> PathBuf {
        self.or_in_data_dir(&self.rpc.tls_cert, "tls.crt")
    }

    /// The API's private key file.
    pub fn tls_key_file(&self) -> PathBuf {
        self.or_in_data_dir(&self.rpc.tls_key, "tls.key")
    }

    /// The administrator's token file.
    pub fn token_file(&self) -> PathBuf {
        self.or_in_data_dir(&self.rpc.token_file, "admin.token")
    }

    /// The certificate of the clients' authority; `None` if clients need no certificate.
    pub fn client_ca_file(&self) -> Option<PathBuf> {
        let file = &self.rpc.client_ca;
        (!file.as_os_str().is_empty()).then(|| expand(file))
    }

    fn or_in_data_dir(&self, path: &std::path::Path, name: &str) -> PathBuf {
        if path.as_os_str().is_empty() { self.data_dir().join(name) } else { expand(path) }
    }
}

/// Replaces a leading `~/`.
fn expand(path: &std::path::Path) -> PathBuf {
    match path.strip_prefix("~") {
        Ok(rest) => home().join(rest),
        Err(_) => path.to_owned(),
    }
}

/// The user's directory; the working directory where there is none.
fn home() -> PathBuf {
    std::env::home_dir().unwrap_or_default()
}
