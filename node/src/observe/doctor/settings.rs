//! Settings that a node may run with, and somebody may regret.

use std::net::ToSocketAddrs;

use bitcoin::Network;

use super::Check;
use crate::config::{Config, StoreEngine};

pub(super) fn all(config: &Config) -> Vec<Check> {
    vec![exposure(config), durability(config)]
}

/// Whether an address is reached from this machine alone.
fn is_local(address: &str) -> bool {
    let Ok(addresses) = address.to_socket_addrs() else { return true };
    addresses.into_iter().all(|address| address.ip().is_loopback())
}

fn exposure(config: &Config) -> Check {
    const NAME: &str = "config_exposure";
    let (rpc, metrics) = (&config.rpc.listen, &config.metrics.listen);
    if !rpc.is_empty() && !is_local(rpc) && config.client_ca_file().is_none() {
        return Check::warning(
            NAME,
            format_args!("rpc.listen = {rpc} lets in whoever brings a token, from anywhere"),
            "set rpc.client_ca, so that clients need a certificate too; or listen on loopback",
        );
    }
    if !metrics.is_empty() && !is_local(metrics) && config.metrics.token.is_none() {
        return Check::warning(
            NAME,
            format_args!("metrics.listen = {metrics} tells anybody what the node holds"),
            "set metrics.token, or listen on loopback",
        );
    }
    if config.webhook.allow_private && config.network == Network::Bitcoin {
        return Check::warning(
            NAME,
            "webhook.allow_private lets webhooks into private networks, without TLS",
            "leave it off, unless every receiver is in a network of yours",
        );
    }
    Check::ok(NAME, "nothing is open to the world that should not be")
}

fn durability(config: &Config) -> Check {
    const NAME: &str = "config_store";
    let engine = config.store.engine.name();
    match (config.store.engine, config.network) {
        (StoreEngine::Memory, Network::Regtest) => Check::ok(
            NAME,
            format_args!("engine {engine}: nothing survives, as on a regtest it may"),
        ),
        (StoreEngine::Memory, _) => Check::error(
            NAME,
            format_args!("engine {engine}: the channels are lost when the process ends"),
            "close the channels, then start anew with store.engine = \"fjall\"",
        ),
        (StoreEngine::Sled, _) => Check::warning(
            NAME,
            format_args!(
                "engine {engine}: one power cut in sixty left a damaged store in our tests"
            ),
            "close the channels, then start anew with store.engine = \"fjall\"",
        ),
        (StoreEngine::Fjall, _) => Check::ok(NAME, format_args!("engine {engine}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;
    use crate::config::SecretRef;

    #[test]
    fn what_is_open_to_the_world_is_told_unless_it_is_locked() {
        let mut config = Config::default();
        assert_eq!(exposure(&config).severity, Severity::Ok);
        config.rpc.listen = "0.0.0.0:9736".into();
        let found = exposure(&config);
        assert_eq!(found.severity, Severity::Warning);
        assert!(found.finding.contains("0.0.0.0:9736"), "{found:?}");
        config.rpc.client_ca = "ca.pem".into();
        assert_eq!(exposure(&config).severity, Severity::Ok);
        config.metrics.listen = "[::]:9464".into();
        assert!(exposure(&config).finding.contains("metrics.listen"));
        config.metrics.token = Some(SecretRef::Env("T".into()));
        assert_eq!(exposure(&config).severity, Severity::Ok);
        config.webhook.allow_private = true;
        config.network = Network::Bitcoin;
        assert_eq!(exposure(&config).severity, Severity::Warning);
    }

    #[test]
    fn a_store_that_forgets_is_told_where_it_matters() {
        let severity = |engine, network| {
            let mut config = Config { network, ..Config::default() };
            config.store.engine = engine;
            durability(&config).severity
        };
        assert_eq!(severity(StoreEngine::Fjall, Network::Bitcoin), Severity::Ok);
        assert_eq!(severity(StoreEngine::Sled, Network::Bitcoin), Severity::Warning);
        assert_eq!(severity(StoreEngine::Memory, Network::Signet), Severity::Error);
        assert_eq!(severity(StoreEngine::Memory, Network::Regtest), Severity::Ok);
    }
}
