//! What goes into an appender and what comes out of it: its settings, segments to write to, mail
//! data on its way, operations for the driver, events.

use std::{fmt, io};

use super::{
    Offset, Seal,
    buffer::AlignedBuffer,
    frame::{ENTRY_FRAME, GROUP_FRAME},
};

/// Octets of a fragment's buffer, frames included: 64 reads of 4 KiB or 4 of 64 KiB.
pub(super) const FRAGMENT_BUFFER_BYTES: usize = 256 * 1024;

/// Settings of an appender.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A group takes no further record beyond this.
    pub group_bytes_max: usize,
    /// Octets that may wait for a sync; beyond, [`AppendError::Full`].
    pub unsynced_bytes_max: usize,
    /// What comes before the mark moves.
    pub sync: SyncPolicy,
}

/// `log.sync`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// One sync serves every record that waits for it.
    #[default]
    Group,
    /// A group and a sync for each record, one after the other.
    Each,
    /// The mark moves at the write's completion: a power cut loses acknowledged mail.
    None,
}

impl SyncPolicy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Group, Self::Each, Self::None];

    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Each => "each",
            Self::None => "none",
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { group_bytes_max: 4 << 20, unsynced_bytes_max: 64 << 20, sync: SyncPolicy::default() }
    }
}

/// A segment file that is allocated and whose directory entry is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spare {
    /// Its number; numbers only grow.
    pub number: u64,
    /// Drawn at random for this use.
    pub nonce: [u8; 16],
    /// Its size.
    pub bytes: u64,
}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// Too much waits for a sync.
    Full,
    /// No segment is at hand.
    NoSegment,
    /// The log failed three times within ten minutes, or the message lost fragments to a failure.
    Failed,
    /// Larger than a segment can hold.
    TooLarge,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "too many bytes are waiting for a sync",
            Self::NoSegment => "no log segment is available",
            Self::Failed => "the log failed",
            Self::TooLarge => "the record is larger than a segment",
        })
    }
}

impl std::error::Error for AppendError {}

/// An operation for the driver.
#[derive(Debug)]
pub enum Op {
    /// Write a buffer, which comes back with `handle_write(op)`.
    Write {
        /// Names the operation.
        op: u64,
        /// Segment to write to.
        segment: u64,
        /// In the file; a multiple of 4,096.
        position: u64,
        /// A multiple of 4,096 octets, block-aligned.
        buffer: GroupBuffer,
        /// An fdatasync with this name follows, started only after the whole write.
        then_sync: Option<u64>,
    },
    /// An fdatasync.
    Sync {
        /// Names the operation.
        op: u64,
        /// Segment to sync.
        segment: u64,
    },
}

/// What happened in the log.
#[derive(Debug)]
pub enum LogEvent {
    /// Every record below is durable.
    Advanced(Offset),
    /// Records `from..to` will never be acknowledged; their offsets are not used again.
    Failed {
        /// First of them.
        from: Offset,
        /// Behind the last.
        to: Offset,
    },
    /// A segment will not be written again.
    Sealed(Seal),
    /// An entry of the sparse index.
    Indexed(IndexEntry),
    /// A write or sync failed.
    Poisoned {
        /// The segment.
        segment: u64,
        /// What the system said.
        error: io::Error,
    },
}

/// Where a record lies, about one a MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Number of the segment.
    pub segment: u64,
    /// First offset of the group.
    pub offset: u64,
    /// Position of the group.
    pub position: u64,
}

/// Framed groups under way to the disk: the driver owns them while it writes them.
#[derive(Debug)]
pub struct GroupBuffer(pub(super) AlignedBuffer);

impl GroupBuffer {
    /// Zeros, for tests of those who write groups.
    #[must_use]
    pub fn zeroed(octets: usize) -> Self {
        let mut buffer = AlignedBuffer::new(octets);
        buffer.extend_zeroed(octets);
        Self(buffer)
    }

    /// What is to be written.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        self.0.octets()
    }

    /// How many octets that are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: there is a block at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Mail data of a large message on its way into the log.
#[derive(Debug)]
pub struct FragmentBuffer(pub(super) AlignedBuffer);

impl FragmentBuffer {
    pub(super) const HEAD: usize = GROUP_FRAME + ENTRY_FRAME;

    /// Takes what fits; returns how much that was.
    pub fn push(&mut self, octets: &[u8]) -> usize {
        let from = self.0.len();
        let taken = octets.len().min(self.0.capacity() - from);
        self.0.set_len(from + taken);
        self.0.octets_mut().split_at_mut(from).1.copy_from_slice(octets.split_at(taken).0);
        taken
    }

    /// Whether nothing more fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.len() == self.0.capacity()
    }

    /// The mail data in it.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.0.octets().split_at(Self::HEAD).1
    }

    /// Octets of memory.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }
}
