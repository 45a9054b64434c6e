//! What keeps a log from being read, one variant for each thing that a reader may want to treat in
//! its own way: a disk that fails may work again, damage stays, a deleted record is no damage.

use std::{error, fmt, io, ops::Range, path::Path, path::PathBuf};

use super::{Identity, RecordId, adopt::hex, inventory::owner};

/// Why a log, or something in it, cannot be read.
///
/// Where an [`io::Error`] is wanted, `?` makes one of it: with the same text, and the error itself
/// inside, which [`io::Error::downcast`] gives back.
#[derive(Debug)]
pub enum ReadError {
    /// The operating system refuses or fails an operation. It may work later.
    Io {
        /// What was tried.
        operation: Operation,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A directory is no data directory.
    NoDataDir {
        /// The directory.
        dir: PathBuf,
        /// What its file `node` says to that.
        source: Box<Self>,
    },
    /// The file `node` is missing, though the directory holds segments.
    NodeMissing {
        /// The data directory.
        dir: PathBuf,
    },
    /// The file `node` holds something that is no node's id.
    NodeDamaged {
        /// The file.
        path: PathBuf,
    },
    /// A directory holds the log of another node or shard.
    OtherLog {
        /// The shard's directory.
        dir: PathBuf,
        /// Whose log it holds.
        theirs: Identity,
        /// Whose it should hold.
        ours: Identity,
    },
    /// A caller wants a shard that the data directory does not hold.
    NoShard {
        /// The shard.
        shard: u16,
        /// The data directory.
        dir: PathBuf,
    },
    /// A record has the id of another node.
    OtherNode {
        /// The record wanted.
        id: RecordId,
        /// The node of this log.
        ours: [u8; 6],
    },
    /// A log holds no record of this id, and never did as far as it knows.
    NoRecord {
        /// The record wanted.
        id: RecordId,
        /// There is a log of its shard.
        has_shard: bool,
    },
    /// A record went with a segment that was deleted on purpose.
    Deleted {
        /// The shard.
        shard: u16,
        /// The record's offset.
        offset: u64,
        /// The segment's number.
        segment: u64,
    },
    /// A segment's file is missing though nobody deleted it on purpose, and acknowledged records
    /// are lost with it.
    Missing {
        /// The shard.
        shard: u16,
        /// The offsets that the segment held.
        offsets: Range<u64>,
        /// The file.
        path: PathBuf,
    },
    /// A file that holds acknowledged mail is missing, or its disk no longer gives it out.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A segment that has no seal yet, and may hold acknowledged mail, cannot be read: recovery
    /// concludes nothing.
    Unsealed {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        why: String,
    },
    /// A segment holds other octets than were written to it: a checksum fails.
    Damaged {
        /// The segment's file.
        path: PathBuf,
        /// Where in the file.
        position: u64,
        /// What is lost, as a sentence.
        what: String,
    },
    /// A segment holds an intact entry of a kind that this version does not know: a newer one wrote
    /// it.
    Unsupported {
        /// The segment's file.
        path: PathBuf,
        /// Where in the file.
        position: u64,
        /// The number of the kind.
        kind: u8,
    },
    /// The caller's visitor ends the reading.
    Visitor(io::Error),
}

/// What was tried on a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening a file.
    Open,
    /// Reading a file, or its size.
    Read,
    /// Listing a directory.
    List,
    /// Writing, syncing, renaming or deleting, as recovery does.
    Change,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::List => "list",
            Self::Change => "change",
        })
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { operation, path, source } => {
                write!(f, "cannot {operation} {}: {source}", path.display())
            }
            Self::NoDataDir { dir, source } => {
                write!(f, "{} is not a mailrace data directory: {source}", dir.display())
            }
            Self::NodeMissing { dir } => write!(
                f,
                "{} is missing: `mailrace log adopt --dir {}` restores it",
                dir.join("node").display(),
                dir.display()
            ),
            Self::NodeDamaged { path } => write!(f, "{}: not a node id", path.display()),
            Self::OtherLog { dir, theirs, ours } => write!(
                f,
                "{} holds the log of {}, not that of {}: move it back where it belongs; if the \
                 node id was lost, `mailrace log adopt` restores it",
                dir.display(),
                owner(*theirs),
                owner(*ours)
            ),
            Self::NoShard { shard, dir } => {
                write!(f, "there is no shard {shard} in {}", dir.display())
            }
            Self::OtherNode { id, ours } => write!(
                f,
                "no record {id} here: it belongs to node {}, this log to node {}",
                hex(id.node),
                hex(*ours)
            ),
            Self::NoRecord { id, has_shard: true } => write!(f, "no record {id}"),
            Self::NoRecord { id, has_shard: false } => {
                write!(f, "no record {id}: there is no shard {}", id.shard)
            }
            Self::Deleted { shard, offset, segment } => {
                write!(f, "record {shard}:{offset} no longer exists: segment {segment} was deleted")
            }
            Self::Missing { shard, offsets: Range { start, end }, path } => {
                write!(f, "records {shard}:{start}..{end} are lost: {} is missing", path.display())
            }
            Self::Unreadable { path, source } => {
                write!(f, "{} cannot be read: {source}", path.display())
            }
            Self::Unsealed { path, why } => write!(
                f,
                "{} cannot be read ({why}), and may hold mail that is not sealed yet: make it \
                 readable for this user; or move it away, and its contents count as lost",
                path.display()
            ),
            Self::Damaged { path, position, what } => {
                write!(f, "{} is damaged at position {position}: {what}", path.display())
            }
            Self::Unsupported { path, position, kind } => write!(
                f,
                "{} holds an entry of kind {kind} at position {position}: a newer version of \
                 Mailrace wrote it, and this one cannot read it",
                path.display()
            ),
            Self::Visitor(error) => error.fmt(f),
        }
    }
}

impl error::Error for ReadError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Unreadable { source, .. } => Some(source),
            Self::NoDataDir { source, .. } => Some(source),
            Self::Visitor(error) => error.source(),
            Self::NodeMissing { .. }
            | Self::NodeDamaged { .. }
            | Self::OtherLog { .. }
            | Self::NoShard { .. }
            | Self::OtherNode { .. }
            | Self::NoRecord { .. }
            | Self::Deleted { .. }
            | Self::Missing { .. }
            | Self::Unsealed { .. }
            | Self::Damaged { .. }
            | Self::Unsupported { .. } => None,
        }
    }
}

impl ReadError {
    /// Whether acknowledged mail is lost or out of reach, and waiting does not help: a reader that
    /// must go on reports it and continues with the next record.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Missing { .. }
            | Self::Unreadable { .. }
            | Self::Damaged { .. }
            | Self::Unsupported { .. } => true,
            Self::Io { .. }
            | Self::NoDataDir { .. }
            | Self::NodeMissing { .. }
            | Self::NodeDamaged { .. }
            | Self::OtherLog { .. }
            | Self::NoShard { .. }
            | Self::OtherNode { .. }
            | Self::NoRecord { .. }
            | Self::Deleted { .. }
            | Self::Unsealed { .. }
            | Self::Visitor(_) => false,
        }
    }

    /// Whether the system's answer is that there is no such file or directory.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Names the file of an error of the operating system's.
    pub(super) fn io(operation: Operation, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    /// What a visitor says; where that is an error of ours, of a read within the visit, it is that.
    #[must_use]
    pub fn of_visitor(error: io::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(Self::Visitor)
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { source, .. } => source.kind(),
            Self::NoDataDir { source, .. } => source.kind(),
            Self::NodeMissing { .. }
            | Self::OtherNode { .. }
            | Self::NoRecord { .. }
            | Self::Deleted { .. }
            | Self::Missing { .. } => io::ErrorKind::NotFound,
            Self::NoShard { .. } => io::ErrorKind::InvalidInput,
            Self::NodeDamaged { .. }
            | Self::OtherLog { .. }
            | Self::Unreadable { .. }
            | Self::Unsealed { .. }
            | Self::Damaged { .. }
            | Self::Unsupported { .. } => io::ErrorKind::InvalidData,
            Self::Visitor(error) => error.kind(),
        }
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Visitor(error) => error,
            error => Self::new(error.kind(), error),
        }
    }
}
