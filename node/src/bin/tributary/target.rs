//! Which node a command talks to.
//!
//! In this order: `--rpc` with its files; `--node` as a name of the development network or
//! a directory; `--data-dir`; else the usual data directories. `--rpc`, `--tls-cert` and
//! `--token-file` always replace what was found.

use std::path::{Path, PathBuf};

use node::rpc::auth::TOKEN_FILE;
use node::rpc::connection::{CONNECTION_FILE, Connection, ConnectionError};
use node::rpc::dev_registry::DevRegistry;
use node::rpc::tls::CERT_FILE;

use crate::args::Global;
use crate::error::{CliError, Money};

/// The networks whose usual data directories are looked into, the most careful one first.
const NETWORKS: [&str; 4] = ["mainnet", "testnet4", "signet", "regtest"];

/// Where things are on this machine, so that tests can say otherwise.
#[derive(Debug)]
pub struct Surroundings {
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// The development nodes.
    pub registry: DevRegistry,
}

impl Surroundings {
    /// Looks around.
    pub fn of_this_user() -> Self {
        Self {
            home: std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from),
            registry: DevRegistry::of_this_user(),
        }
    }
}

/// Finds the node that `global` means.
pub fn resolve(global: &Global, around: &Surroundings) -> Result<Connection, CliError> {
    let found = match (&global.node, &global.data_dir) {
        (Some(node), _) => named(node, around),
        (None, Some(dir)) => in_directory(dir),
        (None, None) if global.rpc.is_some() && global.tls_cert.is_some() => Ok(None),
        (None, None) => usual(around, global.rpc.is_some()),
    }?;
    let missing = |flag: &str| CliError::Usage(format!("give {flag} along with --rpc"));
    let rpc = global.rpc.clone();
    let cert = global.tls_cert.clone();
    let token = global.token_file.clone();
    match found {
        Some(found) => Ok(Connection {
            rpc: rpc.unwrap_or(found.rpc),
            rest: found.rest,
            tls_cert: cert.unwrap_or(found.tls_cert),
            token_file: token.unwrap_or(found.token_file),
        }),
        None => Ok(Connection {
            rpc: rpc.ok_or_else(|| missing("--node or --data-dir"))?,
            rest: None,
            tls_cert: cert.ok_or_else(|| missing("--tls-cert"))?,
            token_file: token.ok_or_else(|| missing("--token-file"))?,
        }),
    }
}

/// `--node`: a name, unless it is written as a path or is a directory of a node.
fn named(node: &str, around: &Surroundings) -> Result<Option<Connection>, CliError> {
    let path = Path::new(node);
    let is_path = node.contains(std::path::MAIN_SEPARATOR) || node == "." || node == "..";
    if is_path || path.join(CONNECTION_FILE).is_file() {
        return in_directory(path);
    }
    around
        .registry
        .read(node)
        .map(Some)
        .map_err(|error| unreachable(error.to_string(), "or give --data-dir or --rpc"))
}

/// A data directory: what its node wrote, or the usual names if it was configured to.
fn in_directory(dir: &Path) -> Result<Option<Connection>, CliError> {
    match Connection::read(&dir.join(CONNECTION_FILE)) {
        Ok(found) => Ok(Some(found)),
        Err(ConnectionError::Missing { .. }) => Err(unreachable(
            format!("no node has served from {} yet", dir.display()),
            &format!(
                "start it with `tributary --data-dir {} node`, or check the directory",
                dir.display()
            ),
        )),
        Err(error) => Err(unreachable(error.to_string(), "or give --rpc")),
    }
}

/// No word about the node: the one in `~/.tributary`, if there is just one.
fn usual(around: &Surroundings, rpc_given: bool) -> Result<Option<Connection>, CliError> {
    let home = around.home.as_deref().map(|home| home.join(".tributary"));
    let served: Vec<PathBuf> = home
        .iter()
        .flat_map(|root| NETWORKS.iter().map(move |network| root.join(network)))
        .filter(|dir| dir.join(CONNECTION_FILE).is_file())
        .collect();
    match &served[..] {
        [one] => in_directory(one),
        [_, _, ..] => {
            let dirs: Vec<_> = served.iter().map(|dir| dir.display().to_string()).collect();
            Err(CliError::Usage(format!(
                "there are several nodes; choose one with --data-dir: {}",
                dirs.join(", ")
            )))
        }
        [] if rpc_given => Err(CliError::Usage(format!(
            "--rpc needs --tls-cert and --token-file too: {CERT_FILE} and {TOKEN_FILE} of the node's data directory"
        ))),
        [] => {
            let running = around.registry.list().unwrap_or_default();
            let remedy = match &running[..] {
                [] => "start one with `tributary node` or `tributary dev`, or name one with --node, --data-dir or --rpc".to_owned(),
                names => format!("name a development node: --node {}", names.join(", --node ")),
            };
            Err(unreachable("no node is known here".to_owned(), &remedy))
        }
    }
}

fn unreachable(message: String, remedy: &str) -> CliError {
    CliError::Unreachable { message, remedy: remedy.to_owned(), money: Money::NotInvolved }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    fn connection(port: u16) -> Connection {
        Connection {
            rpc: format!("127.0.0.1:{port}"),
            rest: None,
            tls_cert: PathBuf::from("/somewhere/tls.cert"),
            token_file: PathBuf::from("/somewhere/admin.token"),
        }
    }

    fn around(root: &Path) -> Surroundings {
        Surroundings {
            home: Some(root.join("home")),
            registry: DevRegistry::within(root.join("registry")),
        }
    }

    fn resolved(words: &[&str], around: &Surroundings) -> Result<Connection, CliError> {
        let words = ["tributary"].iter().chain(words).chain(&["info"]);
        resolve(&Cli::try_parse_from(words).unwrap().global, around)
    }

    #[test]
    fn a_name_is_a_development_node_and_a_path_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let around = around(root.path());
        around.registry.write("alice", &connection(1)).unwrap();
        let dir = root.path().join("alice");
        connection(2).write(&dir.join(CONNECTION_FILE)).unwrap();
        let path = dir.to_str().unwrap();
        assert_eq!(resolved(&["--node", "alice"], &around).unwrap(), connection(1));
        assert_eq!(resolved(&["--node", path], &around).unwrap(), connection(2));
        assert_eq!(resolved(&["--data-dir", path], &around).unwrap(), connection(2));
        let error = resolved(&["--node", "bob"], &around).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let error = format!("{error:?}");
        assert!(error.contains("there are alice"), "{error}");
        let error = resolved(&["--data-dir", "/nowhere"], &around).unwrap_err();
        assert!(format!("{error:?}").contains("tributary --data-dir /nowhere node"));
    }

    #[test]
    fn flags_replace_what_was_found() {
        let root = tempfile::tempdir().unwrap();
        let around = around(root.path());
        around.registry.write("alice", &connection(1)).unwrap();
        let found =
            resolved(&["--node", "alice", "--rpc", "hub.example:7", "--token-file", "t"], &around)
                .unwrap();
        assert_eq!(found.rpc, "hub.example:7");
        assert_eq!(found.token_file, PathBuf::from("t"));
        assert_eq!(found.tls_cert, connection(1).tls_cert);
        let whole = ["--rpc", "h:7", "--tls-cert", "c", "--token-file", "t"];
        assert_eq!(resolved(&whole, &around).unwrap().rpc, "h:7");
        let error = resolved(&whole[..4], &around).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error:?}");
        let error = resolved(&whole[..2], &around).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error:?}");
    }

    #[test]
    fn without_a_word_the_only_node_is_meant() {
        let root = tempfile::tempdir().unwrap();
        let around = around(root.path());
        let error = resolved(&[], &around).unwrap_err();
        assert!(format!("{error:?}").contains("tributary dev"), "{error:?}");
        around.registry.write("hub", &connection(1)).unwrap();
        let error = resolved(&[], &around).unwrap_err();
        assert!(format!("{error:?}").contains("--node hub"), "{error:?}");
        let home = root.path().join("home").join(".tributary");
        connection(2).write(&home.join("signet").join(CONNECTION_FILE)).unwrap();
        assert_eq!(resolved(&[], &around).unwrap(), connection(2));
        connection(3).write(&home.join("mainnet").join(CONNECTION_FILE)).unwrap();
        let error = resolved(&[], &around).unwrap_err();
        assert_eq!(error.exit_code(), 2, "never guess between networks");
        fs::remove_file(home.join("signet").join(CONNECTION_FILE)).unwrap();
        assert_eq!(resolved(&[], &around).unwrap(), connection(3));
    }
}
