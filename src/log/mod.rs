//! The log: one for each shard, append-only segments of records, synced before a message's 250.
//!
//! [`Appender`] writes (sans-IO, driven by the shard), [`recover`] judges what a dead process left,
//! [`Log`] reads, also while a server runs, [`Follower`] stays at the end, [`verify`] checks all of
//! it. The format is documented octet by octet in `frame`, the directory in `files`, and the
//! promise in `docs/DURABILITY.md`.
//!
//! # Reading a log from another program
//!
//! A consumer depends on this crate alone and runs on the server's machine, as a user who may read the
//! data directory and write to its `groups`. It takes no lock of the server's.
//!
//! ```no_run
//! use mailrace_log::{Committed, Log, Visit, consumer::{Group, Reader}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = "/var/lib/mailrace".as_ref();
//! let group = Group::new(dir, "billing")?;
//! for shard in Log::open(dir)?.shards()? {
//!     let (mut place, _) = group.offset(shard)?;
//!     let committed = group.committed(shard)?.unwrap_or_default();
//!     let mut reader = Reader::open(dir, shard, committed.offset)?;
//!     reader.poll(&mut |log, offset, record| {
//!         println!("{shard}-{offset}: from <{}>", record.mail_from());
//!         log.mail_data(shard, record, |piece| std::io::Write::write_all(&mut std::io::stdout(), piece))?;
//!         Ok(Visit::More)
//!     })?;
//!     place.save(Committed { offset: reader.next_offset(), ..committed })?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Delivery is at least once: a crash before `save` shows the records again, under the same offsets.
//! Retention keeps what a group has not committed; `mailrace group ls` shows how far it is. See
//! `config/examples/consumer-rust` for a whole program.

// What was read from a disk or a client is never indexed unchecked.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod adopt;
mod appender;
mod backup;
mod buffer;
mod checked_line;
mod chunk;
mod committed;
pub mod consumer;
mod cursor;
mod dead_letters;
mod facts;
mod facts_v2;
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
mod metadata;
mod offset;
mod operation;
mod private;
mod range;
mod read_error;
mod reader;
mod record;
mod recovery;
mod refusals;
mod retention;
mod scrub;
#[cfg(test)]
mod sim;
#[cfg(feature = "sim")]
pub mod staged;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod verdict;
mod verdicts;
mod verify;
mod waiters;
mod writer;
pub mod xtext;

pub use adopt::{Evidence, hex, write_node};
pub use appender::Appender;
pub use backup::{Backup, Made, Restored, Span, Tally, back_up, bytes_in, restore};
pub use committed::{Committed, CommittedOffset, Found, Saved};
pub use dead_letters::{DeadLetter, DeadLetters, Fate};
pub use facts::{Facts, FactsOf, RcptParams, TextFact};
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
pub use metadata::{Field, Kind, Label, Member, Metadata, Section, Value};
pub use offset::{BadRecordId, Identity, Offset, RecordId, parse_node};
pub use operation::{
    AppendError, FragmentBuffer, GroupBuffer, IndexEntry, LogEvent, Op, Options, Spare, SyncPolicy,
};
pub use private::{make_private_dir, private_file};
pub use range::{BadRange, Bound, Range, format_time, format_time_micros};
pub use read_error::{Operation, ReadError};
pub use reader::{Extent, LeftOut, Log, Pending, SegmentFacts, WalkEnd};
pub use record::{FragmentAt, Mail, RecordView, UNDER_TLS};
pub use recovery::{End, Octets, Recovery, Walked, recover, walk};
pub use refusals::{
    REFUSAL_TEXT_BYTES_MAX, Refusal, RefusalAt, RefusalEntry, RefusalReader, RefusalWriter,
    refusal_shards,
};
pub use retention::{
    Kept, KeptFor, Needs, Pass, Reason, Retention, Rules, read_in_progress, write_in_progress,
};
pub use scrub::{Pace, Scrub, Scrubbed};
pub use verdict::{AuthWord, Check, Dmarc, FromFacts, Published, Verdict};
pub use verdicts::{VerdictMarks, VerdictReader, VerdictWriter};
pub use verify::{Checked, Finding, Severity, Witness, verify};
pub use waiters::{Waiter, Waiters};
pub use writer::Writer;
