//! Records a second to the blackhole, and the disk's own rate.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use mailrace::{
    export::{
        BatchOptions, DocumentOptions, Encoding, ExportOptions, Filter, Key, PlaneOptions,
        RetryOptions, SinkOptions, Start, start,
    },
    log::{DataDir, HighWaterMarks, Log, Waiters, Writer, shard_dir, testing::mail},
    metrics::ExportMetrics,
};

use crate::median::median;

const RECORDS: usize = 300_000;
const RECORD_BYTES: usize = 4 << 10;
const ROUNDS: usize = 3;

pub fn run() {
    let dir = tempfile::Builder::new().prefix("export").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let dir = dir.unwrap();
    let (mark, bytes) = fill(dir.path());
    let (mut rates, mut cpus, mut disk) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        disk.push(dd(dir.path()));
        let (rate, cpu) = move_all(dir.path(), mark, &format!("round-{round}"));
        rates.push(rate);
        cpus.push(cpu);
    }
    let (rate, cpu, disk) = (median(rates), median(cpus), median(disk));
    let read = rate * bytes as f64 / RECORDS as f64 / 1e6;
    println!("blackhole  {rate:.0} records/s of 4 KiB   {cpu:.2} us of CPU a record");
    println!("cold read  {read:.0} MB/s   dd {disk:.0} MB/s   ratio {:.2}", read / disk);
}

/// Writes a log; says its mark and the octets of its segments.
fn fill(dir: &Path) -> (u64, u64) {
    let data = DataDir::open(dir).unwrap();
    let mut writer = Writer::open(&data, 0, 64 << 20).unwrap().without_sync();
    let body: Vec<u8> = (0..RECORD_BYTES).map(|at| b'a' + (at % 26) as u8).collect();
    let mail = mail("mx");
    for record in 0..RECORDS {
        writer.append(&mail, &body).unwrap();
        if record % 64 == 63 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
    let bytes = segments(dir).iter().map(|path| path.metadata().unwrap().len()).sum();
    Command::new("sync").status().unwrap();
    (writer.high_water_mark(), bytes)
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(shard_dir(dir, 0)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

fn drop_caches() {
    // Root's right; elsewhere sealed segments are read past the cache all the same.
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "3");
}

/// MB/s of `dd` over the segments, past the page cache.
fn dd(dir: &Path) -> f64 {
    drop_caches();
    let began = Instant::now();
    let mut bytes = 0;
    for path in segments(dir) {
        bytes += path.metadata().unwrap().len();
        let input = format!("if={}", path.display());
        let done = Command::new("dd")
            .args([&input, "of=/dev/null", "bs=4M", "iflag=direct", "status=none"])
            .status();
        assert!(done.unwrap().success());
    }
    bytes as f64 / began.elapsed().as_secs_f64() / 1e6
}

/// Records a second, and microseconds of this process's CPU a record.
fn move_all(dir: &Path, mark: u64, name: &str) -> (f64, f64) {
    drop_caches();
    let (marks, listener) = HighWaterMarks::new(1);
    marks.publish(0, mark);
    let metrics = ExportMetrics::new();
    let delivered = metrics.exporter(name, &[]).delivered;
    let (began, cpu) = (Instant::now(), cpu_time());
    let plane = start(PlaneOptions {
        log: Log::open(dir).unwrap(),
        shards: 1,
        marks: Arc::new(marks),
        listener,
        exporters: vec![options(name)],
        metrics,
        verdicts: Arc::default(),
        waiters: Waiters::default(),
    })
    .unwrap();
    while delivered.get() < mark {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (took, cpu) = (began.elapsed(), cpu_time() - cpu);
    plane.shut_down();
    (mark as f64 / took.as_secs_f64(), cpu.as_secs_f64() * 1e6 / mark as f64)
}

fn options(name: &str) -> ExportOptions {
    ExportOptions {
        name: name.to_owned(),
        sink: SinkOptions::Blackhole,
        document: DocumentOptions {
            encoding: Encoding::Json,
            inline_max: 512 << 10,
            reference_url: String::new(),
            sha256: false,
            key: Key::RcptDomain,
        },
        start: Start::Committed,
        batch: BatchOptions { records: 500, bytes: 1 << 20, delay: Duration::from_millis(20) },
        retry: RetryOptions {
            initial: Duration::from_millis(500),
            max: Duration::from_secs(300),
            give_up_after: None,
        },
        in_flight: 1,
        timeout: Duration::from_secs(30),
        filter: Filter::default(),
        wait_verdict: None,
        replay_rate: None,
    }
}

fn cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: room for the answer; all-zero is a valid value besides.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}
