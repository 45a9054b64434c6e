//! A batch as a Parquet table: a row for each message. Written column by column, without Arrow.

use std::{io, sync::Arc};

use bytes::Bytes;
use parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};

use super::Record;
use mailrace_header::Summary;

/// Times in UTC; `mail_from` is empty for the null reverse-path; `raw` is the mail data, exact.
const SCHEMA: &str = "
message mailrace_messages {
  REQUIRED BYTE_ARRAY id (STRING);
  REQUIRED INT32 shard;
  REQUIRED INT64 offset;
  REQUIRED INT64 received_at (TIMESTAMP(MICROS,true));
  REQUIRED BYTE_ARRAY listener (STRING);
  REQUIRED BYTE_ARRAY mail_from (STRING);
  REQUIRED group rcpt_to (LIST) {
    REPEATED group list {
      REQUIRED BYTE_ARRAY element (STRING);
    }
  }
  OPTIONAL BYTE_ARRAY subject (STRING);
  OPTIONAL BYTE_ARRAY message_id (STRING);
  REQUIRED INT64 size;
  REQUIRED BYTE_ARRAY raw;
  REQUIRED group flags (LIST) {
    REPEATED group list {
      REQUIRED BYTE_ARRAY element (STRING);
    }
  }
}";

/// The table of a batch, the same octets for the same records.
///
/// Holds the mail data twice while it is made, what Snappy saves aside.
pub(super) fn table(records: &[Record]) -> io::Result<Vec<u8>> {
    write(records).map_err(io::Error::other)
}

fn write(records: &[Record]) -> Result<Vec<u8>, ParquetError> {
    let raw = ColumnPath::from("raw");
    // Mail data repeats nothing as a whole, and its least and greatest say nothing.
    let properties = WriterProperties::builder()
        .set_created_by("mailrace".to_owned())
        .set_compression(Compression::SNAPPY)
        .set_column_dictionary_enabled(ColumnPath::from("id"), false)
        .set_column_dictionary_enabled(raw.clone(), false)
        .set_column_statistics_enabled(raw, EnabledStatistics::None)
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let mut rows = file.next_row_group()?;
    let text = |text: &str| ByteArray::from(text.as_bytes().to_vec());
    let header: Vec<_> = records.iter().map(|record| Summary::read(&record.data)).collect();
    let required = |values: Vec<ByteArray>| (values, None, None);

    put::<ByteArrayType>(&mut rows, required(map(records, |r| text(&r.id.to_string()))))?;
    put::<Int32Type>(&mut rows, (map(records, |r| i32::from(r.id.shard)), None, None))?;
    put::<Int64Type>(&mut rows, (map(records, |r| signed(r.id.offset.get())), None, None))?;
    put::<Int64Type>(&mut rows, (map(records, |r| r.received_at), None, None))?;
    put::<ByteArrayType>(&mut rows, required(map(records, |r| text(&r.listener))))?;
    put::<ByteArrayType>(&mut rows, required(map(records, |r| text(&r.mail_from))))?;
    let paths = records.iter().map(|r| r.rcpt_to.iter().map(String::as_str).collect());
    put::<ByteArrayType>(&mut rows, lists(paths))?;
    put::<ByteArrayType>(&mut rows, optional(header.iter().map(|header| &header.subject)))?;
    put::<ByteArrayType>(&mut rows, optional(header.iter().map(|header| &header.message_id)))?;
    put::<Int64Type>(&mut rows, (map(records, |r| signed(r.data.len() as u64)), None, None))?;
    put::<ByteArrayType>(
        &mut rows,
        required(map(records, |r| ByteArray::from(Bytes::clone(&r.data)))),
    )?;
    let flags = records.iter().map(|r| r.flag_names().collect());
    put::<ByteArrayType>(&mut rows, lists(flags))?;
    rows.close()?;
    file.into_inner()
}

fn map<T>(records: &[Record], of: impl Fn(&Record) -> T) -> Vec<T> {
    records.iter().map(of).collect()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Values, with definition and repetition levels where the column has such.
type Column<T> = (Vec<T>, Option<Vec<i16>>, Option<Vec<i16>>);

fn put<T: DataType>(
    rows: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    (values, definition, repetition): Column<T::T>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("the schema has fewer columns".to_owned());
    let mut column = rows.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(&values, definition.as_deref(), repetition.as_deref())?;
    column.close()
}

/// A list a row: 0 repeats begins a row, 1 goes on with it; 0 defines an empty one.
fn lists<'a>(all: impl Iterator<Item = Vec<&'a str>>) -> Column<ByteArray> {
    let (mut values, mut definition, mut repetition) = (Vec::new(), Vec::new(), Vec::new());
    for list in all {
        if list.is_empty() {
            definition.push(0);
            repetition.push(0);
        }
        for (number, text) in list.into_iter().enumerate() {
            values.push(ByteArray::from(text.as_bytes().to_vec()));
            definition.push(1);
            repetition.push(i16::from(number > 0));
        }
    }
    (values, Some(definition), Some(repetition))
}

fn optional<'a>(texts: impl Iterator<Item = &'a Option<String>>) -> Column<ByteArray> {
    let (mut values, mut definition) = (Vec::new(), Vec::new());
    for text in texts {
        definition.push(i16::from(text.is_some()));
        values.extend(text.as_ref().map(|text| ByteArray::from(text.as_bytes().to_vec())));
    }
    (values, Some(definition), None)
}
