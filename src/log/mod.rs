//! The log: one per shard, append-only segments of records, synced before a message's 250.
//!
//! [`Appender`] writes (sans-IO, driven by the shard), [`recover`] judges what a dead process left,
//! [`Log`] reads beside a running server. The format is told octet by octet in `frame`, the
//! directory in `files`.

mod appender;
mod buffer;
mod files;
mod frame;
mod offset;
mod range;
mod reader;
mod record;
mod recovery;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub use appender::{
    AppendError, Appender, FragmentBuffer, IndexEntry, LogEvent, Op, Options, Spare, SyncPolicy,
};
pub use files::{
    DataDir, Manifest, Seal, append_index, fill_zeros, prepare_segment, read_node, segment_path,
    shard_dir,
};
pub use offset::{BadRecordId, Identity, Offset, RecordId};
pub use range::{BadRange, Bound, Range, format_time};
pub use reader::{Log, SegmentFacts, WalkEnd};
pub use record::{FragmentAt, Mail, RecordView};
pub use recovery::{End, Octets, Recovery, Walked, recover, walk};
