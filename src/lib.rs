#![doc = include_str!("ARCHITECTURE.md")]

pub mod admin;
pub mod cli;
pub mod config;
pub mod consumer;
pub mod export;
pub mod header;
pub mod log;
pub mod metrics;
pub mod policy;
pub mod server;
pub mod shard;
#[cfg(feature = "sim")]
pub mod sim;
pub mod smtp;
pub mod stage;
pub mod tls;
