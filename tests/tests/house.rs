//! Keeps the rules of the house: who may import whom, how long a file may be, which LDK.
//!
//! The rules are those of ARCHITECTURE.md. They read the sources as text: comments and string
//! contents are blanked first, `use` trees are expanded. Each rule names file and line, and
//! each is shown below to catch what it is for.
#![allow(clippy::unwrap_used)]

#[path = "house/source.rs"]
mod source;
#[path = "house/the_rules.rs"]
mod the_rules;

use std::fs;
use std::path::{Path, PathBuf};

use source::{Found, Source};

/// Files outside `node/src/lightning/` that may name LDK, each with its reason.
const LDK_OUTSIDE: [(&str, &str); 1] =
    [("channel-contracts/tests/ldk.rs", "LDK is the oracle of our scripts")];

/// Longest file, in lines.
const LINES_MAX: usize = 600;

/// Files to be split. Each may shrink, never grow, and leaves the list at 600 lines.
const TOO_LONG: [(&str, usize); 0] = [];

/// Rooms of `node/src`, top first. Calls go down, or sideways one way.
const ROOMS: [&[&str]; 6] = [
    &["node", "production", "dev", "bin"],
    &["rpc"],
    &[
        "channels", "payments", "batches", "unroll", "swaps", "tower", "journal", "onchain",
        "tokens", "webhooks", "payouts",
    ],
    &["lightning", "wallet", "chain"],
    &["store", "keys"],
    &["runtime", "config"],
];

/// The room of the seams: everybody may use it; it names only these.
const SEAMS: (&str, [&str; 2]) = ("environment", ["chain", "store"]);

/// Which members of the workspace each member may depend on.
const MEMBERS: [(&str, &[&str]); 6] = [
    ("channel-contracts", &[]),
    ("proto", &[]),
    ("node", &["channel-contracts", "proto"]),
    ("simnet", &["node", "channel-contracts", "proto"]),
    ("tests", &["node", "channel-contracts", "proto"]),
    ("benches", &["node", "channel-contracts", "proto", "simnet"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All files of ours below `folder` whose name ends in one of `endings`, as path and text.
fn files(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    fn visit(root: &Path, folder: &Path, endings: &[&str], files: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                visit(root, &path, endings, files);
            } else if path.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.push((relative, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = root();
    let mut files_found = Vec::new();
    visit(&root, &root.join(folder), endings, &mut files_found);
    assert!(!files_found.is_empty(), "no files in {folder}: the test looks in the wrong place");
    files_found.sort();
    files_found
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let read = |folder: &&str| files(folder, &[".rs"]);
    folders.iter().flat_map(read).map(|(path, text)| Source::new(path, &text)).collect()
}

#[track_caller]
fn assert_none(found: Vec<Found>) {
    let lines: Vec<String> = found.iter().map(Found::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

/// LDK is named in its room only.
fn ldk_outside_its_room(source: &Source) -> Vec<Found> {
    let allowed = source.path.starts_with("node/src/lightning/")
        || LDK_OUTSIDE.iter().any(|(path, _)| *path == source.path);
    if allowed {
        return vec![];
    }
    let message = "LDK is named outside node/src/lightning/; add what you need to that room";
    source.naming(&["lightning"], message)
}

/// tonic and generated types are named in the gRPC room only.
fn grpc_outside_its_room(source: &Source) -> Vec<Found> {
    let allowed = ["node/src/rpc/", "node/src/bin/"];
    if allowed.iter().any(|room| source.path.starts_with(room)) {
        return vec![];
    }
    let crates = ["tonic", "proto", "prost", "tonic_prost", "tonic_types", "tonic_reflection"];
    source.naming(&crates, "gRPC types are named outside node/src/rpc/ and node/src/bin/")
}

/// The contracts have no world around them.
fn impurity(source: &Source) -> Vec<Found> {
    let worlds = ["fs", "net", "time", "thread", "process", "env", "io"];
    let mut found = source.naming(&["tokio", "rand"], "contracts are pure");
    for path in source.paths() {
        if let [first, second, ..] = path.segments.as_slice()
            && first == "std"
            && worlds.contains(&second.as_str())
        {
            let message = format!("contracts are pure, but this names std::{second}");
            found.push(source.found(path.line, message));
        }
    }
    found
}

/// Words that stand for code which is not there.
fn placeholders(source: &Source) -> Vec<Found> {
    let mut found = Vec::new();
    for (line, text) in source.lines() {
        for word in ["todo!", "unimplemented!"] {
            if text.contains(word) {
                found.push(source.found(line, format!("{word} stands where code should be")));
            }
        }
    }
    found
}

/// Files longer than a reader can hold.
fn too_long(path: &str, text: &str, exceptions: &[(&str, usize)]) -> Option<Found> {
    let lines = text.lines().count();
    let exception = exceptions.iter().find(|(listed, _)| *listed == path);
    let message = match exception {
        None if lines > LINES_MAX => format!("{lines} lines; split it below {LINES_MAX}"),
        Some((_, limit)) if lines > *limit => {
            format!("{lines} lines, and it was to shrink from {limit}; split it")
        }
        Some(_) if lines <= LINES_MAX => {
            format!("{lines} lines: short enough, take it off the list TOO_LONG")
        }
        _ => return None,
    };
    Some(Found { path: path.to_owned(), line: lines, message })
}

/// The room a file of `node/src` belongs to.
fn room(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("node/src/")?;
    match inside.split_once('/') {
        Some((room, _)) => Some(room),
        None if inside == "lib.rs" => None,
        None => inside.strip_suffix(".rs"),
    }
}

fn floor(room: &str) -> Option<usize> {
    ROOMS.iter().position(|rooms| rooms.contains(&room))
}

/// A room's use of another: `(from, to, where)`.
fn arrows(source: &Source) -> Vec<(String, String, Found)> {
    let Some(from) = room(&source.path) else {
        return vec![];
    };
    let mut arrows = Vec::new();
    for path in source.production_paths() {
        if let [first, to, ..] = path.segments.as_slice()
            && first == "crate"
            && to != from
            && (floor(to).is_some() || to == SEAMS.0)
        {
            let found = source.found(path.line, format!("{from} uses {to}"));
            arrows.push((from.to_owned(), to.clone(), found));
        }
    }
    arrows
}

/// Arrows that go up, and pairs of rooms on one floor that use each other.
fn wrong_arrows(arrows: &[(String, String, Found)]) -> Vec<Found> {
    let mut wrong = Vec::new();
    for (from, to, found) in arrows {
        if to == SEAMS.0 {
            continue;
        }
        if from == SEAMS.0 {
            if !SEAMS.1.contains(&to.as_str()) {
                wrong.push(found.because("the seams name only chain and store"));
            }
            continue;
        }
        match (floor(from), floor(to)) {
            (None, _) => wrong.push(found.because("this room has no floor; add it to ROOMS")),
            (Some(above), Some(below)) if above > below => {
                wrong
                    .push(found.because("calls go down: rpc, services, lightning, store, runtime"));
            }
            (Some(one), Some(other)) if one == other => {
                let back = arrows.iter().find(|(a, b, _)| a == to && b == from);
                if let Some((_, _, back)) = back {
                    wrong.push(found.because(&format!("and back at {}:{}", back.path, back.line)));
                }
            }
            _ => {}
        }
    }
    wrong
}

/// The dependencies in a Cargo.toml: section, name and line.
fn dependencies(text: &str) -> Vec<(String, String, usize)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if let Some(name) = text.strip_prefix('[') {
            section = name.trim_end_matches(']').rsplit('.').next().unwrap().to_owned();
        } else if section.ends_with("dependencies") && !text.starts_with('#') {
            let name = text.split(['=', '.', ' ']).next().unwrap().trim_matches('"');
            if !name.is_empty() {
                found.push((section.clone(), name.to_owned(), line));
            }
        }
    }
    found
}

/// Dependencies that a member may not have.
fn wrong_dependencies(member: &str, text: &str) -> Vec<Found> {
    let Some((_, allowed)) = MEMBERS.iter().find(|(name, _)| *name == member) else {
        let message = format!("{member} is no member known here; add it to MEMBERS");
        return vec![Found { path: format!("{member}/Cargo.toml"), line: 1, message }];
    };
    let mut wrong = Vec::new();
    for (section, name, line) in dependencies(text) {
        let ours = MEMBERS.iter().any(|(other, _)| *other == name);
        let test_only = section == "dev-dependencies";
        let top = ["simnet", "tests", "benches"].contains(&name.as_str());
        let impure = ["lightning", "tokio", "rand"];
        let message = if ours && (top || !test_only) && !allowed.contains(&name.as_str()) {
            format!("{member} may not depend on {name}")
        } else if member == "channel-contracts"
            && !test_only
            && impure.iter().any(|word| name.starts_with(word))
        {
            format!("{member} is pure and may not depend on {name}")
        } else {
            continue;
        };
        wrong.push(Found { path: format!("{member}/Cargo.toml"), line, message });
    }
    wrong
}

/// The versions of `package` in a lock file, with their lines.
fn locked(lock: &str, package: &str) -> Vec<(String, usize)> {
    let name = format!("name = \"{package}\"");
    let lines: Vec<&str> = lock.lines().collect();
    let version = |i: usize| {
        let text = lines.get(i + 1)?.strip_prefix("version = \"")?.strip_suffix('"')?;
        Some((text.to_owned(), i + 2))
    };
    (0..lines.len()).filter(|i| lines[*i] == name).filter_map(version).collect()
}

/// Whether a version of LDK is 0.3.0-rc3 or newer, on the 0.3 line.
///
/// Before 0.2.7 it had a theft, remote panics and a denial of service; 0.2 lacks what the
/// batches need; a later line has not been tried.
fn is_good_ldk(version: &str) -> bool {
    let (numbers, pre_release) = version.split_once('-').unwrap_or((version, ""));
    let Some(patch) = numbers.strip_prefix("0.3.").and_then(|patch| patch.parse::<u32>().ok())
    else {
        return false;
    };
    match pre_release.strip_prefix("rc").map(str::parse::<u32>) {
        Some(Ok(candidate)) => patch > 0 || candidate >= 3,
        Some(Err(_)) => false,
        None => pre_release.is_empty(),
    }
}

#[test]
fn ldk_stays_in_its_room() {
    let mut found = Vec::new();
    for source in sources(&["node/src", "simnet/src", "proto/src", "channel-contracts", "tests"]) {
        found.extend(ldk_outside_its_room(&source.without_tests()));
    }
    assert_none(found);
}

#[test]
fn grpc_stays_in_its_room() {
    let folders = ["node/src", "simnet/src", "channel-contracts"];
    assert_none(sources(&folders).iter().flat_map(grpc_outside_its_room).collect());
}

#[test]
fn contracts_are_pure() {
    let sources = sources(&["channel-contracts/src"]);
    assert_none(sources.iter().map(Source::without_tests).flat_map(|s| impurity(&s)).collect());
}

#[test]
fn nothing_is_left_to_do() {
    let members = MEMBERS.map(|(name, _)| name);
    assert_none(sources(&members).iter().flat_map(placeholders).collect());
}

#[test]
fn files_are_short() {
    let endings = [".rs", ".proto", ".sh", ".toml"];
    let mut found = Vec::new();
    for (member, _) in MEMBERS {
        for (path, text) in files(member, &endings) {
            found.extend(too_long(&path, &text, &TOO_LONG));
        }
    }
    assert_none(found);
    for (path, _) in TOO_LONG {
        assert!(root().join(path).exists(), "{path} is gone; take it off the list TOO_LONG");
    }
}

#[test]
fn calls_go_down_the_house() {
    let arrows: Vec<_> = sources(&["node/src"]).iter().flat_map(arrows).collect();
    assert_none(wrong_arrows(&arrows));
}

#[test]
fn members_depend_one_way() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let line = workspace.lines().find(|line| line.starts_with("members")).unwrap();
    let members: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
    assert_eq!(members.len(), MEMBERS.len(), "{members:?}");
    let mut found = Vec::new();
    for member in members {
        let text = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        found.extend(wrong_dependencies(member, &text));
    }
    assert_none(found);
}

#[test]
fn ldk_has_its_fixes() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let versions = locked(&lock, "lightning");
    assert_eq!(versions.len(), 1, "one LDK only: {versions:?}");
    let (version, line) = &versions[0];
    assert!(
        is_good_ldk(version),
        "Cargo.lock:{line}: lightning {version} is not 0.3.0-rc3 or newer"
    );
}
