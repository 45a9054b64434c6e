//! Fills a data directory with a log of a given size, for `benches/log_read`.
//!
//! `fill_log DIR SIZE_MIB [SHARDS]`: mail of about 10 KiB, every 200th of 1 MiB in fragments, in
//! segments of 64 MiB, through the appender that the server uses.

use std::{
    collections::HashMap, fs::File, io, os::unix::fs::FileExt, path::Path, process::ExitCode,
    time::Duration,
};

use mailrace::log::{
    Appender, DataDir, Identity, LogEvent, Mail, Manifest, Op, Options, append_index,
    prepare_segment, recover, segment_path, unix_micros,
};

const SEGMENT_BYTES: u64 = 64 << 20;
const LARGE_BYTES: usize = 1 << 20;
const LARGE_EVERY: u64 = 200;
/// Records of a group: what gathers during one sync under load.
const GROUP_RECORDS: u64 = 32;

struct Shard {
    dir: std::path::PathBuf,
    appender: Appender,
    manifest: Manifest,
    files: HashMap<u64, File>,
    next_segment: u64,
    written: u64,
}

impl Shard {
    fn open(data: &DataDir, number: u16) -> io::Result<Self> {
        let dir = data.make_shard(number)?;
        let identity = Identity { node: data.node, shard: number };
        let recovery = recover(&dir, identity)?;
        let options = Options::default();
        Ok(Self {
            dir,
            appender: Appender::new(identity, options, recovery.next_offset),
            manifest: recovery.manifest,
            files: HashMap::new(),
            next_segment: recovery.next_segment,
            written: 0,
        })
    }

    fn feed(&mut self) -> io::Result<()> {
        self.appender.set_unix_micros(unix_micros());
        if !self.appender.wants_segment() {
            return Ok(());
        }
        let spare = prepare_segment(&self.dir, self.next_segment, SEGMENT_BYTES)?;
        let path = segment_path(&self.dir, spare.number);
        self.files.insert(spare.number, File::options().write(true).open(path)?);
        self.appender.handle_segment(spare);
        self.next_segment += 1;
        Ok(())
    }

    /// Carries out what the appender wants. A sync is real only where a segment is left: a crash
    /// of this program loses nothing that anybody waits for.
    fn run(&mut self) -> io::Result<()> {
        while let Some(op) = self.appender.poll_op() {
            match op {
                Op::Write { op, segment, position, buffer, then_sync } => {
                    let file = self.files.get(&segment).ok_or_else(|| io::Error::other("file"))?;
                    file.write_all_at(buffer.octets(), position)?;
                    let len = buffer.len();
                    self.written += len as u64;
                    self.appender.handle_write(op, buffer, Ok(len), Duration::ZERO);
                    if let Some(sync) = then_sync {
                        self.appender.handle_sync(sync, Ok(()), Duration::ZERO);
                    }
                }
                Op::Sync { op, .. } => self.appender.handle_sync(op, Ok(()), Duration::ZERO),
            }
            while let Some(event) = self.appender.poll_event() {
                match event {
                    LogEvent::Indexed(entry) => append_index(&self.dir, &entry)?,
                    LogEvent::Sealed(seal) => {
                        if let Some(file) = self.files.remove(&seal.number) {
                            file.sync_data()?;
                        }
                        self.manifest.append(&seal)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

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
    let mut shards =
        (0..shards).map(|number| Shard::open(&data, number)).collect::<io::Result<Vec<_>>>()?;
    let count = shards.len() as u64;
    let (mut small, mut large) = (Vec::new(), Vec::new());
    text(1, LARGE_BYTES, &mut large);
    let mut written = 0;
    let mut seed = 0;
    while written < bytes {
        let shard = &mut shards[(seed / GROUP_RECORDS % count) as usize];
        shard.feed()?;
        let mut fragments = Vec::new();
        if seed % LARGE_EVERY == LARGE_EVERY - 1 {
            let mut rest = large.as_slice();
            while !rest.is_empty() {
                let mut buffer = shard.appender.new_fragment();
                rest = &rest[buffer.push(rest)..];
                shard.feed()?;
                fragments.push(shard.appender.append_fragment(buffer).map_err(io::Error::other)?);
                shard.run()?;
            }
        }
        text(seed, 4_096 + (seed * 7_919 % 12_288) as usize, &mut small);
        let mail = Mail {
            mail_from: "a@x.test",
            rcpts: "b@x.test",
            helo: "client.test",
            client: ([127, 0, 0, 1], 25).into(),
            received_at: 1_795_305_600_000_000 + i64::try_from(seed).unwrap_or(0) * 50,
            listener: "mx",
            esmtp: true,
            smtputf8: false,
            body_type: 0,
            flags: 0,
            size_declared: None,
            facts: mailrace::log::Facts::default(),
        };
        shard.feed()?;
        shard.appender.append(&mail, &[&small], &fragments).map_err(io::Error::other)?;
        seed += 1;
        if seed % GROUP_RECORDS == 0 {
            shard.run()?;
            written = shards.iter().map(|shard| shard.written).sum();
        }
    }
    for shard in &mut shards {
        shard.run()?;
        for file in shard.files.values() {
            file.sync_data()?;
        }
    }
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
