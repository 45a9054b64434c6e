//! Where a run was made, so that two reports can be distinguished.

use std::fs;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use mailrace_log::format_time;

#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct Environment {
    /// Of the report, UTC.
    pub(in super::super) time: String,
    pub(in super::super) host: String,
    pub(in super::super) cpu: String,
    /// That the generator may use.
    pub(in super::super) cpus: usize,
    pub(in super::super) kernel: String,
    /// Of the load tester.
    pub(in super::super) version: String,
    /// Of the options: equal where two runs asked for the same.
    pub(in super::super) config_hash: String,
}

impl Environment {
    pub(super) fn detect(options: &Value) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let micros = since_1970.map_or(0, |time| time.as_micros() as i64);
        let hash =
            crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, options.to_string().as_bytes());
        Self {
            time: format_time(micros),
            host: read("/proc/sys/kernel/hostname"),
            cpu: model.map_or("", |model| model.trim_start_matches([' ', '\t', ':'])).to_owned(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_hash: format!("{hash:016x}"),
        }
    }
}
