//! The live engine as a program: runs repeat, faults cost nobody anything, the hunt keeps what it
//! finds.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use simnet::hunt::{Child, Verdict, draw};

const PROGRAM: &str = env!("CARGO_BIN_EXE_simnet");

/// Seeds of the hunt that run with every test: a few that are as good as any, and those that
/// failed once, see `HUNTS.md`. Every fourth has batches. What was found by seeds of an earlier
/// hunt is in `tests/hunts/`.
const SEEDS: [u64; 25] = [
    1, 2, 3, 4, 8, 12, 15, 16, 26, 34, 36, 82, 92, 114, 124, 143, 189, 191, 362, 363, 520, 524,
    809, 934, 981,
];

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/simnet").join(name)
}

fn simnet(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

/// Runs a scenario on the live engine, which must not complain.
fn run_live(file: &Path, arguments: &[&str]) -> serde_json::Value {
    let file = file.to_str().unwrap();
    let all = [&["run", file, "--engine", "live", "--quiet", "--json"], arguments].concat();
    let output = simnet(&all);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !complaints.contains("panicked"), "{complaints}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn hash(seed: &str) -> String {
    let summary = run_live(&config("two-nodes.toml"), &["--seed", seed]);
    assert_eq!(summary["success_rate"]["mean"], 1.0);
    summary["transcript_hash"].as_str().unwrap().to_owned()
}

/// One hub, four users in a batch, a few blocks before they may move to the next.
fn rolling() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rolling.toml");
    std::fs::write(&file, ROLLING).unwrap();
    (folder, file)
}

const ROLLING: &str = r#"name = "rolling"
engines = ["live"]
seed = 1
[topology]
kind = "hub_and_spoke"
hubs = 1
users = 4
user_channel = { capacity_sat = 200_000, base_msat = 0, ppm = 500, cltv_expiry_delta = 96 }
[channels]
balances = "uniform"
[batches]
users_max = 4
lifetime_blocks = 1_008
age_blocks = 494
tower_ppm = 0
[chain]
block_s = 10.0
feerate_sat_per_vb = 2
[[workload]]
arrivals = { kind = "poisson", per_second = 0.5 }
amounts = { kind = "log_uniform", min_msat = 1, max_msat = 5_000_000 }
pairs = { kind = "random", senders = "users", receivers = "users" }
duration_s = 200.0
"#;

#[test]
fn three_runs_of_a_seed_are_the_same_and_another_seed_is_not() {
    let first = hash("1");
    assert_eq!(hash("1"), first);
    assert_eq!(hash("1"), first);
    assert_ne!(hash("2"), first);
}

#[test]
fn runs_of_a_sweep_repeat_too() {
    let file = config("two-nodes.toml");
    let few = ["--set", "workload.0.payments=20"];
    let alone = run_live(&file, &[&few[..], &["--seed", "1"]].concat());
    let twice = run_live(&file, &[&few[..], &["--set", "seed=1,1"]].concat());
    let hashes: Vec<_> =
        twice.as_array().unwrap().iter().map(|run| &run["transcript_hash"]).collect();
    assert_eq!(hashes, [&alone["transcript_hash"]; 2]);
}

#[test]
fn sixty_wallets_roll_over() {
    let summary = run_live(&config("hub-60-wallets-in-batches.toml"), &[]);
    let totals = &summary["totals"];
    assert_eq!((&totals["batches_opened"], &totals["batches_settled"]), (&4.into(), &2.into()));
    assert_eq!(totals["rolled_over"], 60);
    assert!(summary["success_rate"]["mean"].as_f64().unwrap() > 0.95, "{summary}");
}

#[test]
fn users_roll_over_each_batch_is_settled_once_and_runs_repeat() {
    let (_folder, file) = rolling();
    let first = run_live(&file, &[]);
    let totals = &first["totals"];
    assert_eq!((&totals["batches_opened"], &totals["batches_settled"]), (&2.into(), &1.into()));
    assert_eq!(totals["rolled_over"], 4);
    assert!(first["success_rate"]["mean"].as_f64().unwrap() > 0.8, "{first}");
    // Old and new batch are both funded for a while.
    assert_eq!(first["capital_locked_max_sat"], 2 * 4 * 200_000);
    for _ in 0..2 {
        assert_eq!(run_live(&file, &[])["transcript_hash"], first["transcript_hash"]);
    }
}

#[test]
fn users_leave_their_batch_under_a_fee_market() {
    let (_folder, file) = rolling();
    let leave = "faults=[{ kind = \"mass_exit\", at_s = 20.0, share_ppm = 1000000 }]";
    let little_room = "chain.room_vb=1000";
    let even = "channels.balances=\"even\"";
    let set = ["--set", leave, "--set", little_room, "--set", even];
    let totals = &run_live(&file, &set)["totals"];
    assert_eq!((&totals["exits_done"], &totals["exits_late"]), (&4.into(), &0.into()));
}

#[test]
fn batches_survive_faults_while_they_roll_over() {
    let summary = run_live(&config("batches-and-faults.toml"), &[]);
    assert!(summary["totals"]["rolled_over"].as_u64().unwrap() >= 4, "{summary}");
    assert!(summary["totals"]["exits_done"].as_u64().unwrap() > 0, "{summary}");
}

#[test]
fn every_fault_passes_and_nobody_honest_loses() {
    let file = config("faults.toml");
    let output = simnet(&["run", file.to_str().unwrap(), "--quiet", "--json"]);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !complaints.contains("panicked"), "{complaints}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["success_rate"]["mean"].as_f64().unwrap() > 0.3, "{summary}");
    assert_eq!(summary["totals"]["cheats"], 1);
    assert_eq!(summary["totals"]["cheats_punished"], 1);
}

#[test]
fn seeds_of_the_hunt_hold() {
    let folder = tempfile::tempdir().unwrap();
    let child = Child {
        program: PROGRAM.into(),
        folder: folder.path().to_owned(),
        patience: Duration::from_secs(120),
    };
    for seed in SEEDS {
        let verdict = child.run(&draw(seed)).unwrap();
        assert!(matches!(verdict, Verdict::Held { .. }), "seed {seed}: {verdict:?}");
    }
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hunts");
    for file in std::fs::read_dir(kept).unwrap() {
        let file = file.unwrap().path();
        let verdict = child.run_file(&file).unwrap();
        assert!(matches!(verdict, Verdict::Held { .. }), "{}: {verdict:?}", file.display());
    }
}

#[test]
fn what_the_live_engine_cannot_do_is_refused_by_name() {
    let file = config("churn.toml");
    let file = file.to_str().unwrap();
    let wrong = "faults.0={ kind = \"cheat\", at_s = 1.0, share_ppm = 1 }";
    let refused = |file: &str, wrong: &str, why: &str| {
        let output = simnet(&["run", file, "--engine", "live", "--quiet", "--set", wrong]);
        assert!(!output.status.success());
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(complaints.contains(why), "{complaints}");
    };
    refused(file, wrong, "the live engine has no such fault");
    let (_folder, file) = rolling();
    let file = file.to_str().unwrap();
    for (wrong, why) in [
        (
            "batches.tower_ppm=1",
            "batches.tower_ppm = 1 is impossible: the live engine has no towers",
        ),
        ("batches.radix=8", "batches.radix = 8 is impossible"),
        ("batches.lifetime_blocks=1000", "batches.lifetime_blocks = 1000 is impossible"),
        ("batches.age_blocks=504", "batches.age_blocks = 504 is impossible"),
        (
            "faults=[{ kind = \"old_snapshot\", node = 0, at_s = 9.0, age_s = 5.0 }]",
            "faults.0.node = 0 is impossible",
        ),
    ] {
        refused(file, wrong, why);
    }
}
