//! Counters of one shard, merging, and the Prometheus text format.
//!
//! A shard owns one [`ShardStats`] and adds plain integers to it: no atomics, no locks. The scraper
//! asks for a copy through [`Published`]; the shard answers at its next heartbeat. [`render`] turns
//! the copies into text, so a scrape costs the hot path one copy and nothing else.

#![warn(unreachable_pub)]

mod budget;
mod distribution;
mod dns;
mod export;
mod kept;
mod labels;
mod process;
mod published;
mod render;
mod stats;

pub use budget::Budget;
pub use distribution::Distribution;
pub use dns::{DnsMetrics, DnsResult};
pub use export::{ExportMetrics, ExporterMetrics, GroupMetrics, WatchedFiles};
pub use kept::{KeptLog, LogCounts, LogFacts};
pub use labels::{
    AuthResult, BackpressureCause, CloseReason, CorruptStage, HandshakeResult, Label, LogOp,
    OverloadStep, RefuseReason, RejectClass, RejectReason, Tally,
};
pub use process::ProcessFacts;
pub use published::{Published, ShardState};
pub use render::{CONTENT_TYPE, Detail, DiskFacts, DiskState, Extra, render};
pub use stats::{ListenerStats, Names, ShardStats};
