//! Reading the file: unknown keys, wrong types and bad syntax, each named with its place.
//!
//! The text of the file is never repeated in an error, since it may hold a secret that was put
//! there by mistake.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::Table;

use super::Config;

/// How alike two names must be for one to be proposed for the other, 0 to 1.
const LIKENESS_MIN: f64 = 0.8;

/// Why the configuration cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A key that no setting has.
    #[error("unknown key {key} in {path}{hint}; configs/node.default.toml lists all keys", hint = did_you_mean(.near))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key with its sections.
        key: String,
        /// The known key most like it.
        near: Option<String>,
    },
    /// Bad syntax, or a value of a kind that its key does not take.
    #[error("{path}, line {line}: {key}{message}", key = key_prefix(.key))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key, if the line has one.
        key: Option<String>,
        /// What is wrong.
        message: String,
    },
}

fn did_you_mean(near: &Option<String>) -> String {
    near.as_ref().map(|near| format!(", did you mean {near}?")).unwrap_or_default()
}

fn key_prefix(key: &Option<String>) -> String {
    key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default()
}

impl Config {
    /// Reads the file at `path`, or takes the defaults without one.
    ///
    /// Flags come after it, [`Config::validate`] last.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the file and the key.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads `text`; `path` is for the errors.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let malformed = |error: toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            Malformation::at(text, start).into_error(path, error.message())
        };
        let table: Table = toml::from_str(text).map_err(malformed)?;
        let known = known_keys();
        let mut unknown = None;
        visit(&table, "", &mut |key, _| {
            if unknown.is_none() && !known.iter().any(|known| known == key) {
                unknown = Some(key.to_owned());
            }
        });
        if let Some(key) = unknown {
            return Err(ConfigError::UnknownKey {
                path: path.to_owned(),
                near: nearest(&key, &known),
                key,
            });
        }
        toml::from_str(text).map_err(malformed)
    }
}

/// The place of an error in the text.
struct Malformation {
    line: usize,
    key: Option<String>,
}

impl Malformation {
    fn at(text: &str, start: usize) -> Self {
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let key = text
            .lines()
            .nth(line - 1)
            .and_then(|line| line.split_once('='))
            .map(|(key, _)| key.trim().to_owned())
            .filter(|key| !key.is_empty() && !key.starts_with('#'));
        Self { line, key }
    }

    fn into_error(self, path: &Path, message: &str) -> ConfigError {
        ConfigError::Malformed {
            path: path.to_owned(),
            line: self.line,
            key: self.key,
            message: message.to_owned(),
        }
    }
}

/// Every key of the configuration with its sections, sections included.
fn known_keys() -> Vec<String> {
    let defaults = Table::try_from(Config::default()).expect("the defaults are plain TOML");
    let mut keys = Vec::new();
    visit(&defaults, "", &mut |key, _| keys.push(key.to_owned()));
    keys
}

/// Calls `found` with each key of `table`, sections before what they hold.
fn visit(table: &Table, prefix: &str, found: &mut dyn FnMut(&str, &toml::Value)) {
    for (name, value) in table {
        let key = match prefix {
            "" => name.clone(),
            _ => format!("{prefix}.{name}"),
        };
        found(&key, value);
        if let toml::Value::Table(section) = value {
            visit(section, &key, found);
        }
    }
}

/// The known key most like `key`: by its last name, and among equals in the same section.
fn nearest(key: &str, known: &[String]) -> Option<String> {
    let split = |key: &str| match key.rsplit_once('.') {
        Some((section, name)) => (section.to_owned(), name.to_owned()),
        None => (String::new(), key.to_owned()),
    };
    let (section, name) = split(key);
    let mut best: Option<(f64, &String)> = None;
    for candidate in known {
        let (its_section, its_name) = split(candidate);
        let likeness = strsim::jaro_winkler(&name, &its_name);
        let bonus = if its_section == section { 0.01 } else { 0.0 };
        let score = likeness + bonus;
        if likeness >= LIKENESS_MIN && best.is_none_or(|(top, _)| score > top) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate.clone())
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name)
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("node.toml"))
    }

    #[test]
    fn default_file_shows_every_key_with_its_default() {
        let text = fs::read_to_string(file("node.default.toml")).unwrap();
        let shown: Table = toml::from_str(&text).unwrap();
        let defaults = Table::try_from(Config::default()).unwrap();
        let flat = |table: &Table| {
            let mut all = std::collections::BTreeMap::new();
            visit(table, "", &mut |key, value| {
                if !value.is_table() {
                    all.insert(key.to_owned(), value.to_string());
                }
            });
            all
        };
        // Compared as maps, so that a failure names the keys on either side.
        assert_eq!(flat(&shown), flat(&defaults));
        assert_eq!(parse(&text).unwrap(), Config::default());
    }

    #[test]
    fn default_file_explains_every_key() {
        let text = fs::read_to_string(file("node.default.toml")).unwrap();
        let mut explained = false;
        for line in text.lines() {
            if line.starts_with('#') {
                explained = true;
            } else if line.contains('=') {
                assert!(explained, "{line} has no comment above it");
                explained = false;
            }
        }
    }

    #[test]
    fn example_files_load_and_are_valid() {
        for (name, network) in [
            ("regtest.toml", Network::Regtest),
            ("signet.toml", Network::Signet),
            ("mainnet.toml", Network::Bitcoin),
            ("node.default.toml", Network::Regtest),
        ] {
            let config = Config::load(Some(&file(name))).unwrap();
            assert_eq!(config.network, network, "{name}");
            config.validate().unwrap();
        }
    }

    #[test]
    fn unknown_key_is_named_with_file_and_near_match() {
        let near = |text: &str| match parse(text) {
            Err(ConfigError::UnknownKey { key, near, .. }) => (key, near),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            near("[lightning]\nforward_dely_ms = 1"),
            ("lightning.forward_dely_ms".into(), Some("lightning.forward_delay_ms".into()))
        );
        // A key in the wrong section is found in the right one.
        assert_eq!(
            near("[chain]\nengine = \"sled\""),
            ("chain.engine".into(), Some("store.engine".into()))
        );
        assert_eq!(near("[lightening]").1, Some("lightning".into()));
        assert_eq!(near("zzz = 1"), ("zzz".into(), None));
        let error = parse("netwrok = \"signet\"").unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown key netwrok in node.toml, did you mean network?; configs/node.default.toml lists all keys"
        );
    }

    #[test]
    fn wrong_value_names_line_and_key() {
        let error = parse("[lightning]\n\nminimum_depth = \"six\"").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("node.toml, line 3: minimum_depth: "), "{text}");
        let error = parse("network = \"bitcoin\"").unwrap_err().to_string();
        assert!(error.contains("expected mainnet, testnet4"), "{error}");
        let error = parse("alias = \"a\nb = 1").unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }

    #[test]
    fn plain_password_is_refused_and_never_printed() {
        let error = parse("[chain.bitcoind]\nuser = \"u\"\npassword = \"hunter2\"").unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("line 3: password"), "{text}");
        assert!(text.contains("env:NAME"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn empty_or_absent_file_means_the_defaults() {
        assert_eq!(Config::load(None).unwrap(), Config::default());
        assert_eq!(parse("").unwrap(), Config::default());
        let missing = Config::load(Some(Path::new("no-such.toml"))).unwrap_err();
        assert!(missing.to_string().contains("no-such.toml"));
    }

    #[test]
    fn defaults_depend_on_the_network() {
        let mut config = Config { network: Network::Signet, ..Config::default() };
        assert!(config.data_dir().ends_with(".tributary/signet"));
        assert_eq!(config.bitcoind_urls(), ["http://127.0.0.1:38332"]);
        assert!(config.bitcoind_cookie_file().unwrap().ends_with(".bitcoin/signet/.cookie"));
        config.data_dir = "/var/lib/tributary".into();
        assert_eq!(config.tls_cert_file(), Path::new("/var/lib/tributary/tls.crt"));
        config.chain.bitcoind.user = "rpc".into();
        assert_eq!(config.bitcoind_cookie_file(), None);
    }
}
