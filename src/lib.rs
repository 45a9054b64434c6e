#![doc = include_str!("ARCHITECTURE.md")]

pub mod admin;
pub mod cli;
pub mod config;
pub mod network;
pub mod policy;
pub mod server;
pub mod shard;
#[cfg(feature = "sim")]
pub mod sim;

// Rooms with a manifest of their own are crates, under the same names.
pub use mailrace_dns as dns;
pub use mailrace_export as export;
pub use mailrace_header as header;
pub use mailrace_log::{self as log, consumer};
pub use mailrace_metrics as metrics;
pub use mailrace_smtp as smtp;
pub use mailrace_stage as stage;
pub use mailrace_sys as sys;
pub use mailrace_tls as tls;
pub use mailrace_verdict as verdict;
