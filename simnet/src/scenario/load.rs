//! Reads a scenario file and says where it is wrong.

use std::path::{Path, PathBuf};

use super::{Scenario, Setting};
use crate::topology::import::ImportError;
use crate::workload::TraceError;

/// Why a scenario does not run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read scenario {path}: {source}")]
    Read {
        /// It.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a scenario.
    #[error("scenario {path}: {place}{detail}")]
    Malformed {
        /// It.
        path: String,
        /// The line, where there is one.
        place: String,
        /// What is wrong, with the value.
        detail: String,
    },
    /// A setting is impossible.
    #[error("scenario {path}: {place}{key} = {value} is impossible: {why}")]
    Impossible {
        /// The file.
        path: String,
        /// The line, where there is one.
        place: String,
        /// The setting.
        key: String,
        /// Its value.
        value: String,
        /// Why.
        why: String,
    },
    /// The network cannot be read.
    #[error(transparent)]
    Topology(#[from] ImportError),
    /// A trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// A setting that cannot be, before the file and the line are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Impossible {
    pub key: String,
    pub value: String,
    pub why: String,
}

/// A scenario file as text, and what it was changed by.
#[derive(Debug, Clone)]
pub struct Document {
    path: PathBuf,
    text: String,
    table: toml::Table,
    settings: Vec<Setting>,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ScenarioError`] if it cannot be read or is not TOML.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ScenarioError::Read { path: path.display().to_string(), source })?;
        Self::parse(path, text)
    }

    /// Takes a text for the contents of the file `path`.
    ///
    /// # Errors
    ///
    /// [`ScenarioError::Malformed`] if it is not TOML.
    pub fn parse(path: &Path, text: String) -> Result<Self, ScenarioError> {
        let table = toml::from_str(&text).map_err(|error| malformed(path, &text, &error))?;
        Ok(Self { path: path.to_owned(), text, table, settings: vec![] })
    }

    /// The same with other settings.
    ///
    /// # Errors
    ///
    /// [`ScenarioError::Malformed`] if a setting goes through something that has no parts.
    pub fn with(&self, settings: &[Setting]) -> Result<Self, ScenarioError> {
        let mut changed = self.clone();
        for setting in settings {
            set(&mut changed.table, &setting.key, &setting.value).map_err(|detail| {
                let path = self.path.display().to_string();
                ScenarioError::Malformed { path, place: String::new(), detail }
            })?;
            changed.settings.push(setting.clone());
        }
        Ok(changed)
    }

    /// What it says.
    ///
    /// # Errors
    ///
    /// [`ScenarioError::Malformed`] with line and value.
    pub fn scenario(&self) -> Result<Scenario, ScenarioError> {
        if self.settings.is_empty() {
            return toml::from_str(&self.text)
                .map_err(|error| malformed(&self.path, &self.text, &error));
        }
        Scenario::deserialize_table(&self.table).map_err(|error| {
            let with: Vec<String> = self.settings.iter().map(Setting::to_string).collect();
            ScenarioError::Malformed {
                path: self.path.display().to_string(),
                place: String::new(),
                detail: format!("with {}: {}", with.join(" "), error.message()),
            }
        })
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that paths in the scenario are relative to.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Says of a setting that it is impossible, with its line.
    pub(super) fn impossible(&self, what: Impossible) -> ScenarioError {
        let set = self.settings.iter().any(|setting| what.key.starts_with(&setting.key));
        let place = match line_of(&self.text, &what.key) {
            _ if set => "--set: ".to_owned(),
            Some(line) => format!("line {line}: "),
            None => String::new(),
        };
        let Impossible { key, value, why } = what;
        ScenarioError::Impossible { path: self.path.display().to_string(), place, key, value, why }
    }
}

impl Scenario {
    fn deserialize_table(table: &toml::Table) -> Result<Self, toml::de::Error> {
        serde::Deserialize::deserialize(table.clone())
    }
}

fn malformed(path: &Path, text: &str, error: &toml::de::Error) -> ScenarioError {
    let mut place = String::new();
    let mut detail = error.message().trim_end().to_owned();
    if let Some(span) = error.span() {
        let before = &text[..span.start.min(text.len())];
        let line = before.matches('\n').count();
        place = format!("line {}: ", line + 1);
        if let Some(source) = text.lines().nth(line).filter(|source| !source.trim().is_empty()) {
            detail = format!("{detail}, in `{}`", source.trim());
        }
    }
    ScenarioError::Malformed { path: path.display().to_string(), place, detail }
}

fn set(table: &mut toml::Table, key: &str, value: &toml::Value) -> Result<(), String> {
    let (first, rest) = match key.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (key, None),
    };
    let Some(rest) = rest else {
        table.insert(first.to_owned(), value.clone());
        return Ok(());
    };
    let next = table.entry(first).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    match next {
        toml::Value::Table(next) => set(next, rest, value),
        toml::Value::Array(list) => {
            let (place, rest) = rest.split_once('.').unwrap_or((rest, ""));
            let length = list.len();
            let entry = place.parse::<usize>().ok().and_then(|place| list.get_mut(place));
            match entry {
                None => Err(format!("--set {key}: {first} is a list of {length}, without {place}")),
                Some(entry) if rest.is_empty() => {
                    *entry = value.clone();
                    Ok(())
                }
                Some(toml::Value::Table(next)) => set(next, rest, value),
                Some(_) => Err(format!("--set {key}: {first}.{place} has no parts")),
            }
        }
        _ => Err(format!("--set {key}: {first} has no parts")),
    }
}

/// The line of a setting, or of the nearest table around it.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut table = String::new();
    let mut lists: Vec<(String, usize)> = Vec::new();
    let mut best: Option<(usize, usize)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        let here = if let Some(name) = line.strip_prefix("[[") {
            let name = name.split("]]").next().unwrap_or("").trim().to_owned();
            let place = match lists.iter_mut().find(|(list, _)| *list == name) {
                Some((_, count)) => {
                    *count += 1;
                    *count
                }
                None => {
                    lists.push((name.clone(), 0));
                    0
                }
            };
            table = format!("{name}.{place}");
            table.clone()
        } else if let Some(name) = line.strip_prefix('[') {
            table = name.split(']').next().unwrap_or("").trim().to_owned();
            table.clone()
        } else if let Some((name, _)) = line.split_once('=') {
            let name = name.trim();
            if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") }
        } else {
            continue;
        };
        let matches = key == here || key.starts_with(&format!("{here}."));
        if matches && best.is_none_or(|(length, _)| here.len() > length) {
            best = Some((here.len(), number));
        }
    }
    best.map(|(_, line)| line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"name = "x"
engines = ["model"]
seed = 1

[topology]
kind = "line"
nodes = 2

[[workload]]
arrivals = { kind = "even", per_second = 1.0 }
amounts = { kind = "fixed", msat = 1000 }
pairs = { kind = "fixed", from = 0, to = 1 }
payments = 3

[[workload]]
arrivals = { kind = "even", per_second = 1.0 }
"#;

    fn parse(text: &str) -> Result<Scenario, ScenarioError> {
        Document::parse(Path::new("x.toml"), text.to_owned())?.scenario()
    }

    #[test]
    fn a_small_scenario_is_read() {
        let scenario = parse(TEXT).unwrap();
        assert_eq!(scenario.workload.len(), 2);
        assert_eq!(scenario.workload[0].payments, Some(3));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_and_value() {
        for (wrong, line, value) in [
            (TEXT.replace("seed = 1", "sede = 1"), "line 3", "sede"),
            (TEXT.replace("seed = 1", "seed = \"one\""), "line 3", "one"),
            (TEXT.replace("nodes = 2", "nodes = -2"), "line ", "-2"),
            (TEXT.replace("\"fixed\", msat", "\"fxied\", msat"), "line 11", "fxied"),
            (TEXT.replace("seed = 1", "seed = "), "line 3", "seed ="),
        ] {
            let error = parse(&wrong).unwrap_err().to_string();
            assert!(error.starts_with("scenario x.toml: "), "{error}");
            assert!(error.contains(line) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn settings_reach_into_tables_and_lists() {
        let document = Document::parse(Path::new("x.toml"), TEXT.to_owned()).unwrap();
        let setting = |text: &str| Setting::parse(text).unwrap().remove(0);
        let scenario = document
            .with(&[setting("workload.0.payments=9"), setting("links.processing_ms=7.5")])
            .unwrap()
            .scenario()
            .unwrap();
        assert_eq!(scenario.workload[0].payments, Some(9));
        assert!((scenario.links.processing_ms - 7.5).abs() < 1e-9);
        let error = document.with(&[setting("workload.7.payments=9")]).unwrap_err().to_string();
        assert!(error.contains("list of 2"), "{error}");
        let error = document.with(&[setting("seed=x")]).unwrap().scenario().unwrap_err();
        assert!(error.to_string().contains("--set seed="), "{error}");
    }

    #[test]
    fn lines_of_settings_are_found() {
        assert_eq!(line_of(TEXT, "topology.nodes"), Some(7));
        assert_eq!(line_of(TEXT, "workload.0.amounts.msat"), Some(11));
        assert_eq!(line_of(TEXT, "workload.1.amounts"), Some(15));
        assert_eq!(line_of(TEXT, "links.latency_ms"), None);
    }
}
