//! A channel that is paid through in one direction only, from the library: how long does it last?
//!
//! `cargo run --release -p simnet --no-default-features --example drain`

use std::path::Path;

use simnet::model::{Control, Engine};
use simnet::scenario::{Document, Engine as Name};
use simnet::workload::Workload;

const SCENARIO: &str = r#"
name = "drain"
engines = ["model"]
seed = 1
topology = { kind = "line", nodes = 2, channel = { capacity_sat = 100_000 } }
channels = { balances = "first" }

[[workload]]
arrivals = { kind = "poisson", per_second = 1.0 }
amounts = { kind = "uniform", min_msat = 1_000, max_msat = 2_000_000 }
pairs = { kind = "fixed", from = 0, to = 1 }
payments = 200
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let document = Document::parse(Path::new("drain.toml"), SCENARIO.to_owned())?;
    let scenario = document.scenario()?;
    scenario.check(Name::Model, &document)?;
    let topology = scenario.build(&document)?;
    let workload = Workload::new(&scenario, &topology, document.folder())?;
    let recorder = Engine::new(&scenario, &topology, 1 << 20).run(workload, &Control::default());
    for (place, payments) in recorder.payments.chunks(20).enumerate() {
        let arrived = payments.iter().filter(|payment| payment.succeeded()).count();
        println!(
            "payments {:>3} to {:>3}: {arrived:>2} of 20 arrive",
            place * 20 + 1,
            place * 20 + 20
        );
    }
    Ok(())
}
