//! The scenarios that come with the project run, repeat, and load into pandas.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use simnet::scenario::{Document, Engine};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/simnet")
}

/// All scenario files.
fn scenarios() -> Vec<(String, Document)> {
    let mut found: Vec<(String, Document)> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, Document::read(&path).unwrap())
        })
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

fn simnet() -> Command {
    Command::new(env!("CARGO_BIN_EXE_simnet"))
}

fn run(name: &str, out: &Path, more: &[&str]) -> String {
    let file = folder().join(format!("{name}.toml"));
    let output = simnet()
        .args(["run", "--engine", "model", "--quiet", "--json", "--out"])
        .arg(out)
        .arg(file)
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn there_are_six_scenarios_for_newcomers_and_all_can_run() {
    let names: Vec<String> = scenarios().iter().map(|(name, _)| name.clone()).collect();
    for name in [
        "cheaters-with-tower",
        "churn",
        "hub-500-wallets",
        "liquidity-drain",
        "mass-exit",
        "micropayment-burst",
    ] {
        assert!(names.iter().any(|other| other == name), "{name} of {names:?}");
    }
    for (name, document) in scenarios() {
        let scenario = document.scenario().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(scenario.name, name);
        assert!(!scenario.about.is_empty() && !scenario.engines.is_empty());
        for engine in &scenario.engines {
            scenario.check(*engine, &document).unwrap();
        }
        assert!(scenario.engines.contains(&Engine::Model) || name.ends_with("faults"), "{name}");
        let topology = scenario.build(&document).unwrap();
        assert!(topology.network.nodes > 1);
    }
}

#[test]
fn a_run_says_what_happened_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    run("micropayment-burst", &out("a"), &[]);
    run("micropayment-burst", &out("b"), &[]);
    for name in ["summary.json", "payments.parquet", "samples.csv", "report.html"] {
        let read = |run: &str| fs::read(out(run).join(name)).unwrap();
        assert!(read("a") == read("b"), "{name}");
    }
    let summary: serde_json::Value =
        serde_json::from_slice(&fs::read(out("a").join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["success_rate"]["mean"], 1.0);
    assert_eq!(summary["seed"], 1);
    for key in ["version", "commit", "partial", "warm_up_s"] {
        assert!(!summary[key].is_null(), "{key}");
    }
}

#[test]
fn towers_punish_cheaters_and_nobody_does_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    run("cheaters-with-tower", out, &["--set", "batches.tower_ppm=0,1000000"]);
    let runs = fs::read_to_string(out.join("runs.json")).unwrap();
    let runs: serde_json::Value = serde_json::from_str(&runs).unwrap();
    let totals = |place: usize| &runs[place]["totals"];
    assert!(totals(0)["cheats"].as_u64().unwrap() > 10);
    assert_eq!(totals(0)["cheats_punished"], 0);
    assert_eq!(totals(1)["cheats"], totals(0)["cheats"]);
    assert_eq!(totals(1)["cheats_punished"], totals(1)["cheats"]);
}

#[test]
fn leaving_is_for_those_whom_it_is_worth() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let fewer = "topology.users=400";
    run("mass-exit", out, &["--set", fewer, "--set", "chain.feerate_sat_per_vb=1,1000"]);
    let runs = fs::read_to_string(out.join("runs.json")).unwrap();
    let runs: serde_json::Value = serde_json::from_str(&runs).unwrap();
    let total = |place: usize, key: &str| runs[place]["totals"][key].as_u64().unwrap();
    assert!(total(0, "exits_done") > 250);
    assert!(total(1, "exits_not_worth") > 300);
    // A level in each of four blocks, a commitment, a claim; nobody is too late.
    assert_eq!(total(0, "exits_late") + total(1, "exits_late"), 0);
    // Users share what is above them: less than the 2,070 vB of one who leaves alone.
    let bytes = runs[0]["chain_vb"].as_u64().unwrap() / total(0, "exits_done");
    assert!((500..1_200).contains(&bytes), "{bytes}");
}

#[test]
fn users_roll_over_and_the_old_batch_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    let fewer = ["--set", "workload.0.arrivals.per_second=0.001"];
    run("hub-500-wallets", folder.path(), &fewer);
    let summary = fs::read_to_string(folder.path().join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    let totals = &summary["totals"];
    // Six weeks of two batches that live four: each is followed twice.
    assert_eq!(totals["batches_opened"], 6);
    assert!(totals["batches_settled"].as_u64().unwrap() >= 2);
    assert!(totals["rolled_over"].as_u64().unwrap() >= 490);
    assert_eq!(totals["lost_sat"], 0);
    // While users move, both batches are funded.
    let capital = summary["capital_locked_max_sat"].as_u64().unwrap();
    assert_eq!(capital, 2 * 500 * 200_000);
}

#[test]
fn batches_that_are_old_at_the_beginning_roll_over_soon() {
    let folder = tempfile::tempdir().unwrap();
    run("hub-60-wallets-in-batches", folder.path(), &[]);
    let summary = fs::read_to_string(folder.path().join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    // 40 blocks, of which the window is open for 16.
    assert_eq!(summary["totals"]["batches_opened"], 4);
    let moved = summary["totals"]["rolled_over"].as_u64().unwrap();
    assert!((1..20).contains(&moved), "{moved}");
}

/// A Python that has pandas and a Parquet reader, if there is one.
fn python() -> Option<String> {
    let wanted = std::env::var("SIMNET_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = |module: &str| {
        let import = format!("import {module}");
        let output = Command::new(&wanted).args(["-c", &import]).output();
        output.is_ok_and(|output| output.status.success())
    };
    (has("pandas") && has("pyarrow")).then_some(wanted)
}

#[test]
fn results_load_into_pandas_in_two_lines() {
    let Some(python) = python() else {
        eprintln!("skipped: no python with pandas and pyarrow");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    run("micropayment-burst", folder.path(), &[]);
    let script = "import pandas\n\
                  payments = pandas.read_parquet('payments.parquet')\n\
                  csv = pandas.read_csv('payments.csv')\n\
                  assert payments.equals(csv), (payments.dtypes, csv.dtypes)\n\
                  print(len(payments), (payments.outcome == 'succeeded').mean())\n";
    let output =
        Command::new(python).args(["-c", script]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "2000 1.0");
}
