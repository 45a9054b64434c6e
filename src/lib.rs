#![doc = include_str!("ARCHITECTURE.md")]

pub mod admin;
pub mod cli;
pub mod config;
pub mod export;
pub mod header;
pub mod metrics;
pub mod policy;
pub mod server;
pub mod shard;
#[cfg(feature = "sim")]
pub mod sim;
pub mod tls;

// Rooms with a manifest of their own are crates, under the same names.
pub use mailrace_log::{self as log, consumer};
pub use mailrace_smtp as smtp;
pub use mailrace_stage as stage;
