//! Counters of one shard, merging, and the pages that Prometheus reads: text, OpenMetrics, protobuf.
//!
//! A shard owns one [`ShardStats`] and adds plain integers to it: no atomics, no locks. The scraper
//! asks for a copy through [`Published`]; the shard answers at its next heartbeat. [`render`] turns
//! the copies into a page, so a scrape costs the hot path one copy and nothing else.

mod budget;
mod catalogue;
mod distribution;
mod dns;
mod durations;
mod export;
mod facts;
mod families;
mod format;
mod hitters;
mod kept;
mod labels;
mod native;
mod openmetrics;
mod process;
mod protobuf;
mod published;
mod refusals;
mod render;
mod stats;
#[cfg(test)]
mod tests;
mod verdict;

pub use budget::Budget;
pub use distribution::Distribution;
pub use dns::{DnsMetrics, DnsResult};
pub use durations::Durations;
pub use export::{ExportMetrics, ExporterMetrics, GroupMetrics, WatchedFiles};
pub use facts::{Detail, DiskFacts, DiskState, Extra};
pub use families::Family;
pub use format::Format;
pub use hitters::{Hit, HitBy, Hitters, merged};
pub use kept::{KeptLog, LogCounts, LogFacts};
pub use labels::{
    AuthResult, BackpressureCause, CloseReason, CorruptStage, HandshakeResult, Label, LogOp,
    OverloadStep, RefuseReason, RejectClass, RejectReason, Tally,
};
pub use process::ProcessFacts;
pub use published::{Published, ShardState};
pub use refusals::RefusalMetrics;
pub use render::render;
pub use stats::{ListenerStats, Names, ShardStats};
pub use verdict::VerdictMetrics;
