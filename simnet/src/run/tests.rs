//! Runs repeat to the byte, alone or many at a time, and stop when told.

use std::fs;

use super::*;
use crate::scenario::{Setting, variants};

const TEXT: &str = r#"name = "test"
engines = ["model"]
seed = 1
topology = { kind = "scale_free", nodes = 100, channels_per_node = 3 }
[[workload]]
arrivals = { kind = "poisson", per_second = 50.0 }
amounts = { kind = "log_uniform", min_msat = 1000, max_msat = 1000000000 }
pairs = { kind = "random" }
payments = 500
"#;

const LIMITS: Limits = Limits { jobs: 2, memory: None, program: None };

fn document() -> Document {
    Document::parse(Path::new("test.toml"), TEXT.to_owned()).unwrap()
}

fn sweep() -> Vec<Variant> {
    let settings = ["links.processing_ms=1,5", "senders.attempts_max=1,4"];
    let settings = settings.map(|text| Setting::parse(text).unwrap());
    variants(&settings, &[7, 8])
}

#[test]
fn files_are_the_same_whatever_runs_beside() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sweep = sweep();
    let control = Arc::new(Control::default());
    let done = run(Engine::Model, &document(), &sweep, LIMITS, Some(one.path()), &control).unwrap();
    assert_eq!(done.len(), 8);
    assert_eq!(control.begun.load(Ordering::Relaxed), 8 * 500);
    let alone = Limits { jobs: 1, ..LIMITS };
    run(Engine::Model, &document(), &sweep[..2], alone, Some(other.path()), &control).unwrap();
    for run in ["run-1", "run-2"] {
        for name in [
            "summary.json",
            "payments.csv",
            "payments.parquet",
            "samples.csv",
            "samples.parquet",
            "report.html",
        ] {
            let read = |folder: &Path| fs::read(folder.join(run).join(name)).unwrap();
            assert!(read(one.path()) == read(other.path()), "{run}/{name}");
        }
    }
    let runs = files::read_summaries(one.path()).unwrap();
    assert_eq!(runs[3].identity.settings["senders.attempts_max"], "4");
    assert_eq!((runs[3].identity.seed, runs[3].payments), (8, 500));
}

#[test]
fn a_stopped_run_leaves_a_valid_partial_report() {
    let folder = tempfile::tempdir().unwrap();
    let control = Arc::new(Control::default());
    let settings = Setting::parse("workload.0.payments=100000000").unwrap();
    let long = [Variant { settings, seed: None }];
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            while control.begun.load(Ordering::Relaxed) < 300 {
                std::thread::yield_now();
            }
            control.stop.store(true, Ordering::Relaxed);
        });
        let roomy = Limits { jobs: 1, memory: Some(u64::MAX), ..LIMITS };
        run(Engine::Model, &document(), &long, roomy, Some(folder.path()), &control).unwrap()
    });
    assert!(done[0].summary.partial && done[0].summary.payments >= 300);
    let read = files::read_summaries(folder.path()).unwrap();
    assert!(read[0].partial);
    let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("Partial:"));
}

#[test]
fn what_does_not_fit_says_how_much_it_needs() {
    let control = Arc::new(Control::default());
    let tight = Limits { jobs: 2, memory: Some(1_000_000), ..LIMITS };
    let error = run(Engine::Model, &document(), &sweep(), tight, None, &control).unwrap_err();
    let RunError::Memory(error) = error else { panic!("{error}") };
    assert!(error.needed > 1_000_000 && error.jobs == 2);
    assert!(error.to_string().contains("--memory-limit"), "{error}");
    let settings = ["topology.nodes=9000000", "topology.channels_per_node=1000"];
    let settings = settings.iter().flat_map(|text| Setting::parse(text).unwrap()).collect();
    let huge = [Variant { settings, seed: None }];
    let error = run(Engine::Model, &document(), &huge, LIMITS, None, &control).unwrap_err();
    assert!(matches!(error, RunError::Memory(_)), "{error}");
    assert_eq!(control.begun.load(Ordering::Relaxed), 0);
}

#[test]
fn an_impossible_variant_stops_the_sweep_before_it_runs() {
    let control = Arc::new(Control::default());
    let settings = [Setting::parse("senders.attempts_max=4,0").unwrap()];
    let sweep = variants(&settings, &[]);
    let error =
        run(Engine::Model, &document(), &sweep, LIMITS, None, &control).unwrap_err().to_string();
    assert!(error.contains("senders.attempts_max = 0"), "{error}");
    assert_eq!(control.begun.load(Ordering::Relaxed), 0);
}
