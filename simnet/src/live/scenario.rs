//! A scenario: a TOML file in, a report out.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, Network};
use futures::stream::{self, StreamExt};
use node::chain::embedded::{EmbeddedChain, EmbeddedConfig};
use node::channels::{ChannelState, OpenRequest};
use node::config::Config;
use node::environment::{Clock, Committing, Entropy, Environment};
use node::keys::{Keys, RecoveryPhrase, WordCount};
use node::lightning::InvoiceDescription;
use node::node::Node;
use node::payments::{CreateInvoice, PayRequest, PayTarget, PaymentState};
use node::store::MemoryDisk;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::live::{SimClock, SimEntropy, SimNet};

/// Longest virtual time to wait for anything.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a scenario file says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Decides every random choice of the scenario.
    pub seed: u64,
    /// The channel between the two nodes.
    pub channel: ChannelSpec,
    /// The link between them.
    pub link: LinkSpec,
    /// Who pays what.
    pub workload: Workload,
}

/// A channel.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelSpec {
    /// Its size, sat.
    pub capacity_sat: u64,
}

/// A link.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// One way, in milliseconds.
    pub latency_ms: u64,
}

/// A burst of payments from the first node to the second.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// How many.
    pub payments: u32,
    /// Each, msat.
    pub amount_msat: u64,
    /// So many at once.
    pub in_flight: u32,
}

/// Why a scenario does not run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read scenario {path}: {source}")]
    Read {
        /// It.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a scenario; the text names line and key.
    #[error("scenario {path}: {detail}")]
    Parse {
        /// It.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// A setting is impossible.
    #[error("{key} = {value} is impossible: {why}")]
    Impossible {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: u64,
        /// Why.
        why: String,
    },
    /// A node did not do its part.
    #[error("{0}")]
    Failed(String),
}

/// What a run showed. Times are virtual.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Payments started.
    pub sent: u32,
    /// Payments that arrived.
    pub succeeded: u32,
    /// Virtual time of the burst, ms.
    pub burst_ms: u64,
    /// Half took no longer, ms.
    pub p50_ms: u64,
    /// 99 % took no longer, ms.
    pub p99_ms: u64,
    /// What the receiver owns in the channel at the end, msat.
    pub receiver_msat: u64,
    /// Whether both sides agree on every msat.
    pub conserved: bool,
}

impl Scenario {
    /// Reads and checks a scenario file.
    ///
    /// # Errors
    ///
    /// See [`ScenarioError`].
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ScenarioError::Read { path: name.clone(), source })?;
        let scenario: Self = toml::from_str(&text)
            .map_err(|error| ScenarioError::Parse { path: name, detail: error.to_string() })?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), ScenarioError> {
        let impossible = |key, value, why: &str| {
            Err(ScenarioError::Impossible { key, value, why: why.to_owned() })
        };
        let total = u64::from(self.workload.payments).checked_mul(self.workload.amount_msat);
        if self.workload.payments == 0 {
            return impossible("workload.payments", 0, "nothing would happen");
        }
        if self.workload.in_flight == 0 {
            return impossible("workload.in_flight", 0, "nothing would happen");
        }
        if self.workload.amount_msat == 0 {
            return impossible("workload.amount_msat", 0, "a payment is at least 1 msat");
        }
        if total.is_none_or(|total| total > self.channel.capacity_sat.saturating_mul(1_000)) {
            let value = self.channel.capacity_sat;
            return impossible("channel.capacity_sat", value, "all payments together are more");
        }
        Ok(())
    }

    /// Runs on virtual time and returns the report.
    ///
    /// # Errors
    ///
    /// [`ScenarioError::Failed`] if a node does not do its part.
    pub fn run(&self) -> Result<Report, ScenarioError> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .map_err(failed)?
            .block_on(self.play())
    }

    async fn play(&self) -> Result<Report, ScenarioError> {
        let clock = SimClock::start();
        let net = SimNet::new(Duration::from_millis(self.link.latency_ms));
        let chain = EmbeddedChain::new(EmbeddedConfig::default(), Arc::new(clock));
        let payer = self.host(0, "payer", &chain, &net, clock).await?;
        let payee = self.host(1, "payee", &chain, &net, clock).await?;
        self.open_channel(&payer, &payee, &chain).await?;

        let began = Instant::now();
        let times: Vec<Option<Duration>> = stream::iter(0..self.workload.payments)
            .map(|_| self.pay_once(&payer, &payee))
            .buffer_unordered(self.workload.in_flight as usize)
            .collect()
            .await;
        let burst = began.elapsed();
        let quiet = || {
            let channels = [payer.lightning.channels(), payee.lightning.channels()].concat();
            channels.iter().all(|c| c.inbound_htlcs == 0 && c.outbound_htlcs == 0)
        };
        wait("the last HTLC to settle", quiet).await?;
        let mut times: Vec<Duration> = times.into_iter().flatten().collect();
        times.sort_unstable();
        let rank = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).map_or(0, |time| millis(*time))
        };
        let ours = payer.lightning.channels();
        let theirs = payee.lightning.channels();
        let conserved = ours.len() == 1
            && theirs.len() == 1
            && ours[0].local_msat + theirs[0].local_msat == self.channel.capacity_sat * 1_000;
        let report = Report {
            seed: self.seed,
            sent: self.workload.payments,
            succeeded: u32::try_from(times.len()).unwrap_or(u32::MAX),
            burst_ms: millis(burst),
            p50_ms: rank(50),
            p99_ms: rank(99),
            receiver_msat: theirs.iter().map(|channel| channel.local_msat).sum(),
            conserved,
        };
        payer.stop().await;
        payee.stop().await;
        Ok(report)
    }

    async fn host(
        &self,
        number: u64,
        name: &str,
        chain: &EmbeddedChain,
        net: &SimNet,
        clock: SimClock,
    ) -> Result<Node, ScenarioError> {
        let entropy: Arc<dyn Entropy> = Arc::new(SimEntropy::new(self.seed, number));
        let phrase = RecoveryPhrase::generate(WordCount::Twelve, &*entropy);
        let keys = Arc::new(Keys::in_memory(Network::Regtest, &phrase, ""));
        let mut config = Config { network: Network::Regtest, ..Config::default() };
        config.alias = name.to_owned();
        config.lightning.listen_addresses = vec![format!("{name}:9735")];
        config.lightning.forward_delay_ms = 0;
        config.rpc.listen = String::new();
        let environment = Environment {
            clock: Arc::new(clock) as Arc<dyn Clock>,
            entropy,
            chain: Arc::new(chain.clone()),
            broadcaster: Arc::new(chain.clone()),
            fees: Arc::new(chain.clone()),
            store: Arc::new(MemoryDisk::new().open()),
            links: Arc::new(net.clone()),
            committing: Committing::Inline,
        };
        Node::start(config, keys, environment).await.map_err(failed)
    }

    async fn open_channel(
        &self,
        payer: &Node,
        payee: &Node,
        chain: &EmbeddedChain,
    ) -> Result<(), ScenarioError> {
        let nobody = bitcoin::ScriptBuf::new_op_return([]);
        for node in [payer, payee] {
            let (address, _) = node.wallet.new_address();
            let amount = Amount::from_sat(self.channel.capacity_sat + 1_000_000);
            chain.fund(&address.script_pubkey(), amount).map_err(failed)?;
        }
        let synced = || {
            let tip = Some(chain.best());
            payer.sync.borrow().synced == tip && payee.sync.borrow().synced == tip
        };
        chain.mine(1, &nobody);
        wait("the nodes to see their coins", synced).await?;
        let open = OpenRequest {
            peer: payee.lightning.node_id(),
            address: Some(payee.listening[0].clone()),
            capacity_sat: self.channel.capacity_sat,
            push_msat: 0,
            announced: false,
            feerate_sat_per_vb: None,
            zero_reserve: false,
            fees: None,
        };
        let view = payer.channels.request_open(open, None).await.map_err(failed)?;
        let channel = view.record.channel;
        let is = |wanted: ChannelState| {
            payer.channels.get(channel).is_some_and(|view| view.record.state == wanted)
        };
        wait("the funding transaction", || is(ChannelState::AwaitingConfirmation)).await?;
        wait("its broadcast", || chain.stats().waiting > 0).await?;
        for _ in 0..6 {
            chain.mine(1, &nobody);
            wait("the nodes to follow the chain", synced).await?;
        }
        wait("the channel", || {
            let usable = |node: &Node| node.lightning.channels().iter().any(|c| c.usable);
            usable(payer) && usable(payee)
        })
        .await
    }

    async fn pay_once(&self, payer: &Node, payee: &Node) -> Option<Duration> {
        let began = Instant::now();
        let create = CreateInvoice {
            amount_msat: Some(self.workload.amount_msat),
            description: InvoiceDescription::Text(String::new()),
            // LDK stamps invoices with the machine's clock, which is not the simulation's.
            expiry: Duration::from_secs(366 * 24 * 3_600),
            min_final_cltv_expiry_delta: None,
            hash: None,
        };
        let invoice = payee.payments.create_invoice(create, None).await.ok()?;
        let request = PayRequest {
            target: PayTarget::Request(invoice.invoice),
            amount_msat: None,
            max_fee_msat: None,
            retry_for: None,
            max_parts: None,
            payer_note: None,
        };
        let mut payment = payer.payments.pay(&request, None).ok()?;
        let outcome = payment.outcome().await.ok()?;
        (outcome.state == PaymentState::Succeeded).then(|| began.elapsed())
    }
}

async fn wait(what: &str, done: impl Fn() -> bool) -> Result<(), ScenarioError> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > deadline {
            return Err(failed(format!("{what} did not come within {} s", PATIENCE.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> ScenarioError {
    ScenarioError::Failed(error.to_string())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        Scenario::load(Path::new("../configs/simnet/two-nodes.toml")).unwrap()
    }

    #[test]
    fn two_nodes_pay_in_virtual_time() {
        let mut scenario = scenario();
        scenario.workload.payments = 20;
        let report = scenario.run().unwrap();
        assert_eq!(report.succeeded, 20, "{report:?}");
        assert_eq!(report.receiver_msat, 20_000);
        assert!(report.conserved, "{report:?}");
        // Add, commit, revoke both ways, then the claim back: no payment beats three flights.
        assert!(report.p50_ms >= 60, "{report:?}");
    }

    #[test]
    fn impossible_settings_name_the_key() {
        let mut scenario = scenario();
        scenario.workload.amount_msat = 100_000_000;
        let error = scenario.check().unwrap_err().to_string();
        assert!(error.contains("channel.capacity_sat"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = toml::from_str::<Scenario>("seed = 1\nsede = 2").unwrap_err().to_string();
        assert!(error.contains("sede"), "{error}");
    }
}
