//! Lines as they come, from a file or in messages: read, not yet judged.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use serde::{Deserialize, Serialize};

/// Longest field of a line, in bytes: an invoice with many hints has some 2,000.
const FIELD_LENGTH_MAX: usize = 8_192;

/// What a line pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// A BOLT 11 invoice.
    Invoice,
    /// A BOLT 12 offer.
    Offer,
    /// A node that asked for nothing.
    Keysend,
    /// A Bitcoin address.
    Address,
}

/// Why a line is bad, waits, or is given up. Names are part of the store's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the interface documents them")]
pub enum LineReason {
    Unreadable,
    WrongNetwork,
    Expired,
    AmountMissing,
    AmountMismatch,
    AmountOutOfRange,
    Duplicate,
    AlreadyPaid,
    PaysItself,
    Dust,
    AboveLineLimit,
    AboveTotalLimit,
    NotRepeatable,
    NoteUnsupported,
    Liquidity,
    NoRoute,
    Rejected,
    NoAnswer,
    FeeTooHigh,
    TimedOut,
    DoubleSpent,
    Unexpected,
}

/// A line as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// Where it stands in the file, from 1.
    pub file_line: Option<u64>,
    /// An invoice, an offer, a node's id, or an address.
    pub target: String,
    /// What the receiver gets, msat.
    pub amount_msat: Option<u64>,
    /// Most it may cost beyond, msat.
    pub max_fee_msat: Option<u64>,
    /// The payer's own words.
    pub reference: String,
    /// Words to the receiver.
    pub note: String,
    /// What cannot be read of it.
    pub fault: Option<String>,
}

/// Where lines come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of comma-separated values.
    Csv(Vec<u8>),
    /// Messages.
    Rows(Vec<Row>),
}

impl Source {
    /// What tells it from another, under one key.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut engine = sha256::Hash::engine();
        match self {
            Self::Csv(bytes) => engine.input(bytes),
            Self::Rows(rows) => {
                for row in rows {
                    engine.input(format!("{row:?}\n").as_bytes());
                }
            }
        }
        sha256::Hash::from_engine(engine).to_byte_array()
    }

    /// Reads the lines.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the file is none; what is wrong with one line is said in that.
    pub(super) fn rows(self, lines_max: usize) -> Result<Vec<Row>, FileError> {
        let rows = match self {
            Self::Csv(bytes) => read_csv(&bytes, lines_max)?,
            Self::Rows(rows) => rows,
        };
        if rows.len() > lines_max {
            return Err(FileError::TooLong { lines_max });
        }
        if rows.is_empty() {
            return Err(FileError::Empty);
        }
        Ok(rows.into_iter().map(bounded).collect())
    }
}

/// Why a file has no lines to judge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// A column of another name.
    #[error(
        "column {name:?} is not known; the columns are target, amount_msat or amount_sat, max_fee_msat or max_fee_sat, reference, note"
    )]
    Column {
        /// The name.
        name: String,
    },
    /// A column twice, or in two units.
    #[error("column {name:?} says what another column says already; leave one of them out")]
    ColumnTwice {
        /// The name.
        name: String,
    },
    /// No targets.
    #[error("the first line must name the columns, and one of them is target")]
    NoTarget,
    /// It cannot be read as such a file.
    #[error("the file is not readable as comma-separated values: {0}")]
    Format(String),
    /// More lines than are taken.
    #[error("there are more than {lines_max} lines, the most that payouts.lines_max allows")]
    TooLong {
        /// The most.
        lines_max: usize,
    },
    /// No line.
    #[error("there is no line to pay")]
    Empty,
}

/// What a column says of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Target,
    Amount { msat: u64 },
    MaxFee { msat: u64 },
    Reference,
    Note,
}

fn column(name: &str) -> Option<Column> {
    Some(match name.trim().to_ascii_lowercase().as_str() {
        "target" => Column::Target,
        "amount_msat" => Column::Amount { msat: 1 },
        "amount_sat" => Column::Amount { msat: 1_000 },
        "max_fee_msat" => Column::MaxFee { msat: 1 },
        "max_fee_sat" => Column::MaxFee { msat: 1_000 },
        "reference" => Column::Reference,
        "note" => Column::Note,
        _ => return None,
    })
}

fn read_csv(bytes: &[u8], lines_max: usize) -> Result<Vec<Row>, FileError> {
    // What spreadsheets put before a text.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let format = |error: csv::Error| FileError::Format(error.to_string());
    let head = reader.byte_headers().map_err(format)?.clone();
    let mut columns = Vec::new();
    for name in &head {
        let name = String::from_utf8_lossy(name).into_owned();
        let Some(column) = column(&name) else { return Err(FileError::Column { name }) };
        let is_same =
            |other: &Column| std::mem::discriminant(other) == std::mem::discriminant(&column);
        if columns.iter().any(is_same) {
            return Err(FileError::ColumnTwice { name });
        }
        columns.push(column);
    }
    if !columns.contains(&Column::Target) {
        return Err(FileError::NoTarget);
    }
    let mut rows = Vec::new();
    for record in reader.byte_records() {
        let record = record.map_err(format)?;
        if rows.len() == lines_max {
            return Err(FileError::TooLong { lines_max });
        }
        rows.push(read_row(&columns, &record));
    }
    Ok(rows)
}

fn read_row(columns: &[Column], record: &csv::ByteRecord) -> Row {
    let file_line = record.position().map(csv::Position::line);
    let mut row = Row { file_line, ..Row::default() };
    if record.len() != columns.len() {
        row.fault =
            Some(format!("has {} fields, the first line names {}", record.len(), columns.len()));
    }
    for (column, field) in columns.iter().zip(record) {
        let Ok(text) = std::str::from_utf8(field) else {
            row.fault.get_or_insert_with(|| "is not UTF-8".to_owned());
            continue;
        };
        let text = text.trim();
        match column {
            Column::Target => text.clone_into(&mut row.target),
            Column::Reference => text.clone_into(&mut row.reference),
            Column::Note => text.clone_into(&mut row.note),
            Column::Amount { msat } => row.amount_msat = amount(text, *msat, &mut row.fault),
            Column::MaxFee { msat } => row.max_fee_msat = amount(text, *msat, &mut row.fault),
        }
    }
    row
}

/// Reads an amount in units of `msat`; none if there is no text.
fn amount(text: &str, msat: u64, fault: &mut Option<String>) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let read = text.parse::<u64>().ok().filter(|_| is_number);
    let read = read.and_then(|number| number.checked_mul(msat));
    if read.is_none() {
        let shown: String = text.chars().take(40).collect();
        fault.get_or_insert_with(|| format!("{shown:?} is no whole number of the column's unit"));
    }
    read
}

/// Cuts what is too long, which the line is then bad for.
fn bounded(mut row: Row) -> Row {
    for text in [&mut row.target, &mut row.reference, &mut row.note] {
        if text.len() > FIELD_LENGTH_MAX {
            let bytes = text.len();
            row.fault.get_or_insert_with(|| {
                format!("has a field of {bytes} bytes, at most {FIELD_LENGTH_MAX} are allowed")
            });
            let mut end = 64;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<Row>, FileError> {
        Source::Csv(text.as_bytes().to_vec()).rows(100)
    }

    #[test]
    fn columns_may_stand_in_any_order_and_unit() {
        let rows = read("\u{feff}Reference, amount_sat ,target,max_fee_msat\n\"rent, May\",7,abc,5\n,,\" def \",\n").unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].reference.as_str(), rows[0].target.as_str()), ("rent, May", "abc"));
        assert_eq!((rows[0].amount_msat, rows[0].max_fee_msat), (Some(7_000), Some(5)));
        assert_eq!(rows[0].file_line, Some(2));
        let bare = Row { file_line: Some(3), target: "def".to_owned(), ..Row::default() };
        assert_eq!(rows[1], bare);
    }

    #[test]
    fn a_file_without_targets_is_none() {
        assert_eq!(read("amount_sat\n1\n"), Err(FileError::NoTarget));
        assert_eq!(read(""), Err(FileError::NoTarget));
        assert_eq!(read("target\n"), Err(FileError::Empty));
        assert_eq!(read("target,sum\na,1\n"), Err(FileError::Column { name: "sum".to_owned() }));
        let twice = FileError::ColumnTwice { name: "amount_sat".to_owned() };
        assert_eq!(read("target,amount_msat,amount_sat\na,1,1\n"), Err(twice));
        let long = "a\n".repeat(101);
        assert_eq!(read(&format!("target\n{long}")), Err(FileError::TooLong { lines_max: 100 }));
    }

    #[test]
    fn what_is_wrong_with_a_line_spoils_no_other() {
        let text = "target,amount_sat\na,1\nb\nc,1.5\nd,-1\ne,99999999999999999999\nf,18446744073709551615\ng,2\n";
        let rows = read(text).unwrap();
        let faults: Vec<bool> = rows.iter().map(|row| row.fault.is_some()).collect();
        assert_eq!(faults, [false, true, true, true, true, true, false]);
        let bytes = [&b"target,note\na,"[..], &[0xff], b"\nb,ok\n"].concat();
        let rows = Source::Csv(bytes).rows(100).unwrap();
        assert_eq!((rows[0].fault.is_some(), rows[1].fault.is_some()), (true, false));
        let rows = read(&format!("target\n{}\n", "ü".repeat(9_000))).unwrap();
        assert!(rows[0].fault.is_some() && rows[0].target.len() <= 64);
    }

    proptest! {
        /// Whatever is written by the rules comes back, whatever is in it.
        #[test]
        fn fields_come_back(
            fields in proptest::collection::vec(("[ -~]{1,30}", any::<Option<u32>>(), "[^\u{0}]{0,20}"), 1..20),
        ) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["target", "amount_msat", "reference"]).unwrap();
            for (target, amount, reference) in &fields {
                let amount = amount.map(|amount| amount.to_string()).unwrap_or_default();
                writer.write_record([target, &amount, reference]).unwrap();
            }
            let rows = Source::Csv(writer.into_inner().unwrap()).rows(100).unwrap();
            prop_assert_eq!(rows.len(), fields.len());
            for (row, (target, amount, reference)) in rows.iter().zip(&fields) {
                prop_assert_eq!(&row.target, target.trim());
                prop_assert_eq!(row.amount_msat, amount.map(u64::from));
                prop_assert_eq!(&row.reference, reference.trim());
                prop_assert_eq!(&row.fault, &None);
            }
        }

        /// No bytes break it.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let with_head = [&b"target,amount_sat,note\n"[..], &bytes].concat();
            for bytes in [bytes, with_head] {
                if let Ok(rows) = Source::Csv(bytes).rows(1_000) {
                    prop_assert!(!rows.is_empty());
                }
            }
        }
    }
}
