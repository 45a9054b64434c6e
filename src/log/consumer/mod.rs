//! Reading the log from Rust: a [`Reader`] follows one shard, a [`Group`] keeps the committed
//! offsets of its consumers.
//!
//! A reader lends each record to a visitor, including its mail data, and copies nothing. In another
//! process than the server it takes no lock and relies on the frames; within the server it stops at
//! the shards' high-water marks.

mod group;
mod reader;

pub use group::{Active, Group, GroupError, Need, ShardGroup, highest_committed, lowest_needed};
pub use reader::Reader;
