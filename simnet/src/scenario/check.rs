//! Refuses settings that cannot be, before anything runs.

use super::load::{Document, Impossible, ScenarioError};
use super::{
    Amounts, Arrivals, BatchSpec, Engine, Fault, Pairs, Scenario, Stream, TopologySpec, Who,
};
use crate::topology::{Node, Topology};

/// The radix that nodes choose below 1,024 users, which no live run has in one batch.
const LIVE_RADIX: u8 = 4;
/// The shortest life of a batch that a node's configuration allows, in blocks.
const LIVE_LIFE_MIN: u32 = 1_008;

type Checked = Result<(), Impossible>;

fn refuse(key: impl Into<String>, value: impl ToString, why: impl Into<String>) -> Checked {
    Err(Impossible { key: key.into(), value: value.to_string(), why: why.into() })
}

fn positive(key: impl Into<String>, value: f64) -> Checked {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    refuse(key, value, "it must be more than 0")
}

fn not_negative(key: impl Into<String>, value: f64) -> Checked {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    refuse(key, value, "it must not be negative")
}

impl Scenario {
    /// Checks everything that needs no network.
    ///
    /// # Errors
    ///
    /// [`ScenarioError::Impossible`], which names file, line, key and value.
    pub fn check(&self, engine: Engine, document: &Document) -> Result<(), ScenarioError> {
        self.check_plain(engine).map_err(|what| document.impossible(what))
    }

    fn check_plain(&self, engine: Engine) -> Checked {
        if !self.engines.contains(&engine) {
            let names: Vec<&str> = self.engines.iter().map(|engine| engine.name()).collect();
            let why = format!("it is not made for the {} engine", engine.name());
            return refuse("engines", names.join(", "), why);
        }
        self.check_sizes()?;
        if engine == Engine::Live {
            self.check_live_batches()?;
        }
        self.check_spans()?;
        if self.workload.is_empty() && self.batches.is_none() {
            return refuse("workload", "[]", "nothing would happen");
        }
        for (place, stream) in self.workload.iter().enumerate() {
            check_stream(&format!("workload.{place}"), stream)?;
        }
        for (place, fault) in self.faults.iter().enumerate() {
            let key = format!("faults.{place}.kind");
            if !fault.runs_on(engine) {
                let why = format!("the {} engine has no such fault", engine.name());
                return refuse(key, fault.name(), why);
            }
            check_fault(&format!("faults.{place}"), fault)?;
            let of_batches = matches!(fault, Fault::MassExit { .. } | Fault::Cheat { .. });
            if of_batches && self.batches.is_none() {
                return refuse(key, fault.name(), "only users of [batches] do that");
            }
        }
        Ok(())
    }

    fn check_sizes(&self) -> Checked {
        let nodes = match &self.topology {
            TopologySpec::Line { nodes, .. } => ("topology.nodes", u64::from(*nodes)),
            TopologySpec::ScaleFree { nodes, .. } => ("topology.nodes", u64::from(*nodes)),
            TopologySpec::Lattice { width, height, .. } => {
                ("topology.width", u64::from(*width) * u64::from(*height))
            }
            TopologySpec::HubAndSpoke { hubs, .. } if *hubs == 0 => ("topology.hubs", 0),
            TopologySpec::HubAndSpoke { hubs, users, .. } => {
                ("topology.users", u64::from(*hubs) + u64::from(*users))
            }
            TopologySpec::File { .. } => ("topology.path", 2),
        };
        match nodes {
            (key, 0) => return refuse(key, 0, "there would be no nodes"),
            (key, 1) => return refuse(key, 1, "a payment needs two nodes"),
            (key, count) if count > 10_000_000 => {
                return refuse(key, count, "at most 10,000,000 nodes can be numbered");
            }
            _ => {}
        }
        if let TopologySpec::ScaleFree { channels_per_node: 0, .. } = self.topology {
            return refuse("topology.channels_per_node", 0, "nobody could pay anybody");
        }
        let slots = self.channels.htlc_slots;
        if !(1..=483).contains(&slots) {
            return refuse("channels.htlc_slots", slots, "BOLT 2 allows 1 to 483");
        }
        if self.channels.reserve_ppm >= 500_000 {
            let value = self.channels.reserve_ppm;
            return refuse("channels.reserve_ppm", value, "two sides could spend nothing");
        }
        if self.senders.attempts_max == 0 {
            return refuse("senders.attempts_max", 0, "nobody could pay");
        }
        if self.senders.parts_max == 0 {
            return refuse("senders.parts_max", 0, "nobody could pay");
        }
        if let Some(batches) = &self.batches {
            if !(1..=1_900).contains(&batches.users_max) {
                return refuse("batches.users_max", batches.users_max, "a batch has 1 to 1,900");
            }
            if !(2..=16).contains(&batches.radix) {
                return refuse("batches.radix", batches.radix, "a tree's radix is 2 to 16");
            }
            if batches.lifetime_blocks < 800 {
                let why = "there must be time to move before the deadline: 800 at least";
                return refuse("batches.lifetime_blocks", batches.lifetime_blocks, why);
            }
            if batches.age_blocks >= batches.lifetime_blocks / 2 {
                let why = "users begin to move at half the life: less than that";
                return refuse("batches.age_blocks", batches.age_blocks, why);
            }
        }
        Ok(())
    }

    /// What of `[batches]` real nodes decide themselves, or have not.
    fn check_live_batches(&self) -> Checked {
        let Some(BatchSpec { radix, lifetime_blocks, tower_ppm, .. }) = self.batches else {
            return Ok(());
        };
        if radix != LIVE_RADIX {
            let why = "real nodes form trees of radix 4 in the live engine";
            return refuse("batches.radix", radix, why);
        }
        if lifetime_blocks < LIVE_LIFE_MIN {
            let why = format!("real nodes form batches of {LIVE_LIFE_MIN} blocks at least");
            return refuse("batches.lifetime_blocks", lifetime_blocks, why);
        }
        if tower_ppm > 0 {
            let why = "the live engine has no towers; say 0, and users who sleep guard themselves";
            return refuse("batches.tower_ppm", tower_ppm, why);
        }
        Ok(())
    }

    fn check_spans(&self) -> Checked {
        let [least, most] = self.links.latency_ms;
        not_negative("links.latency_ms", least)?;
        if most.is_nan() || most < least {
            return refuse("links.latency_ms", format!("[{least}, {most}]"), "least before most");
        }
        not_negative("links.processing_ms", self.links.processing_ms)?;
        positive("senders.failure_half_life_s", self.senders.failure_half_life_s)?;
        not_negative("senders.retry_for_s", self.senders.retry_for_s)?;
        positive("chain.block_s", self.chain.block_s)?;
        if self.chain.room_vb < 1_000 {
            return refuse("chain.room_vb", self.chain.room_vb, "no transaction would fit");
        }
        not_negative("measure.warm_up_s", self.measure.warm_up_s)?;
        positive("measure.sample_s", self.measure.sample_s)?;
        not_negative("measure.until_s", self.measure.until_s)?;
        if self.measure.batches < 2 {
            let why = "an interval needs two means at least";
            return refuse("measure.batches", self.measure.batches, why);
        }
        Ok(())
    }

    /// Checks what depends on the network.
    pub(super) fn check_network(&self, topology: &Topology) -> Checked {
        let network = &topology.network;
        if network.nodes < 2 || network.channels.is_empty() {
            return refuse("topology", network.nodes, "nodes without channels pay nobody");
        }
        let sats = network.channels.iter().map(|channel| channel.capacity_sat);
        let most_msat = sats.max().unwrap_or(0).saturating_mul(1_000);
        for (place, stream) in self.workload.iter().enumerate() {
            let key = format!("workload.{place}");
            if let Some(amounts) = &stream.amounts {
                let least = amounts.least_msat();
                if least.div_ceil(u64::from(self.senders.parts_max)) > most_msat {
                    let why = format!("it is above every capacity, at most {most_msat} msat");
                    return refuse(format!("{key}.amounts"), least, why);
                }
            }
            self.check_pairs(&key, stream, topology)?;
        }
        for (place, fault) in self.faults.iter().enumerate() {
            let key = format!("faults.{place}");
            let many = matches!(fault, Fault::Offline { .. } | Fault::Cut { .. });
            for node in fault.nodes() {
                let key = format!("{key}.{}", if many { "nodes" } else { "node" });
                check_node(&key, node, topology)?;
            }
            if let Fault::Churn { among, .. } = fault {
                check_who(&format!("{key}.among"), *among, topology)?;
            }
        }
        let is_hub = |node: &Node| self.batches.is_some() && topology.hubs.contains(node);
        for (place, fault) in self.faults.iter().enumerate() {
            if let Fault::OldSnapshot { node, .. } = fault
                && is_hub(node)
            {
                let why = "a hub of batches cannot start without those it formed since";
                return refuse(format!("faults.{place}.node"), node, why);
            }
        }
        if self.batches.is_some() && topology.users.is_empty() {
            return refuse("batches", "on", "only a topology with hubs and users has batches");
        }
        Ok(())
    }

    fn check_pairs(&self, key: &str, stream: &Stream, topology: &Topology) -> Checked {
        let key = format!("{key}.pairs");
        match &stream.pairs {
            None => Ok(()),
            Some(Pairs::Fixed { from, to }) => {
                check_node(&format!("{key}.from"), *from, topology)?;
                check_node(&format!("{key}.to"), *to, topology)
            }
            Some(Pairs::Random { senders, receivers } | Pairs::Zipf { senders, receivers, .. }) => {
                check_who(&format!("{key}.senders"), *senders, topology)?;
                check_who(&format!("{key}.receivers"), *receivers, topology)
            }
            Some(Pairs::Ring { among, .. }) => check_who(&format!("{key}.among"), *among, topology),
        }
    }
}

fn check_fault(key: &str, fault: &Fault) -> Checked {
    match fault {
        Fault::Offline { from_s, to_s, .. }
        | Fault::FeeSpike { from_s, to_s, .. }
        | Fault::Cut { from_s, to_s, .. }
        | Fault::ClockSkew { from_s, to_s, .. }
        | Fault::SlowDisk { from_s, to_s, .. } => {
            not_negative(format!("{key}.from_s"), *from_s)?;
            if to_s.is_finite() && to_s > from_s {
                return Ok(());
            }
            refuse(format!("{key}.to_s"), to_s, format!("it must come after from_s = {from_s}"))
        }
        Fault::Churn { share_ppm, mean_up_s, mean_down_s, .. } => {
            positive(format!("{key}.mean_up_s"), *mean_up_s)?;
            positive(format!("{key}.mean_down_s"), *mean_down_s)?;
            check_share(key, *share_ppm)
        }
        Fault::MassExit { at_s, share_ppm } | Fault::Cheat { at_s, share_ppm } => {
            not_negative(format!("{key}.at_s"), *at_s)?;
            check_share(key, *share_ppm)
        }
        Fault::Crash { at_s, for_s, .. } | Fault::LostSync { at_s, for_s, .. } => {
            not_negative(format!("{key}.at_s"), *at_s)?;
            not_negative(format!("{key}.for_s"), *for_s)
        }
        Fault::OldSnapshot { at_s, age_s, .. } => {
            not_negative(format!("{key}.at_s"), *at_s)?;
            if *age_s > 0.0 && age_s <= at_s {
                return Ok(());
            }
            let why = format!("a copy is from before at_s = {at_s}, and from after the start");
            refuse(format!("{key}.age_s"), age_s, why)
        }
        Fault::Reorg { at_s, depth } => {
            not_negative(format!("{key}.at_s"), *at_s)?;
            if (1..=6).contains(depth) {
                return Ok(());
            }
            refuse(format!("{key}.depth"), depth, "1 to 6: deeper ones undo the channels")
        }
    }
}

fn check_share(key: &str, share_ppm: u32) -> Checked {
    if share_ppm <= 1_000_000 {
        return Ok(());
    }
    refuse(format!("{key}.share_ppm"), share_ppm, "more than all, which is 1,000,000")
}

fn check_node(key: &str, node: Node, topology: &Topology) -> Checked {
    if node < topology.network.nodes {
        return Ok(());
    }
    refuse(key, node, format!("nodes are numbered 0 to {}", topology.network.nodes - 1))
}

fn check_who(key: &str, who: Who, topology: &Topology) -> Checked {
    let missing = match who {
        Who::Hubs => topology.hubs.is_empty(),
        Who::Users => topology.users.is_empty(),
        Who::Connected | Who::All => false,
    };
    if missing {
        let name = if who == Who::Hubs { "hubs" } else { "users" };
        return refuse(key, name, "this topology has none");
    }
    Ok(())
}

fn check_stream(key: &str, stream: &Stream) -> Checked {
    let arrivals = format!("{key}.arrivals");
    not_negative(format!("{key}.start_s"), stream.start_s)?;
    if let Arrivals::Trace { path } = &stream.arrivals {
        if stream.amounts.is_some() || stream.pairs.is_some() {
            let why = "a trace says amounts and pairs itself";
            return refuse(arrivals, path.display(), why);
        }
        return Ok(());
    }
    match &stream.arrivals {
        Arrivals::Poisson { per_second } | Arrivals::Even { per_second } => {
            positive(format!("{arrivals}.per_second"), *per_second)?;
        }
        Arrivals::Burst { size, every_s } => {
            positive(format!("{arrivals}.every_s"), *every_s)?;
            if *size == 0 {
                return refuse(format!("{arrivals}.size"), 0, "nothing would happen");
            }
        }
        Arrivals::Trace { .. } => {}
    }
    if stream.payments.is_none() && stream.duration_s.is_none() {
        return refuse(key, "endless", "say payments or duration_s");
    }
    if stream.payments == Some(0) {
        return refuse(format!("{key}.payments"), 0, "nothing would happen");
    }
    if let Some(duration) = stream.duration_s {
        positive(format!("{key}.duration_s"), duration)?;
    }
    check_amounts(&format!("{key}.amounts"), stream.amounts.as_ref())?;
    match &stream.pairs {
        None => refuse(format!("{key}.pairs"), "nothing", "say from whom to whom"),
        Some(Pairs::Fixed { from, to }) if from == to => {
            refuse(format!("{key}.pairs.to"), to, "nobody pays itself")
        }
        Some(Pairs::Ring { size, .. }) if *size < 2 => {
            refuse(format!("{key}.pairs.size"), size, "a ring has two nodes at least")
        }
        Some(Pairs::Zipf { exponent, .. }) => {
            not_negative(format!("{key}.pairs.exponent"), *exponent)
        }
        Some(_) => Ok(()),
    }
}

fn check_amounts(key: &str, amounts: Option<&Amounts>) -> Checked {
    let Some(amounts) = amounts else { return refuse(key, "nothing", "say how much") };
    if let Amounts::LogNormal { median_msat, sigma, max_msat } = amounts {
        not_negative(format!("{key}.sigma"), *sigma)?;
        if *median_msat == 0 || *max_msat < *median_msat {
            return refuse(format!("{key}.median_msat"), median_msat, "1 to max_msat");
        }
    }
    if amounts.least_msat() == 0 {
        return refuse(key, 0, "a payment is at least 1 msat");
    }
    match amounts {
        Amounts::Uniform { min_msat, max_msat } | Amounts::LogUniform { min_msat, max_msat }
            if max_msat < min_msat =>
        {
            refuse(format!("{key}.max_msat"), max_msat, format!("it is below {min_msat}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEXT: &str = r#"name = "x"
engines = ["model"]
seed = 1
[topology]
kind = "line"
nodes = 2
[[workload]]
arrivals = { kind = "even", per_second = 1.0 }
amounts = { kind = "fixed", msat = 1000 }
pairs = { kind = "fixed", from = 0, to = 1 }
payments = 3
"#;

    fn refusal(text: &str) -> String {
        let document = Document::parse(Path::new("x.toml"), text.to_owned()).unwrap();
        let scenario = document.scenario().unwrap();
        let checked = scenario
            .check(Engine::Model, &document)
            .and_then(|()| scenario.build(&document).map(|_| ()));
        checked.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_is_possible_passes() {
        assert_eq!(refusal(TEXT), "");
    }

    #[test]
    fn what_is_impossible_is_named_with_line_key_and_value() {
        for (wrong, expected) in [
            (TEXT.replace("nodes = 2", "nodes = 0"), "line 6: topology.nodes = 0"),
            (
                TEXT.replace("msat = 1000", "msat = 2000000000"),
                "line 9: workload.0.amounts = 2000000000",
            ),
            (TEXT.replace("to = 1", "to = 5"), "line 10: workload.0.pairs.to = 5"),
            (TEXT.replace("to = 1", "to = 0"), "line 10: workload.0.pairs.to = 0"),
            (TEXT.replace("payments = 3", ""), "line 7: workload.0 = endless"),
            (TEXT.replace("\"model\"", "\"live\""), "line 2: engines = live"),
            (
                format!("{TEXT}[[faults]]\nkind = \"reorg\"\nat_s = 1\ndepth = 2\n"),
                "line 13: faults.0.kind = reorg is impossible: the model engine has no such fault",
            ),
            (
                format!(
                    "{TEXT}[[faults]]\nkind = \"fee_spike\"\nfrom_s = 5\nto_s = 5\nsat_per_vb = 9\n"
                ),
                "line 15: faults.0.to_s = 5",
            ),
            (
                format!("{TEXT}[[faults]]\nkind = \"mass_exit\"\nat_s = 1\nshare_ppm = 2\n"),
                "line 13: faults.0.kind = mass_exit",
            ),
        ] {
            let refusal = refusal(&wrong);
            assert!(refusal.starts_with("scenario x.toml: "), "{refusal}");
            assert!(refusal.contains(expected), "{refusal}\n{expected}");
        }
    }
}
