//! Export: delivers the log's records to other systems, at least once, in order for each shard.
//!
//! An exporter is a consumer group with a [`Sink`]. It has a lane for each shard, which reads a
//! batch, delivers it, retries what was not accepted, and commits the offset after the highest
//! contiguous record that the sink has acknowledged (D11). Everything here runs on the tokio plane;
//! it shares the segment files and the shards' high-water marks with the other plane, and nothing
//! else.
//!
//! Each kind of sink is a feature of this crate (`files`, `kafka`, `nats`, `relay`, `store`, `webhook`;
//! all by default), so that a program without one compiles no client for it.

mod batch;
mod blackhole;
#[cfg(feature = "relay")]
mod dial;
pub mod document;
mod exporter;
#[cfg(feature = "files")]
mod files;
mod hostname;
#[cfg(feature = "kafka")]
mod kafka;
mod lane;
#[cfg(feature = "nats")]
mod nats;
mod options;
#[cfg(any(feature = "files", feature = "store"))]
mod parquet;
#[cfg(any(feature = "files", feature = "relay"))]
mod path;
mod place;
mod plane;
mod probe;
mod record;
#[cfg(feature = "relay")]
mod relay;
mod replay;
mod settle;
mod sink;
#[cfg(feature = "sim")]
pub mod staged;
#[cfg(feature = "store")]
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
#[cfg(any(feature = "files", feature = "relay"))]
mod trace;
pub mod way_out;
#[cfg(feature = "webhook")]
mod webhook;

pub use blackhole::Blackhole;
pub use document::{
    Document, encode, encode_small, event_json, event_line, event_protobuf, percent_encode,
    refused_line,
};
#[cfg(feature = "files")]
pub use files::Files;
pub use hostname::{save_hostname, saved_hostname};
#[cfg(feature = "kafka")]
pub use kafka::Kafka;
#[cfg(feature = "nats")]
pub use nats::Nats;
pub use options::{
    BatchOptions, Compression, DocumentOptions, Encoding, ExportOptions, FileMode, FilesLayout,
    FilesOptions, Filter, KafkaOptions, Key, NatsOptions, RelayOptions, RetryOptions, SinkOptions,
    Start, StoreLayout, StoreOptions, StorePlace, WebhookOptions, reference_url,
};
pub use place::replace_file;
pub use plane::{Flush, Plane, PlaneOptions, StartError, start};
pub use probe::probe;
pub use record::{Facts, Record, domain};
#[cfg(feature = "relay")]
pub use relay::Relay;
pub use replay::{REPLAY, RcptPattern};
pub use sink::{ErrorClass, Outcome, Sink, SinkError, SinkFuture, all};
#[cfg(feature = "store")]
pub use store::Store;
#[cfg(feature = "webhook")]
pub use webhook::Webhook;

pub use mailrace_tls::TlsOptions;
