//! Kafka: a Kafka record for each record of the log, acknowledged by all in-sync replicas
//! (`acks=all`).
//!
//! The client has no idempotent producer: what is sent again may be stored twice, and consumers
//! drop the repeat by the header `ce_id` (D4). A lane writes to a partition in the order of its
//! records and waits for each request; once one was not accepted, nothing after it goes to that
//! partition.
//!
//! Limits of rskafka 0.6 that show here: a reply that also asks for patience (a producer quota) is
//! treated as a refusal and the request is sent again after the pause, so quotas make duplicates;
//! SASL is PLAIN only; IPv6 addresses of brokers do not work with TLS.

mod error;
mod partition;
mod topic;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rskafka::{
    chrono::DateTime, client::partition::Compression as Codec, record::Record as KafkaRecord,
};

use self::{error::classify, topic::Topic};
use super::{
    Compression, DocumentOptions, ErrorClass, KafkaOptions, Outcome, Record, Sink, SinkError,
    SinkFuture, document,
};

/// Octets of one request before compression, if it has more than one record: Java's
/// `max.request.size` and the broker's `max.message.bytes` are 1 MiB, less what frames a batch.
const REQUEST_BYTES: usize = 1_000_000;

/// Least that a request is cut down to when the broker takes less.
const REQUEST_BYTES_MIN: usize = 16_384;

/// The sink. Export plane; the lanes of an exporter share its connections.
pub struct Kafka {
    options: KafkaOptions,
    document: DocumentOptions,
    timeout: Duration,
    state: tokio::sync::Mutex<Slot>,
    /// Partition of the next batch without keys.
    next: AtomicUsize,
    /// Octets that the broker takes in one request, as far as is known.
    request_bytes: AtomicUsize,
}

/// The present client, and how the last attempt to make one failed.
#[derive(Default)]
struct Slot {
    live: Option<Arc<Topic>>,
    failed: Option<(Instant, SinkError)>,
}

impl Kafka {
    /// A sink that is not connected yet. An attempt to deliver takes no longer than `timeout`.
    #[must_use]
    pub fn new(options: KafkaOptions, document: DocumentOptions, timeout: Duration) -> Self {
        Self {
            options,
            document,
            timeout,
            state: tokio::sync::Mutex::default(),
            next: AtomicUsize::new(0),
            request_bytes: AtomicUsize::new(REQUEST_BYTES),
        }
    }

    /// The topic's client; with `anew` it is looked up in any case.
    async fn topic(&self, anew: bool) -> Result<Arc<Topic>, SinkError> {
        let asked = Instant::now();
        let mut slot = self.state.lock().await;
        if let Some(topic) = &slot.live
            && !anew
            && !topic.is_old()
        {
            return Ok(topic.clone());
        }
        // Lanes that waited while another one failed share its answer.
        if let Some((at, error)) = &slot.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        slot.live = None;
        match self.within(Topic::connect(&self.options)).await {
            Ok(topic) => {
                let topic = Arc::new(topic);
                slot.live = Some(topic.clone());
                slot.failed = None;
                Ok(topic)
            }
            Err(error) => {
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// The next attempt connects again.
    async fn forget(&self, topic: &Arc<Topic>) {
        self.state.lock().await.live.take_if(|live| Arc::ptr_eq(live, topic));
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, SinkError>>,
    ) -> Result<T, SinkError> {
        tokio::time::timeout(self.timeout, work).await.unwrap_or_else(|_| {
            let text = format!("not acknowledged within {} s", self.timeout.as_secs_f64());
            Err(SinkError::new(ErrorClass::Timeout, text))
        })
    }

    /// A record as Kafka has it.
    fn record(&self, record: &Record) -> KafkaRecord {
        let document = document::encode(record, &self.document);
        let mut headers: BTreeMap<String, Vec<u8>> = document
            .attributes
            .into_iter()
            .map(|(name, value)| {
                let of_envelope = name.starts_with("mailrace_");
                (if of_envelope { name } else { format!("ce_{name}") }, value.into_bytes())
            })
            .collect();
        headers.insert("content-type".to_owned(), document.content_type.into());
        KafkaRecord {
            key: document.key.map(String::into_bytes),
            value: Some(document.body.into()),
            headers,
            timestamp: DateTime::from_timestamp_micros(record.received_at).unwrap_or_default(),
        }
    }
}

impl Sink for Kafka {
    fn check(&self) -> SinkFuture<'_, Result<(), SinkError>> {
        Box::pin(async {
            let topic = self.topic(true).await?;
            self.within(topic.partition(0)).await.map(|_| ())
        })
    }

    fn deliver<'a>(&'a self, records: &'a [Record]) -> SinkFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let topic = match self.topic(false).await {
                Ok(topic) => topic,
                Err(error) => return super::all(records, &Outcome::Retry(error)),
            };
            let outcomes = Mutex::new(vec![None; records.len()]);
            let batch = Batch { sink: self, topic: &topic, records, outcomes: &outcomes };
            let done = self.within(batch.deliver()).await;
            let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = &done
                && !matches!(error.class, ErrorClass::Throttled)
            {
                self.forget(&topic).await;
            }
            let missing =
                Outcome::Retry(done.err().unwrap_or_else(|| {
                    SinkError::new(ErrorClass::Other, "the record was skipped")
                }));
            outcomes.into_iter().map(|known| known.unwrap_or_else(|| missing.clone())).collect()
        })
    }
}

/// One attempt.
struct Batch<'a> {
    sink: &'a Kafka,
    topic: &'a Topic,
    records: &'a [Record],
    /// Filled in as they become known, so that what was acknowledged counts even if the rest takes
    /// too long.
    outcomes: &'a Mutex<Vec<Option<Outcome>>>,
}

/// What goes to one partition next.
#[derive(Default)]
struct Request {
    indices: Vec<usize>,
    records: Vec<KafkaRecord>,
    bytes: usize,
}

impl Batch<'_> {
    /// The first of the errors that are not a record's own; each is among the outcomes, too.
    async fn deliver(&self) -> Result<(), SinkError> {
        let partitions = self.topic.partitions();
        let sticky = self.sink.next.fetch_add(1, Ordering::Relaxed) % partitions;
        let mut requests: BTreeMap<usize, Request> = BTreeMap::new();
        let mut failed: BTreeMap<usize, SinkError> = BTreeMap::new();
        for (index, record) in self.records.iter().enumerate() {
            let record = self.sink.record(record);
            let number =
                record.key.as_ref().map_or(sticky, |key| partition::of_key(key, partitions));
            if let Some(error) = failed.get(&number) {
                self.tell(&[index], &Outcome::Retry(error.clone()));
                continue;
            }
            let size = size(&record);
            let request = requests.entry(number).or_default();
            let most = self.sink.request_bytes.load(Ordering::Relaxed);
            if !request.indices.is_empty() && request.bytes + size > most {
                let full = std::mem::take(request);
                if let Err(error) = self.produce(number, full).await {
                    self.tell(&[index], &Outcome::Retry(error.clone()));
                    failed.insert(number, error);
                    continue;
                }
            }
            request.indices.push(index);
            request.bytes += size;
            request.records.push(record);
        }
        let rest = requests.into_iter().map(|(number, request)| self.produce(number, request));
        let rest = join_all(rest).await.into_iter().filter_map(Result::err);
        failed.into_values().chain(rest).next().map_or(Ok(()), Err)
    }

    /// Sends a request to its partition; one that is too large for the broker, or has a record that
    /// it refuses, in halves, until the record is found.
    async fn produce(&self, number: usize, request: Request) -> Result<(), SinkError> {
        if request.indices.is_empty() {
            return Ok(());
        }
        let mut records = Some(request.records);
        let mut bytes = request.bytes;
        let mut waiting = vec![request.indices];
        while let Some(mut indices) = waiting.pop() {
            let encoded = records.take().unwrap_or_else(|| {
                let again = indices.iter().map(|index| self.sink.record(&self.records[*index]));
                let again: Vec<_> = again.collect();
                bytes = again.iter().map(size).sum();
                again
            });
            let error = match self.send(number, encoded).await {
                Ok(()) => {
                    self.tell(&indices, &Outcome::Delivered);
                    continue;
                }
                Err(error) => error,
            };
            let of_record = matches!(error.class, ErrorClass::TooLarge | ErrorClass::Refused);
            if of_record && indices.len() > 1 {
                if error.class == ErrorClass::TooLarge {
                    let less = (bytes / 2).max(REQUEST_BYTES_MIN);
                    self.sink.request_bytes.fetch_min(less, Ordering::Relaxed);
                }
                let behind = indices.split_off(indices.len() / 2);
                waiting.extend([behind, indices]);
            } else if of_record {
                let text = format!("{} ({bytes} bytes to {})", error.text, self.sink.options.topic);
                self.tell(&indices, &Outcome::Refused(SinkError { text, ..error }));
            } else {
                waiting.push(indices);
                let retry = Outcome::Retry(error.clone());
                waiting.iter().for_each(|indices| self.tell(indices, &retry));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn send(&self, number: usize, records: Vec<KafkaRecord>) -> Result<(), SinkError> {
        let codec = match self.sink.options.compression {
            Compression::None => Codec::NoCompression,
            Compression::Gzip => Codec::Gzip,
            Compression::Lz4 => Codec::Lz4,
            Compression::Snappy => Codec::Snappy,
        };
        let count = records.len();
        let partition = self.topic.partition(number).await?;
        let offsets = partition.produce(records, codec).await.map_err(|error| classify(&error))?;
        if offsets.len() == count {
            Ok(())
        } else {
            let text = format!("{} of {count} records were acknowledged", offsets.len());
            Err(SinkError::new(ErrorClass::Other, text))
        }
    }

    fn tell(&self, indices: &[usize], outcome: &Outcome) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        for index in indices {
            outcomes[*index] = Some(outcome.clone());
        }
    }
}

/// About what a record takes within a batch: its own octets, and lengths and numbers of up to five
/// octets each.
fn size(record: &KafkaRecord) -> usize {
    record.approximate_size() + 10 * record.headers.len() + 32
}
