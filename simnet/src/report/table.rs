//! Series as CSV and Parquet: the same columns in both.
//!
//! A table is columns of whole numbers, floating point numbers or text; both writers take any.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;

use parquet::basic::{ConvertedType, Repetition, Type as PhysicalType};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

/// Rows written at a time: what is in memory twice.
const ROW_GROUP: usize = 1 << 17;

/// The values of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Whole numbers.
    Whole(Vec<u64>),
    /// Floating point numbers.
    Float(Vec<f64>),
    /// Text.
    Text(Vec<&'static str>),
}

/// A column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name, with the unit.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Whole(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::Text(values) => values.len(),
        }
    }

    fn physical_type(&self) -> PhysicalType {
        match self {
            Self::Whole(_) => PhysicalType::INT64,
            Self::Float(_) => PhysicalType::DOUBLE,
            Self::Text(_) => PhysicalType::BYTE_ARRAY,
        }
    }
}

/// Columns of equal length.
#[derive(Debug, Clone, PartialEq)]
pub struct Table(Vec<Column>);

impl Table {
    /// A table of these columns.
    ///
    /// # Panics
    ///
    /// If they are not equally long.
    pub fn new(columns: Vec<Column>) -> Self {
        let rows = columns.first().map_or(0, |column| column.values.len());
        assert!(columns.iter().all(|column| column.values.len() == rows), "equally long columns");
        Self(columns)
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.0.first().map_or(0, |column| column.values.len())
    }

    /// Writes CSV with a header.
    ///
    /// # Errors
    ///
    /// If the destination does not take it.
    pub fn write_csv(&self, mut to: impl Write) -> std::io::Result<()> {
        let names: Vec<&str> = self.0.iter().map(|column| column.name).collect();
        writeln!(to, "{}", names.join(","))?;
        let mut line = String::new();
        for row in 0..self.rows() {
            line.clear();
            for (place, column) in self.0.iter().enumerate() {
                if place > 0 {
                    line.push(',');
                }
                let _infallible = match &column.values {
                    Values::Whole(values) => write!(line, "{}", values[row]),
                    // With a point even where nothing follows it, so that readers see the type.
                    Values::Float(values) => write!(line, "{:?}", values[row]),
                    Values::Text(values) => write!(line, "{}", values[row]),
                };
            }
            writeln!(to, "{line}")?;
        }
        to.flush()
    }

    /// Writes Parquet, with dictionaries and without compression.
    ///
    /// # Errors
    ///
    /// If the destination does not take it.
    pub fn write_parquet(&self, to: impl Write + Send) -> Result<(), ParquetError> {
        let mut fields = Vec::with_capacity(self.0.len());
        for column in &self.0 {
            let field = Type::primitive_type_builder(column.name, column.values.physical_type())
                .with_repetition(Repetition::REQUIRED);
            let field = match column.values {
                Values::Text(_) => field.with_converted_type(ConvertedType::UTF8),
                Values::Whole(_) | Values::Float(_) => field,
            };
            fields.push(Arc::new(field.build()?));
        }
        let schema = Type::group_type_builder("schema").with_fields(fields).build()?;
        // The writer's name holds no version, so that a newer crate writes the same header.
        let properties = WriterProperties::builder().set_created_by("simnet".into()).build();
        let mut file = SerializedFileWriter::new(to, Arc::new(schema), Arc::new(properties))?;
        for start in (0..self.rows()).step_by(ROW_GROUP) {
            let rows = start..self.rows().min(start + ROW_GROUP);
            let mut group = file.next_row_group()?;
            for column in &self.0 {
                let Some(mut writer) = group.next_column()? else { break };
                write_column(writer.untyped(), &column.values, rows.clone())?;
                writer.close()?;
            }
            group.close()?;
        }
        file.close().map(|_| ())
    }
}

fn write_column(
    writer: &mut ColumnWriter<'_>,
    values: &Values,
    rows: std::ops::Range<usize>,
) -> Result<(), ParquetError> {
    match (values, writer) {
        (Values::Whole(values), ColumnWriter::Int64ColumnWriter(writer)) => {
            // Readers know signed numbers best; no value of ours needs the highest bit.
            let signed = |value: &u64| i64::try_from(*value).unwrap_or(i64::MAX);
            let values: Vec<i64> = values[rows].iter().map(signed).collect();
            writer.write_batch(&values, None, None)?;
        }
        (Values::Float(values), ColumnWriter::DoubleColumnWriter(writer)) => {
            writer.write_batch(&values[rows], None, None)?;
        }
        (Values::Text(values), ColumnWriter::ByteArrayColumnWriter(writer)) => {
            let values: Vec<ByteArray> = values[rows].iter().map(|text| (*text).into()).collect();
            writer.write_batch(&values, None, None)?;
        }
        _ => return Err(ParquetError::General("a column of another type".into())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    use super::*;

    fn table() -> Table {
        Table::new(vec![
            Column { name: "n", values: Values::Whole(vec![1, 2, u64::MAX]) },
            Column { name: "x", values: Values::Float(vec![0.5, -1.0, 3.0]) },
            Column { name: "t", values: Values::Text(vec!["a", "b", "a"]) },
        ])
    }

    #[test]
    fn csv_has_a_header_and_a_line_for_each_row() {
        let mut bytes = Vec::new();
        table().write_csv(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, "n,x,t\n1,0.5,a\n2,-1.0,b\n18446744073709551615,3.0,a\n");
    }

    #[test]
    fn parquet_is_read_back_as_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        table().write_parquet(file.reopen().unwrap()).unwrap();
        let reader = SerializedFileReader::new(file.reopen().unwrap()).unwrap();
        let rows: Vec<Vec<Field>> = reader
            .get_row_iter(None)
            .unwrap()
            .map(|row| row.unwrap().into_columns().into_iter().map(|(_, field)| field).collect())
            .collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1], [Field::Long(2), Field::Double(-1.0), Field::Str("b".into())]);
        assert_eq!(rows[2][0], Field::Long(i64::MAX));
    }

    #[test]
    fn many_rows_are_written_in_groups() {
        let count = ROW_GROUP as u64 + 5;
        let table =
            Table::new(vec![Column { name: "n", values: Values::Whole((0..count).collect()) }]);
        let file = tempfile::NamedTempFile::new().unwrap();
        table.write_parquet(file.reopen().unwrap()).unwrap();
        let reader = SerializedFileReader::new(file.reopen().unwrap()).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 2);
        assert_eq!(reader.metadata().file_metadata().num_rows(), count as i64);
    }
}
