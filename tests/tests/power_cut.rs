//! What is left of a store after a power cut, for each engine.
//!
//! The long run is `cargo test -p tests --test power_cut -- --ignored --nocapture`; its verdict
//! decides which engine is the default.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use node::store::EngineKind;
use tests::power_cut::disk::Model;
use tests::power_cut::suite::{self, Plan, Verdict};

/// Runs the suite; nothing where this machine does not let a process be traced.
fn verdict(engine: EngineKind, plan: Plan) -> Option<Verdict> {
    // Memory where there is some: the suite makes thousands of images and needs no real disk.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let scratch = tempfile::tempdir_in(place).unwrap();
    let child = PathBuf::from(env!("CARGO_BIN_EXE_power_cut_child"));
    let began = std::time::Instant::now();
    let verdict = match suite::run(engine, plan, &child, scratch.path()) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            println!("skipped: ptrace is not permitted here");
            return None;
        }
        result => result.unwrap(),
    };
    println!("{verdict}  took {:?}", began.elapsed());
    Some(verdict)
}

const SHORT: Plan = Plan {
    seed: 1,
    batches: (60, 20),
    images: 300,
    seconds: 3,
    second_images: 30,
    model: Model::Strict,
};

fn long(model: Model, seed: u64) -> Plan {
    Plan { seed, batches: (300, 60), images: 2_500, seconds: 20, second_images: 60, model }
}

#[test]
fn default_engine_keeps_every_promise_after_a_cut() {
    let Some(verdict) = verdict(EngineKind::default(), SHORT) else {
        return;
    };
    assert!(verdict.findings.is_empty(), "{verdict}");
    assert!(verdict.images > 200, "only {} images", verdict.images);
}

#[test]
#[ignore = "minutes; the comparison that chose the default engine"]
fn engines_compared() {
    let mut default_failed = None;
    for engine in EngineKind::ALL {
        for (model, seed) in [(Model::Strict, 1), (Model::Journal, 2)] {
            let Some(verdict) = verdict(engine, long(model, seed)) else {
                return;
            };
            if engine == EngineKind::default() && !verdict.findings.is_empty() {
                default_failed = Some(verdict.to_string());
            }
        }
    }
    assert_eq!(default_failed, None);
}
