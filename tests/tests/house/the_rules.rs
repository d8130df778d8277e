//! Each rule catches what it is for, and nothing else.

use super::*;

fn source(path: &str, text: &str) -> Source {
    Source::new(path.to_owned(), text)
}

fn lines(found: Vec<Found>) -> Vec<usize> {
    found.iter().map(|found| found.line).collect()
}

#[test]
fn see_ldk_however_it_is_written() {
    let text = "use crate::lightning::Room;\nuse lightning::ln;\n\
                use {std::fmt, lightning::sign as s};\nfn f(x: ::lightning::ln::X) {}\n\
                // lightning::ln\nconst S: &str = \"lightning::ln\";\n\
                fn g(x: crate::lightning::X) {}\n";
    assert_eq!(lines(ldk_outside_its_room(&source("node/src/wallet/a.rs", text))), [2, 3, 4]);
    assert_eq!(lines(ldk_outside_its_room(&source("node/src/lightning/a.rs", text))), []);
    let inline = "fn f() -> lightning::ln::X {}\n";
    assert_eq!(lines(ldk_outside_its_room(&source("node/src/wallet/a.rs", inline))), [1]);
    // Our own room under its short name is not LDK.
    let alias = "use crate::{chain, lightning};\nfn f() -> lightning::Room {}\n";
    assert_eq!(lines(ldk_outside_its_room(&source("node/src/wallet/a.rs", alias))), []);
}

#[test]
fn see_grpc_outside_its_room() {
    let text = "use tonic::Status;\nuse proto::tributary::v1::Channel;\n";
    assert_eq!(lines(grpc_outside_its_room(&source("node/src/payments/a.rs", text))), [1, 2]);
    assert_eq!(lines(grpc_outside_its_room(&source("node/src/rpc/a.rs", text))), []);
}

#[test]
fn see_the_world_in_a_contract() {
    let text = "use std::fmt;\nuse std::{fs, time::Instant};\nfn f() { rand::random() }\n";
    let mut found = lines(impurity(&source("channel-contracts/src/a.rs", text)));
    found.sort_unstable();
    assert_eq!(found, [2, 2, 3]);
}

#[test]
fn see_placeholders_in_code_only() {
    let text = "// todo!()\nfn f() { todo!() }\nfn g() { unimplemented!(\"x\") }\n";
    assert_eq!(lines(placeholders(&source("node/src/a.rs", text))), [2, 3]);
}

#[test]
fn see_long_files() {
    let text = "x\n".repeat(LINES_MAX + 1);
    let check = |path, list: &[(&str, usize)]| too_long(path, &text, list).is_some();
    assert!(check("a.rs", &[]));
    assert!(!check("a.rs", &[("a.rs", 700)]));
    assert!(check("a.rs", &[("a.rs", 600)]));
    assert!(too_long("a.rs", "x\n", &[]).is_none());
    assert!(too_long("a.rs", "x\n", &[("a.rs", 700)]).is_some());
}

#[test]
fn see_calls_that_go_up_or_round() {
    let rooms = [
        source("node/src/payments/a.rs", "use crate::{lightning::Room, journal, rpc};\n"),
        source("node/src/lightning/mod.rs", "use crate::wallet::Coins;\nuse crate::store;\n"),
        source("node/src/wallet/mod.rs", "fn f(x: crate::lightning::X) {}\n"),
        source("node/src/store/a.rs", "#[cfg(test)]\nmod tests {\n use crate::rpc;\n}\n"),
        source("node/src/environment/mod.rs", "use crate::chain::A;\nuse crate::wallet::B;\n"),
        source("node/src/attic/mod.rs", "use crate::store;\n"),
        source("node/src/node.rs", "use crate::rpc;\n"),
    ];
    let all: Vec<_> = rooms.iter().flat_map(arrows).collect();
    let wrong: Vec<String> = wrong_arrows(&all)
        .iter()
        .map(|found| format!("{}:{}", found.path.trim_start_matches("node/src/"), found.line))
        .collect();
    let expected = [
        "payments/a.rs:1",
        "lightning/mod.rs:1",
        "wallet/mod.rs:1",
        "environment/mod.rs:2",
        "attic/mod.rs:1",
    ];
    assert_eq!(wrong, expected);
}

#[test]
fn see_dependencies_that_go_up() {
    let text = "[dependencies]\nlightning.workspace = true\nbitcoin = \"0.32\"\n\
                [dev-dependencies]\nlightning = { workspace = true }\nsimnet.workspace = true\n\
                [target.'cfg(unix)'.dependencies]\nnode.workspace = true\n";
    assert_eq!(lines(wrong_dependencies("channel-contracts", text)), [2, 6, 8]);
    assert_eq!(lines(wrong_dependencies("tests", text)), [6]);
    assert_eq!(lines(wrong_dependencies("attic", text)), [1]);
}

#[test]
fn know_good_versions_of_ldk() {
    for good in ["0.3.0-rc3", "0.3.0-rc10", "0.3.0", "0.3.7", "0.3.1-rc1"] {
        assert!(is_good_ldk(good), "{good}");
    }
    for bad in ["0.2.7", "0.2.9", "0.3.0-rc2", "0.3.0-beta1", "0.4.0", "0.1.8", "0.30.0", ""] {
        assert!(!is_good_ldk(bad), "{bad}");
    }
    let lock = "[[package]]\nname = \"lightning\"\nversion = \"0.2.7\"\n\n\
                [[package]]\nname = \"lightning-types\"\nversion = \"0.4.0\"\n";
    assert_eq!(locked(lock, "lightning"), [("0.2.7".to_owned(), 3)]);
}
