//! What the program says when something is wrong, and that it compares and measures.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn simnet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simnet")).args(arguments).output().unwrap()
}

fn refusal(arguments: &[&str]) -> String {
    let output = simnet(arguments);
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

fn scenario(folder: &Path, name: &str, topology: &str) -> String {
    let path = folder.join(name);
    let text = format!(
        "name = \"small\"\nengines = [\"model\"]\nseed = 1\n[topology]\n{topology}\n\
         [[workload]]\npayments = 400\n\
         arrivals = {{ kind = \"poisson\", per_second = 20.0 }}\n\
         amounts = {{ kind = \"uniform\", min_msat = 1, max_msat = 400000000 }}\n\
         pairs = {{ kind = \"random\" }}\n"
    );
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const GENERATED: &str = "kind = \"scale_free\"\nnodes = 50\nchannels_per_node = 3";

#[test]
fn a_broken_topology_is_named_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("graph.json"), "{\n\"edges\": [\n{\"node1_pub\": 5}]}").unwrap();
    let topology = "kind = \"file\"\nformat = \"lnd\"\npath = \"graph.json\"";
    let refusal = refusal(&["run", &scenario(folder.path(), "s.toml", topology)]);
    assert!(refusal.contains("graph.json: line 3: ") && refusal.contains('5'), "{refusal}");
}

#[test]
fn a_broken_scenario_is_named_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = scenario(folder.path(), "s.toml", &GENERATED.replace("50", "0"));
    let text = refusal(&["run", &path]);
    assert!(text.contains("s.toml: line 6: topology.nodes = 0 is impossible"), "{text}");
    assert!(refusal(&["run", "nowhere.toml"]).contains("nowhere.toml"));
    assert!(refusal(&["check", &path]).contains("topology.nodes = 0"));
}

#[test]
fn too_little_memory_is_said_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = scenario(folder.path(), "s.toml", GENERATED);
    let large = "topology.nodes=100000";
    let text = refusal(&["run", &path, "--memory-limit", "10", "--set", large]);
    assert!(text.contains("would need about") && text.contains("10 MB may be used"), "{text}");
}

#[test]
fn two_runs_are_compared_by_seed() {
    let folder = tempfile::tempdir().unwrap();
    let path = scenario(folder.path(), "s.toml", GENERATED);
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (name, setting) in [("a", "senders.attempts_max=1"), ("b", "senders.attempts_max=10")] {
        let output = simnet(&[
            "run",
            &path,
            "--seeds",
            "4",
            "--set",
            setting,
            "--out",
            &out(name),
            "--quiet",
        ]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let output = simnet(&["compare", &out("a"), &out("b"), "--json"]);
    let comparison: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(comparison["pairs"], 4);
    let success = &comparison["differences"][0];
    assert_eq!(success["metric"], "success_rate");
    assert!(success["difference"]["mean"].as_f64().unwrap() > 0.05, "{success}");
    assert_eq!(success["significant"], true);
    let text = String::from_utf8(simnet(&["compare", &out("a"), &out("b")]).stdout).unwrap();
    assert!(text.contains("success_rate") && text.contains("4 pairs"), "{text}");
    let both_models = refusal(&["divergence", &out("a/run-1"), &out("b/run-1")]);
    assert!(both_models.contains("of the model engine"), "{both_models}");
}

#[test]
fn the_model_is_measured() {
    let arguments = ["bench", "--engine", "model", "--json", "--nodes", "100", "--payments", "500"];
    let report: serde_json::Value = serde_json::from_slice(&simnet(&arguments).stdout).unwrap();
    assert!(report["live"].is_null());
    let model = &report["model"];
    assert_eq!((&model["nodes"], &model["payments"]), (&100.into(), &500.into()));
    for key in ["payments_per_cpu_second", "events_per_cpu_second", "peak_rss_bytes"] {
        assert!(model[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert!(model["success_rate"]["half_width"].is_number());
}

/// The signal goes to the child by its number, through the shell's own `kill`.
#[test]
#[cfg(unix)]
fn an_interrupt_leaves_a_partial_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = scenario(folder.path(), "s.toml", GENERATED);
    let out = folder.path().join("out");
    let child = Command::new(env!("CARGO_BIN_EXE_simnet"))
        .args(["run", &path, "--quiet", "--set", "workload.0.payments=50000000"])
        .args(["--memory-limit", "1000000", "--out"])
        .arg(&out)
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let kill = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let status = child.wait_with_output().unwrap().status;
    assert_eq!(status.code(), Some(130));
    let summary = fs::read_to_string(out.join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["partial"], true);
    assert!(summary["payments"].as_u64().unwrap() > 0);
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("Partial:"));
}
