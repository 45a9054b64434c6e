//! What tests of sinks share: records of several shards, and a lane that repeats what was not taken.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use mailrace::{
    export::{DocumentOptions, Encoding, Key, Outcome, Record, Sink, SinkError, testing},
    log::{Identity, Offset},
};

/// Longest that a test waits for a server or a delivery.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The mail data itself, so that a reader can compare octets.
pub fn raw(key: Key) -> DocumentOptions {
    DocumentOptions {
        encoding: Encoding::Raw,
        inline_max: 1 << 30,
        reference_url: String::new(),
        sha256: false,
        key,
    }
}

/// Messages of one shard, each with an own body and one of seven domains.
pub fn records(shard: u16, count: u64) -> Vec<Record> {
    (0..count).map(|offset| record(shard, offset, 64 + offset as usize % 500)).collect()
}

/// A message whose mail data has about `size` octets.
pub fn record(shard: u16, offset: u64, size: usize) -> Record {
    let id = Identity { node: [7; 6], shard }.record_id(Offset::new(offset));
    // All octets there are: nothing between sink and reader may touch them.
    let filler = (0..size).map(|at| (at * 31 + offset as usize) as u8);
    let data = format!("Subject: {id}\r\n\r\n").bytes().chain(filler).collect::<Vec<_>>();
    Record {
        id,
        received_at: 1_795_370_645_123_456 + offset as i64 * 1_000,
        rcpt_to: vec![format!("sales@d{}.example", offset % 7)],
        data: Bytes::from(data),
        ..testing::record(shard, offset)
    }
}

/// Delivers all, in batches, one behind the other; what is to be tried again is, in its order.
/// Returns the errors met on the way.
pub async fn deliver_all(sink: &dyn Sink, records: &[Record], batch: usize) -> Vec<SinkError> {
    let started = Instant::now();
    let mut errors = Vec::new();
    for batch in records.chunks(batch) {
        let mut batch = batch.to_vec();
        while !batch.is_empty() {
            let outcomes = sink.deliver(&batch).await;
            assert_eq!(outcomes.len(), batch.len());
            let mut outcomes = outcomes.into_iter();
            let before = errors.len();
            batch.retain(|record| match outcomes.next().unwrap() {
                Outcome::Delivered => false,
                Outcome::Retry(error) => {
                    errors.push(error);
                    true
                }
                Outcome::Refused(error) => panic!("{}: {error}", record.id),
            });
            assert!(started.elapsed() < PATIENCE, "{:?}", errors.last());
            if errors.len() > before {
                // The runner's wait before the next attempt.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    errors
}

/// The outcome of a single record.
pub async fn deliver_one(sink: &dyn Sink, record: &Record) -> Outcome {
    sink.deliver(std::slice::from_ref(record)).await.remove(0)
}

/// Asserts that what was read is every record, byte for byte, in the order of its shard; and that
/// what came twice came with the same id and octets.
#[track_caller]
pub fn assert_complete(read: &[(String, Vec<u8>)], sent: &[Record]) {
    use std::collections::HashMap;
    let wanted: HashMap<String, &Record> =
        sent.iter().map(|record| (record.id.to_string(), record)).collect();
    let mut seen = HashMap::new();
    let mut last: HashMap<u16, Offset> = HashMap::new();
    for (id, body) in read {
        let record = wanted.get(id).unwrap_or_else(|| panic!("{id} was never sent"));
        assert!(record.data == body, "the body of {id} changed");
        if seen.insert(id.clone(), ()).is_some() {
            continue;
        }
        if let Some(last) = last.insert(record.id.shard, record.id.offset) {
            assert!(last < record.id.offset, "{id} came behind {last} of its shard");
        }
    }
    let missing = wanted.keys().filter(|id| !seen.contains_key(*id)).count();
    assert_eq!(missing, 0, "of {} records some are missing", wanted.len());
}
