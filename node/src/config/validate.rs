//! The ranges of the settings, and the settings that exclude one another.

use std::ops::RangeInclusive;

use bitcoin::Network;
use channel_contracts::tree::shape::BATCH_SIZE_MAX;
use channel_contracts::tree::transactions::FUNDING_VALUE_MIN;

use super::text::is_host_and_port;
use super::{BatchConfig, ChainBackend, Config, StoreEngine, network_name};

/// A setting that a node cannot run with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value} is not allowed: {allowed}; {remedy}")]
pub struct InvalidConfig {
    /// The key with its section.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub allowed: String,
    /// What to do.
    pub remedy: &'static str,
}

/// Largest amount of bitcoin there is, satoshi.
const MONEY_MAX_SAT: u64 = 21_000_000 * 100_000_000;

impl Config {
    /// Judges every setting, flags included.
    ///
    /// # Errors
    ///
    /// The first [`InvalidConfig`], with key, value, allowed range and remedy.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.validate_general()?;
        self.validate_lightning()?;
        self.validate_amounts()?;
        self.batch.validate()?;
        self.validate_rpc()?;
        self.validate_tower()?;
        self.webhook.validate()?;
        self.payouts.validate()?;
        self.validate_addresses()
    }

    fn validate_general(&self) -> Result<(), InvalidConfig> {
        let refuse = |key, value: &dyn ToString, allowed: &str, remedy| {
            Err(InvalidConfig { key, value: value.to_string(), allowed: allowed.into(), remedy })
        };
        if self.network == Network::Testnet {
            return refuse(
                "network",
                &network_name(self.network),
                "mainnet, testnet4, signet or regtest",
                "testnet3 is abandoned, use testnet4",
            );
        }
        if self.alias.len() > 32 || self.alias.contains(char::is_control) {
            return refuse(
                "alias",
                &format!("{:?}", self.alias),
                "at most 32 bytes of printable text",
                "choose a shorter name",
            );
        }
        if self.chain.backend == ChainBackend::Embedded && self.network != Network::Regtest {
            return refuse(
                "chain.backend",
                &"embedded",
                "the embedded chain is a regtest",
                "set network = \"regtest\", or chain.backend = \"bitcoind\"",
            );
        }
        if self.store.engine == StoreEngine::Memory && self.network == Network::Bitcoin {
            return refuse(
                "store.engine",
                &"memory",
                "a store on disk, on mainnet",
                "a node that forgets its channels loses money: use sled or fjall",
            );
        }
        let bitcoind = &self.chain.bitcoind;
        if !bitcoind.user.is_empty() && !bitcoind.cookie_file.as_os_str().is_empty() {
            return refuse(
                "chain.bitcoind.user",
                &bitcoind.user,
                "either a user or a cookie file",
                "remove chain.bitcoind.user or chain.bitcoind.cookie_file",
            );
        }
        if bitcoind.user.is_empty() != bitcoind.password.is_none() {
            return refuse(
                "chain.bitcoind.password",
                &bitcoind.password.as_ref().map_or("\"\"".into(), ToString::to_string),
                "a user and its password together",
                "set both chain.bitcoind.user and chain.bitcoind.password, or neither",
            );
        }
        for url in &bitcoind.urls {
            let rest = url.strip_prefix("http://");
            if !rest.is_some_and(|rest| is_host_and_port(rest.trim_end_matches('/'))) {
                return refuse(
                    "chain.bitcoind.urls",
                    url,
                    "http://host:port",
                    "credentials belong into cookie_file, or user and password",
                );
            }
        }
        Ok(())
    }

    fn validate_lightning(&self) -> Result<(), InvalidConfig> {
        let lightning = &self.lightning;
        let limits = &self.limits;
        let per_payment = "see the section [limits] of configs/node.default.toml";
        within(
            "chain.stall_warning_seconds",
            self.chain.stall_warning_seconds,
            60..=7 * 24 * 3600,
            "blocks come ten minutes apart, and an hour apart now and then",
        )?;
        within(
            "lightning.forward_delay_ms",
            lightning.forward_delay_ms,
            0..=10_000,
            "a longer delay hides more and costs every payment its time",
        )?;
        within(
            "lightning.max_accepted_htlcs",
            lightning.max_accepted_htlcs.into(),
            1..=483,
            "BOLT 2 allows 483",
        )?;
        within(
            "lightning.max_inflight_percent",
            lightning.max_inflight_percent.into(),
            1..=100,
            "it is a share of the channel",
        )?;
        within(
            "lightning.minimum_depth",
            lightning.minimum_depth.into(),
            1..=144,
            "3 is usual, 6 on mainnet",
        )?;
        within(
            "lightning.cltv_expiry_delta",
            lightning.cltv_expiry_delta.into(),
            48..=2016,
            "fewer blocks leave no time to settle a forward on chain",
        )?;
        within(
            "lightning.to_self_delay",
            lightning.to_self_delay.into(),
            144..=2016,
            "fewer blocks leave no time to punish a cheater, more are refused by peers",
        )?;
        within(
            "lightning.forwarding_fee_ppm",
            lightning.forwarding_fee_ppm.into(),
            0..=1_000_000,
            "1,000,000 is the whole amount",
        )?;
        if lightning.renew_monitor_kib != 0 {
            within(
                "lightning.renew_monitor_kib",
                lightning.renew_monitor_kib,
                32..=4 * 1024 * 1024,
                "a channel's monitor weighs some KiB when new; 0 never renews",
            )?;
        }
        within(
            "lightning.renew_feerate_max_sat_per_vb",
            lightning.renew_feerate_max_sat_per_vb,
            1..=2_000,
            "to renew no channel, set lightning.renew_monitor_kib = 0",
        )?;
        within(
            "limits.payment_fee_ppm",
            limits.payment_fee_ppm.into(),
            0..=1_000_000,
            per_payment,
        )?;
        within("limits.payment_parts_max", limits.payment_parts_max.into(), 1..=100, per_payment)?;
        within(
            "limits.payment_timeout_seconds",
            limits.payment_timeout_seconds,
            1..=24 * 3600,
            per_payment,
        )?;
        within(
            "limits.payments_in_flight_max",
            limits.payments_in_flight_max.into(),
            1..=1_000_000,
            per_payment,
        )
    }

    fn validate_rpc(&self) -> Result<(), InvalidConfig> {
        let rpc = &self.rpc;
        let places = |places: usize| u64::try_from(places).unwrap_or(u64::MAX);
        let load = "see the section [rpc] of configs/node.default.toml";
        let settings = [
            ("rpc.token_calls_per_second", rpc.token_calls_per_second.into(), 0..=1_000_000),
            ("rpc.method_calls_per_second", rpc.method_calls_per_second.into(), 0..=1_000_000),
            ("rpc.calls_at_work_max", places(rpc.calls_at_work_max), 1..=100_000),
            ("rpc.calls_waiting_max", places(rpc.calls_waiting_max), 0..=1_000_000),
        ];
        settings.into_iter().try_for_each(|(key, value, range)| within(key, value, range, load))
    }

    fn validate_amounts(&self) -> Result<(), InvalidConfig> {
        within(
            "lightning.inbound_channel_max_sat",
            self.lightning.inbound_channel_max_sat,
            1_000..=MONEY_MAX_SAT,
            "to refuse all, set lightning.accept_inbound_channels = false",
        )?;
        within(
            "lightning.inbound_channel_min_sat",
            self.lightning.inbound_channel_min_sat,
            1_000..=self.lightning.inbound_channel_max_sat,
            "lower it, or raise lightning.inbound_channel_max_sat",
        )?;
        within(
            "limits.payment_fee_base_msat",
            self.limits.payment_fee_base_msat,
            0..=MONEY_MAX_SAT * 1_000,
            "the unit is millisatoshi",
        )?;
        within(
            "wallet.anchor_reserve_sat_per_channel",
            self.wallet.anchor_reserve_sat_per_channel,
            0..=100_000_000,
            "10,000 pays for an exit at about 20 sat/vB",
        )?;
        within(
            "wallet.confirmation_target_blocks",
            self.wallet.confirmation_target_blocks.into(),
            1..=1008,
            "bitcoind estimates up to 1008 blocks",
        )
    }

    fn validate_tower(&self) -> Result<(), InvalidConfig> {
        let tower = &self.tower;
        within(
            "tower.clients_max",
            tower.clients_max as u64,
            1..=1_000_000,
            "a tower without clients guards nobody; leave tower.listen empty",
        )?;
        within(
            "tower.appointments_max",
            tower.appointments_max,
            1..=1_000_000_000,
            "a busy channel makes some hundred an hour",
        )?;
        within(
            "tower.registration_blocks",
            tower.registration_blocks.into(),
            144..=525_600,
            "clients register again when it is over",
        )?;
        within(
            "tower.feerate_max_sat_per_vb",
            tower.feerate_max_sat_per_vb,
            1..=10_000,
            "what a breach is worth is lost if the answer comes too late",
        )?;
        within(
            "tower.mempool_poll_ms",
            tower.mempool_poll_ms,
            50..=60_000,
            "blocks are looked at as they come",
        )?;
        within(
            "tower.fee_budget_sat",
            tower.fee_budget_sat,
            0..=100_000_000,
            "it is what the tower spends of its own on one path or breach",
        )?;
        within(
            "tower.outbox_max_mib",
            tower.outbox_max_mib,
            1..=1_048_576,
            "an hour of load beside a tower that is gone is some hundred MiB",
        )
    }

    fn validate_addresses(&self) -> Result<(), InvalidConfig> {
        let lightning = &self.lightning;
        let listening = lightning.listen_addresses.iter();
        let announced = lightning.announce_addresses.iter();
        let rpc = std::iter::once(("rpc.listen", &self.rpc.listen));
        let tower =
            [("tower.listen", &self.tower.listen), ("tower.open_listen", &self.tower.open_listen)];
        let tower = tower.into_iter().filter(|(_, address)| !address.is_empty());
        let addresses = listening
            .map(|address| ("lightning.listen_addresses", address))
            .chain(announced.map(|address| ("lightning.announce_addresses", address)))
            .chain(rpc)
            .chain(tower);
        for (key, address) in addresses {
            if !is_host_and_port(address) {
                return Err(InvalidConfig {
                    key,
                    value: format!("{address:?}"),
                    allowed: "host:port, an IPv6 host in brackets".into(),
                    remedy: "for example 127.0.0.1:9735 or [::1]:9735",
                });
            }
        }
        Ok(())
    }
}

pub(super) fn within(
    key: &'static str,
    value: u64,
    range: RangeInclusive<u64>,
    remedy: &'static str,
) -> Result<(), InvalidConfig> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(InvalidConfig {
        key,
        value: value.to_string(),
        allowed: format!("{} to {}", range.start(), range.end()),
        remedy,
    })
}

impl BatchConfig {
    /// Checks the section by itself.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with the first key that is not allowed.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let batch = self;
        within(
            "batch.users_max",
            batch.users_max as u64,
            1..=BATCH_SIZE_MAX as u64,
            "256 form in seconds; more wait longer for the slowest",
        )?;
        within(
            "batch.gathering_ms",
            batch.gathering_ms,
            100..=600_000,
            "users wait ten minutes at most for a batch to close",
        )?;
        within(
            "batch.capacity_max_sat",
            batch.capacity_max_sat,
            FUNDING_VALUE_MIN.to_sat()..=MONEY_MAX_SAT,
            "a funding output of less than 330 sat is dust",
        )?;
        within(
            "batch.capacity_min_sat",
            batch.capacity_min_sat,
            FUNDING_VALUE_MIN.to_sat()..=batch.capacity_max_sat,
            "lower it, or raise batch.capacity_max_sat",
        )?;
        within("batch.fee_sat", batch.fee_sat, 0..=100_000_000, "the unit is satoshi")?;
        within("batch.fee_max_sat", batch.fee_max_sat, 0..=100_000_000, "the unit is satoshi")?;
        within(
            "batch.life_blocks",
            batch.life_blocks.into(),
            1_008..=52_560,
            "a shorter life leaves no time to roll over, a longer one binds the hub's coins",
        )?;
        within(
            "batch.expiring_users_max",
            batch.expiring_users_max as u64,
            1..=1_000_000,
            "their paths must find room in the blocks before they expire",
        )?;
        within(
            "batch.step_seconds",
            batch.step_seconds,
            1..=600,
            "LDK drops channels that are not funded within an hour",
        )?;
        within(
            "batch.exit_feerate_max_sat_per_vb",
            batch.exit_feerate_max_sat_per_vb,
            1..=2_000,
            "too little keeps a channel in its batch until that expires",
        )?;
        within(
            "batch.early_value_ppm",
            batch.early_value_ppm.into(),
            0..=1_000_000,
            "the unit is millionths; 0 waits for the expiry",
        )?;
        within(
            "batch.reclaim_patience_blocks",
            batch.reclaim_patience_blocks.into(),
            1..=52_560,
            "users who are offline for a day release their keys when they are back",
        )?;
        within(
            "batch.swap_fee_ppm",
            batch.swap_fee_ppm.into(),
            0..=100_000,
            "the unit is millionths; 0 earns nothing",
        )?;
        within(
            "batch.swap_min_sat",
            batch.swap_min_sat,
            5_000..=2_100_000_000_000_000,
            "less would not pay for the transaction that spends it",
        )?;
        within(
            "batch.swap_max_sat",
            batch.swap_max_sat,
            batch.swap_min_sat..=2_100_000_000_000_000,
            "the unit is satoshi; it cannot be below swap_min_sat",
        )?;
        within(
            "batch.swap_patience_blocks",
            batch.swap_patience_blocks.into(),
            0..=100,
            "a withdrawal has 142 blocks to be paid; 0 pays each at once",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Breaks one setting.
    type Break = fn(&mut Config);

    #[test]
    fn each_bad_setting_is_refused_by_its_key() {
        let table: &[(&str, Break)] = &[
            ("network", |c| c.network = Network::Testnet),
            ("alias", |c| c.alias = "x".repeat(33)),
            ("chain.backend", |c| {
                c.chain.backend = ChainBackend::Embedded;
                c.network = Network::Signet;
            }),
            ("store.engine", |c| {
                c.store.engine = StoreEngine::Memory;
                c.network = Network::Bitcoin;
            }),
            ("chain.bitcoind.user", |c| {
                c.chain.bitcoind.user = "u".into();
                c.chain.bitcoind.cookie_file = "/c".into();
            }),
            ("chain.bitcoind.password", |c| {
                c.chain.bitcoind.user = "u".into();
            }),
            ("chain.bitcoind.urls", |c| {
                c.chain.bitcoind.urls = vec!["http://u:p@host:1".into()];
            }),
            ("chain.stall_warning_seconds", |c| {
                c.chain.stall_warning_seconds = 0;
            }),
            ("lightning.forward_delay_ms", |c| {
                c.lightning.forward_delay_ms = 10_001;
            }),
            ("lightning.max_accepted_htlcs", |c| {
                c.lightning.max_accepted_htlcs = 484;
            }),
            ("lightning.max_inflight_percent", |c| {
                c.lightning.max_inflight_percent = 0;
            }),
            ("lightning.minimum_depth", |c| c.lightning.minimum_depth = 0),
            ("lightning.cltv_expiry_delta", |c| {
                c.lightning.cltv_expiry_delta = 47;
            }),
            ("lightning.to_self_delay", |c| c.lightning.to_self_delay = 1),
            ("lightning.forwarding_fee_ppm", |c| {
                c.lightning.forwarding_fee_ppm = 1_000_001;
            }),
            ("lightning.inbound_channel_max_sat", |c| {
                c.lightning.inbound_channel_max_sat = 0;
            }),
            ("lightning.inbound_channel_min_sat", |c| {
                c.lightning.inbound_channel_min_sat = u64::MAX;
            }),
            ("lightning.renew_monitor_kib", |c| c.lightning.renew_monitor_kib = 1),
            ("lightning.renew_feerate_max_sat_per_vb", |c| {
                c.lightning.renew_feerate_max_sat_per_vb = 0;
            }),
            ("limits.payment_fee_ppm", |c| {
                c.limits.payment_fee_ppm = u32::MAX;
            }),
            ("limits.payment_fee_base_msat", |c| {
                c.limits.payment_fee_base_msat = u64::MAX;
            }),
            ("limits.payment_parts_max", |c| c.limits.payment_parts_max = 0),
            ("limits.payment_timeout_seconds", |c| {
                c.limits.payment_timeout_seconds = 0;
            }),
            ("limits.payments_in_flight_max", |c| {
                c.limits.payments_in_flight_max = 0;
            }),
            ("wallet.anchor_reserve_sat_per_channel", |c| {
                c.wallet.anchor_reserve_sat_per_channel = u64::MAX;
            }),
            ("wallet.confirmation_target_blocks", |c| {
                c.wallet.confirmation_target_blocks = 0;
            }),
            ("lightning.listen_addresses", |c| {
                c.lightning.listen_addresses = vec!["9735".into()];
            }),
            ("lightning.announce_addresses", |c| {
                c.lightning.announce_addresses = vec!["::1:9735".into()];
            }),
            ("batch.exit_feerate_max_sat_per_vb", |c| {
                c.batch.exit_feerate_max_sat_per_vb = 0;
            }),
            ("batch.expiring_users_max", |c| c.batch.expiring_users_max = 0),
            ("batch.early_value_ppm", |c| c.batch.early_value_ppm = 1_000_001),
            ("batch.reclaim_patience_blocks", |c| c.batch.reclaim_patience_blocks = 0),
            ("batch.swap_fee_ppm", |c| c.batch.swap_fee_ppm = 100_001),
            ("batch.swap_min_sat", |c| c.batch.swap_min_sat = 4_999),
            ("batch.swap_max_sat", |c| c.batch.swap_max_sat = c.batch.swap_min_sat - 1),
            ("batch.swap_patience_blocks", |c| c.batch.swap_patience_blocks = 101),
            ("rpc.listen", |c| c.rpc.listen = "localhost".into()),
            ("rpc.token_calls_per_second", |c| c.rpc.token_calls_per_second = u32::MAX),
            ("rpc.method_calls_per_second", |c| c.rpc.method_calls_per_second = u32::MAX),
            ("rpc.calls_at_work_max", |c| c.rpc.calls_at_work_max = 0),
            ("rpc.calls_waiting_max", |c| c.rpc.calls_waiting_max = usize::MAX),
            ("webhook.endpoints_max", |c| c.webhook.endpoints_max = 1_001),
            ("webhook.concurrency", |c| c.webhook.concurrency = 0),
            ("webhook.waiting_max", |c| c.webhook.waiting_max = 0),
            ("webhook.timeout_ms", |c| c.webhook.timeout_ms = 120_001),
            ("webhook.retry_first_ms", |c| c.webhook.retry_first_ms = 0),
            ("webhook.retry_longest_seconds", |c| c.webhook.retry_longest_seconds = 0),
            ("webhook.give_up_seconds", |c| c.webhook.give_up_seconds = u64::MAX),
            ("webhook.dead_letters_max", |c| c.webhook.dead_letters_max = 0),
            ("payouts.lines_max", |c| c.payouts.lines_max = 0),
            ("payouts.open_max", |c| c.payouts.open_max = 0),
            ("payouts.concurrency", |c| c.payouts.concurrency = 101),
            ("payouts.time_limit_seconds", |c| c.payouts.time_limit_seconds = 0),
            ("payouts.retry_first_ms", |c| c.payouts.retry_first_ms = 0),
            ("payouts.retry_longest_seconds", |c| c.payouts.retry_longest_seconds = 86_401),
            ("webhook.rotation_grace_seconds", |c| c.webhook.rotation_grace_seconds = u64::MAX),
        ];
        for (key, break_it) in table {
            let mut config = Config::default();
            config.validate().unwrap();
            break_it(&mut config);
            assert_eq!(config.validate().unwrap_err().key, *key);
        }
    }

    #[test]
    fn refusal_names_key_value_range_and_remedy() {
        let mut config = Config::default();
        config.lightning.max_accepted_htlcs = 500;
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "lightning.max_accepted_htlcs = 500 is not allowed: 1 to 483; BOLT 2 allows 483"
        );
    }
}
