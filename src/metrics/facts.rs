//! What belongs to the process and not to one shard: what a page of metrics is made of besides the
//! shards' counters.

use super::{Family, LogFacts, ProcessFacts};
use std::time::{Duration, Instant};

/// Which families carry the `shard` label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Those where the shards' balance matters; the rest is summed.
    #[default]
    Summed,
    /// All that a shard counts.
    Shard,
}

/// Room on the log's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskState {
    /// Enough.
    #[default]
    Ok = 0,
    /// Below the warning threshold.
    Low = 1,
    /// Mail is answered 452 4.3.1.
    Full = 2,
}

impl DiskState {
    /// Its name in pages and documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Low => "low",
            Self::Full => "full",
        }
    }
}

/// The log's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskFacts {
    /// Bytes free for this process.
    pub free_bytes: u64,
    /// Bytes of the whole file system.
    pub size_bytes: u64,
    /// Judged by the log's thresholds.
    pub state: DiskState,
    /// Why mail is refused; empty where it is not.
    pub reason: String,
}

/// What belongs to the process, not to one shard.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// Version of the program.
    pub version: String,
    /// Source revision, or `unknown`.
    pub revision: String,
    /// The log's disk, if it could be asked.
    pub disk: Option<DiskFacts>,
    /// `log.sync = "none"`: a 250 does not mean synced.
    pub not_durable: bool,
    /// How long the last start's recovery took.
    pub recovery: Option<Duration>,
    /// Warnings logged.
    pub warnings: u64,
    /// Lines of the log that nobody took in time.
    pub log_lines_dropped: u64,
    /// Errors logged.
    pub errors: u64,
    /// `process_*`.
    pub process: ProcessFacts,
    /// When the scrape began, for `metrics_scrape_duration_seconds`.
    pub scrape_started: Option<Instant>,
    /// Which families carry the `shard` label.
    pub detail: Detail,
    /// What is kept of the log, and counted of it by others than shards.
    pub log: LogFacts,
    /// Families of exporters, groups and retention, complete.
    pub more: Vec<Family>,
}
