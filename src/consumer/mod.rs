//! Reading the log from Rust: a [`Reader`] follows one shard, a [`Group`] keeps where its consumers
//! are.
//!
//! A reader lends each record to a visitor, its mail data included, and copies nothing. Beside a
//! running server, in another process, it takes no lock and goes by the frames; within the server it
//! is bound by the shards' high-water marks.

mod group;
mod reader;

pub use group::{Active, Group, GroupError, Need, ShardGroup, highest_committed, lowest_needed};
pub use reader::Reader;
