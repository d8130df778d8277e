//! Results as files in a folder.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::html;
use super::recorder::Recorder;
use super::series;
use super::summary::Summary;

/// The figures of a run.
pub const SUMMARY: &str = "summary.json";
/// The figures of many runs.
pub const RUNS: &str = "runs.json";
/// What depends on the machine, apart from everything else.
pub const TIMING: &str = "timing.json";

/// What a run took: the only figures that differ from machine to machine.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Timing {
    /// From beginning to end, in seconds.
    pub wall_s: f64,
    /// Processor time of the run's thread, in seconds.
    pub cpu_s: f64,
    /// Payments by second of it.
    pub payments_per_cpu_second: f64,
    /// Most memory that the process ever had.
    pub peak_rss_bytes: u64,
}

/// Why results are not on disk.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}")]
pub struct WriteError {
    /// Where.
    path: String,
    /// Why.
    source: io::Error,
}

/// Writes everything about one run into `folder`, which is made if it is not there.
///
/// # Errors
///
/// [`WriteError`], which names the file.
pub fn write_run(
    folder: &Path,
    summary: &Summary,
    recorder: &Recorder,
    timing: &Timing,
) -> Result<(), WriteError> {
    make(folder)?;
    for (name, table) in
        [("payments", series::payments(recorder)), ("samples", series::samples(recorder))]
    {
        write(&folder.join(format!("{name}.csv")), |file| table.write_csv(file))?;
        write(&folder.join(format!("{name}.parquet")), |file| {
            table.write_parquet(file).map_err(io::Error::other)
        })?;
    }
    write(&folder.join("report.html"), |file| {
        file.write_all(html::page(summary, recorder).as_bytes())
    })?;
    write_json(&folder.join(TIMING), timing)?;
    // Last: where there is a summary, the rest is there too.
    write_json(&folder.join(SUMMARY), summary)
}

/// Writes the figures of many runs into `folder`: as JSON, and as CSV with a row for each run.
///
/// # Errors
///
/// [`WriteError`], which names the file.
pub fn write_runs(folder: &Path, summaries: &[Summary]) -> Result<(), WriteError> {
    make(folder)?;
    write_json(&folder.join(RUNS), &summaries)?;
    write(&folder.join("runs.csv"), |file| file.write_all(runs_csv(summaries).as_bytes()))
}

fn runs_csv(summaries: &[Summary]) -> String {
    let mut keys: Vec<&String> =
        summaries.iter().flat_map(|summary| summary.identity.settings.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut text = String::from("scenario,engine,seed,partial");
    for key in &keys {
        text += &format!(",{}", quoted(key));
    }
    for (name, _) in super::METRICS {
        text += &format!(",{name},{name}_ci95");
    }
    text.push('\n');
    for summary in summaries {
        let identity = &summary.identity;
        let name = quoted(&identity.scenario);
        let engine = identity.engine.name();
        text += &format!("{name},{engine},{},{}", identity.seed, summary.partial);
        for key in &keys {
            let value = identity.settings.get(*key).map_or("", String::as_str);
            text += &format!(",{}", quoted(value));
        }
        for (_, metric) in super::METRICS {
            let estimate = metric(summary);
            let number = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
            let half = number(estimate.and_then(|estimate| estimate.half_width));
            text += &format!(",{},{half}", number(estimate.map(|estimate| estimate.mean)));
        }
        text.push('\n');
    }
    text
}

/// RFC 4180: text with commas or quotes stands in quotes.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// Writes JSON with a line's end.
///
/// # Errors
///
/// [`WriteError`], which names the file.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), WriteError> {
    write(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}

fn make(folder: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(folder)
        .map_err(|source| WriteError { path: folder.display().to_string(), source })
}

fn write(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), WriteError> {
    // Beside it first: whoever reads sees all of a file or none.
    let beside = path.with_extension("part");
    File::create(&beside)
        .map(BufWriter::new)
        .and_then(|mut file| {
            fill(&mut file)?;
            file.flush()
        })
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|source| WriteError { path: path.display().to_string(), source })
}

/// Why results cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such file.
    #[error("cannot read results {path}: {source}")]
    Read {
        /// It.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("results {path}: line {line}: {source}")]
    Malformed {
        /// It.
        path: String,
        /// Where.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Reads the figures of one run or many: a file, or a folder with one of ours.
///
/// # Errors
///
/// [`ReadError`], which names the file and the line.
pub fn read_summaries(path: &Path) -> Result<Vec<Summary>, ReadError> {
    let file = if path.is_dir() {
        let runs = path.join(RUNS);
        if runs.exists() { runs } else { path.join(SUMMARY) }
    } else {
        path.to_owned()
    };
    let name = file.display().to_string();
    let text = fs::read_to_string(&file)
        .map_err(|source| ReadError::Read { path: name.clone(), source })?;
    let many = text.trim_start().starts_with('[');
    let summaries = if many {
        serde_json::from_str(&text)
    } else {
        serde_json::from_str(&text).map(|summary| vec![summary])
    };
    summaries.map_err(|source| ReadError::Malformed { path: name, line: source.line(), source })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::Identity;
    use crate::scenario::{Engine, MeasureSpec};

    fn summary(seed: u64, partial: bool) -> (Summary, Recorder) {
        let recorder = Recorder { partial, ..Recorder::default() };
        let settings = BTreeMap::from([("a.b".to_owned(), "x,y".to_owned())]);
        let identity = Identity::new("test", Engine::Model, seed, settings);
        (Summary::new(identity, &recorder, &MeasureSpec::default()), recorder)
    }

    #[test]
    fn a_folder_holds_a_run_and_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let (summary, recorder) = summary(3, true);
        let path = folder.path().join("a/b");
        write_run(&path, &summary, &recorder, &Timing::default()).unwrap();
        let mut names: Vec<String> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected = [
            "payments.csv",
            "payments.parquet",
            "report.html",
            "samples.csv",
            "samples.parquet",
            "summary.json",
            "timing.json",
        ];
        assert_eq!(names, expected);
        assert_eq!(read_summaries(&path).unwrap(), std::slice::from_ref(&summary));
        assert!(summary.partial);
        fs::write(path.join(SUMMARY), "{\n\"seed\": tree}").unwrap();
        let error = read_summaries(&path).unwrap_err().to_string();
        assert!(error.contains("summary.json: line 2"), "{error}");
    }

    #[test]
    fn many_runs_are_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let summaries = [summary(1, false).0, summary(2, false).0];
        write_runs(folder.path(), &summaries).unwrap();
        assert_eq!(read_summaries(folder.path()).unwrap(), summaries);
        let csv = fs::read_to_string(folder.path().join("runs.csv")).unwrap();
        let mut lines = csv.lines();
        assert!(lines.next().unwrap().starts_with("scenario,engine,seed,partial,a.b,success_rate"));
        assert!(lines.next().unwrap().starts_with("test,model,1,false,\"x,y\",,"));
    }
}
