//! Export: the log's records to systems behind it, at least once, in order per shard.
//!
//! An exporter is a consumer group with a [`Sink`]. It has a lane for each shard: read a batch,
//! deliver it, repeat what was not taken, commit the offset behind the highest contiguous record
//! the sink has acknowledged (D11). Everything here runs on the tokio plane; it shares the segment
//! files and the shards' high-water marks with the other one, and nothing else.

mod blackhole;
pub mod document;
mod options;
mod record;
mod relay;
mod sink;
mod webhook;

pub use blackhole::Blackhole;
pub use document::{Document, encode};
pub use options::{
    BatchOptions, Compression, DocumentOptions, Encoding, ExportOptions, FilesLayout, FilesOptions,
    Filter, KafkaOptions, Key, NatsOptions, RelayOptions, RetryOptions, SinkOptions, Start,
    StoreLayout, StoreOptions, StorePlace, TlsOptions, WebhookOptions, reference_url,
};
pub use record::{Record, domain};
pub use relay::Relay;
pub use sink::{ErrorClass, Outcome, Sink, SinkError, SinkFuture, all};
pub use webhook::Webhook;
