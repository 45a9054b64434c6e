//! The log: one for each shard, append-only segments of records, synced before a message's 250.
//!
//! [`Appender`] writes (sans-IO, driven by the shard), [`recover`] judges what a dead process left,
//! [`Log`] reads, also while a server runs, [`Follower`] stays at the end, [`verify`] checks all of
//! it. The format is documented octet by octet in `frame`, the directory in `files`, and the
//! promise in `docs/DURABILITY.md`.

mod adopt;
mod appender;
mod buffer;
mod chunk;
mod committed;
mod cursor;
mod dead_letters;
mod facts;
mod faults;
mod file_system;
mod files;
mod flags;
mod follow;
mod frame;
mod inventory;
mod lookup;
mod manifest;
mod marks;
mod meta;
mod offset;
mod operation;
mod private;
mod range;
mod reader;
mod record;
mod recovery;
mod retention;
mod scrub;
#[cfg(test)]
mod sim;
#[cfg(feature = "sim")]
pub mod staged;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use adopt::{Evidence, hex, write_node};
pub use appender::Appender;
pub use committed::{Committed, CommittedOffset, Found, Saved};
pub use dead_letters::{DeadLetter, DeadLetters, Fate};
pub use facts::Facts;
pub use file_system::FileSystem;
pub use files::{
    DataDir, DirLock, FreeSpace, append_index, discard_segment, fill_zeros, free_space,
    prepare_segment, read_node, segment_path, shard_dir, sync_dir, unix_micros,
};
pub use flags::MailFlag;
pub use follow::{Damage, Follower, Visit};
pub use inventory::{Condition, Fault, FaultKind, Held, Recorded};
pub use manifest::{Manifest, Seal, Seals};
pub use marks::{HighWaterMarks, Listener as MarkListener};
pub use offset::{BadRecordId, Identity, Offset, RecordId, parse_node};
pub use operation::{
    AppendError, FragmentBuffer, GroupBuffer, IndexEntry, LogEvent, Op, Options, Spare, SyncPolicy,
};
pub use private::{make_private_dir, private_file};
pub use range::{BadRange, Bound, Range, format_time, format_time_micros};
pub use reader::{Extent, Log, SegmentFacts, WalkEnd};
pub use record::{FragmentAt, Mail, RecordView, UNDER_TLS};
pub use recovery::{End, Octets, Recovery, Walked, recover, walk};
pub use retention::{
    Kept, KeptFor, Needs, Pass, Reason, Retention, Rules, read_in_progress, write_in_progress,
};
pub use scrub::{Pace, Scrub, Scrubbed};
pub use verify::{Checked, Finding, Severity, Witness, verify};
pub use writer::Writer;
