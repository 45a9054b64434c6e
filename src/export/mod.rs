//! Export: delivers the log's records to other systems, at least once, in order for each shard.
//!
//! An exporter is a consumer group with a [`Sink`]. It has a lane for each shard, which reads a
//! batch, delivers it, retries what was not accepted, and commits the offset after the highest
//! contiguous record that the sink has acknowledged (D11). Everything here runs on the tokio plane;
//! it shares the segment files and the shards' high-water marks with the other plane, and nothing
//! else.

#![warn(unreachable_pub)]

mod batch;
mod blackhole;
mod dial;
pub mod document;
mod exporter;
mod files;
mod hostname;
mod kafka;
mod lane;
mod nats;
mod options;
mod parquet;
mod path;
mod plane;
mod probe;
mod record;
mod relay;
mod replay;
mod settle;
mod sink;
#[cfg(feature = "sim")]
pub mod staged;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod trace;
mod webhook;

pub use blackhole::Blackhole;
pub use document::{
    Document, encode, encode_small, event_json, event_line, event_protobuf, percent_encode,
};
pub use files::{Files, replace_file};
pub use hostname::{save_hostname, saved_hostname};
pub use kafka::Kafka;
pub use nats::Nats;
pub use options::{
    BatchOptions, Compression, DocumentOptions, Encoding, ExportOptions, FileMode, FilesLayout,
    FilesOptions, Filter, KafkaOptions, Key, NatsOptions, RelayOptions, RetryOptions, SinkOptions,
    Start, StoreLayout, StoreOptions, StorePlace, WebhookOptions, reference_url,
};
pub use plane::{Flush, Plane, PlaneOptions, StartError, start};
pub use probe::probe;
pub use record::{Facts, Record, domain};
pub use relay::Relay;
pub use replay::{REPLAY, RcptPattern};
pub use sink::{ErrorClass, Outcome, Sink, SinkError, SinkFuture, all};
pub use store::Store;
pub use webhook::Webhook;

pub use mailrace_tls::TlsOptions;
