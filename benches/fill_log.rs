//! Fills a data directory with a log of a given size, for `benches/log_read`.
//!
//! `fill_log DIR SIZE_MIB [SHARDS]`: mail of about 10 KiB, every 200th of 1 MiB in fragments, in
//! segments of 64 MiB, through the appender that the server uses.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]

use std::{io, path::Path, process::ExitCode};

use mailrace::log::{DataDir, Mail, Writer, testing::mail};

const SEGMENT_BYTES: u64 = 64 << 20;
const LARGE_BYTES: usize = 1 << 20;
const LARGE_EVERY: u64 = 200;
/// Records of a group: what gathers during one sync under load.
const GROUP_RECORDS: u64 = 32;

fn text(seed: u64, bytes: usize, out: &mut Vec<u8>) {
    use std::io::Write;
    out.clear();
    let _ = write!(out, "From: <a@x.test>\r\nSubject: message {seed}\r\n\r\n");
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let _ = write!(out, "{state:016x}{state:016x}{state:016x}{state:016x}\r\n");
    }
}

fn fill(dir: &Path, bytes: u64, shards: u16) -> io::Result<u64> {
    let data = DataDir::open(dir)?;
    // A crash of this program loses nothing that anybody waits for.
    let open = |number| Writer::open(&data, number, SEGMENT_BYTES).map(Writer::without_sync);
    let mut shards = (0..shards).map(open).collect::<io::Result<Vec<_>>>()?;
    let count = shards.len() as u64;
    let (mut small, mut large) = (Vec::new(), Vec::new());
    text(1, LARGE_BYTES, &mut large);
    let (mut written, mut seed) = (0, 0);
    while written < bytes {
        let shard = &mut shards[(seed / GROUP_RECORDS % count) as usize];
        text(seed, 4_096 + (seed * 7_919 % 12_288) as usize, &mut small);
        let is_large = seed % LARGE_EVERY == LARGE_EVERY - 1;
        let octets = if is_large { &large } else { &small };
        let received_at = 1_795_305_600_000_000 + i64::try_from(seed).unwrap_or(0) * 50;
        shard.append(&Mail { rcpts: "b@x.test", received_at, ..mail("mx") }, octets)?;
        written += octets.len() as u64;
        seed += 1;
        if seed % GROUP_RECORDS == 0 {
            shard.commit()?;
        }
    }
    for shard in &mut shards {
        shard.commit()?;
    }
    std::process::Command::new("sync").status()?;
    Ok(seed)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match arguments.as_slice() {
        [dir, mib] => mib.parse().ok().map(|mib: u64| (dir, mib, 2)),
        [dir, mib, shards] => mib.parse().ok().zip(shards.parse().ok()).map(|(m, s)| (dir, m, s)),
        _ => None,
    };
    let Some((dir, mib, shards)) = parsed else {
        eprintln!("usage: fill_log DIR SIZE_MIB [SHARDS]");
        return ExitCode::from(2);
    };
    match fill(Path::new(dir), mib << 20, shards) {
        Ok(records) => {
            println!("{records}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fill_log: {error}");
            ExitCode::FAILURE
        }
    }
}
