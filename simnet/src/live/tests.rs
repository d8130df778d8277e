//! Small networks on virtual time.

use std::path::Path;

use super::{Run, run};
use crate::model::Control;
use crate::scenario::Document;
use crate::workload::Workload;

const LINE: &str = r#"name = "line"
engines = ["live"]
seed = 1
topology = { kind = "line", nodes = 3 }
channels = { balances = "even" }
links = { latency_ms = [20.0, 20.0], processing_ms = 0.0 }
[[workload]]
arrivals = { kind = "even", per_second = 5.0 }
amounts = { kind = "fixed", msat = 1000 }
pairs = { kind = "fixed", from = 0, to = 2 }
payments = 20
"#;

fn play(text: &str) -> Run {
    let document = Document::parse(Path::new("test.toml"), text.to_owned()).unwrap();
    let scenario = document.scenario().unwrap();
    let topology = scenario.build(&document).unwrap();
    let workload = Workload::new(&scenario, &topology, Path::new("")).unwrap();
    run(&scenario, &topology, workload, &Control::default()).unwrap()
}

#[test]
fn a_line_of_three_pays_in_virtual_time() {
    let run = play(LINE);
    assert_eq!(run.recorder.payments.len(), 20);
    for payment in &run.recorder.payments {
        assert!(payment.succeeded(), "{payment:?}");
        assert_eq!(payment.fee_msat, 1_000, "{payment:?}");
        // Three flights a hop and one back; timers have a tick of a millisecond.
        assert!((160_000..190_000).contains(&payment.latency_us), "{payment:?}");
    }
}
