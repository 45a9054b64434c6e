//! What the export plane moves, and what it costs the shards.
//!
//! `cargo bench --bench export_plane -- [rate|outage]...` (both without a word):
//!
//! * **rate**: records of 4 KiB a second through one exporter to the blackhole, from a cold log;
//!   beside it what `dd` reads of the same segments. As root the page cache is dropped before.
//! * **outage**: CPU a message and reply p99 of a server whose exporter's sink is down, against one
//!   without an exporter, in turns: server on core 0, loader on core 1. Needs the release programs
//!   (`cargo build --release`).

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
#![allow(clippy::unwrap_used)]

#[path = "../compare/median.rs"]
mod median;
mod outage;
mod rate;

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let meant = |word: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == word);
    if meant("rate") {
        rate::run();
    }
    if meant("outage") {
        outage::run();
    }
}
