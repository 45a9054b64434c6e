//! What the log keeps, and what is counted about it away from its shards: by retention, exporters
//! and the stream.

use super::{CorruptStage, LogOp, Tally};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one shard's log holds now. Measured from its directory, so that whatever deletes segments
/// is seen; shards of an earlier start that no longer run have one as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptLog {
    /// The shard.
    pub shard: u32,
    /// First offset kept; the next one to be assigned where nothing is.
    pub start_offset: u64,
    /// Segments that hold records or may take some, without the one that is prepared ahead.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// A copy of what [`LogCounts`] holds.
#[derive(Clone, Debug, Default)]
pub struct LogFacts {
    /// What is kept, a shard each.
    pub kept: Vec<KeptLog>,
    /// Operations that failed.
    pub errors: Tally<LogOp>,
    /// Damaged records found.
    pub corrupt: Tally<CorruptStage>,
}

/// Counters of everything that is not a shard. Cheap to clone; all clones share them.
#[derive(Clone, Debug, Default)]
pub struct LogCounts(Arc<Mutex<LogFacts>>);

impl LogCounts {
    fn lock(&self) -> MutexGuard<'_, LogFacts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation that failed.
    pub fn error(&self, op: LogOp) {
        self.lock().errors.increment(op);
    }

    /// Counts a damaged record, or the first of several in a row.
    pub fn corrupt(&self, stage: CorruptStage) {
        self.lock().corrupt.increment(stage);
    }

    /// What is kept now.
    pub fn set_kept(&self, kept: Vec<KeptLog>) {
        self.lock().kept = kept;
    }

    /// A copy for a scrape.
    #[must_use]
    pub fn facts(&self) -> LogFacts {
        self.lock().clone()
    }
}
