//! What `auto` and percentages refer to.

use std::fs;

use crate::sys::{self, Resource};

/// Facts about the machine, as far as this process may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The system's host name.
    pub hostname: String,
    /// CPUs this process may run on (affinity, and with it cpusets).
    pub cpus: Vec<usize>,
    /// Memory, or the cgroup's limit if that is less.
    pub memory_bytes: u64,
    /// Hard limit of descriptors.
    pub descriptors_max: usize,
}

impl Machine {
    /// Asks the system.
    pub fn detect() -> Self {
        Self {
            hostname: read_line("/proc/sys/kernel/hostname")
                .filter(|name| !name.is_empty() && name != "(none)")
                .unwrap_or_else(|| "localhost".to_owned()),
            cpus: cpus(),
            memory_bytes: memory_bytes(),
            descriptors_max: descriptors_max(),
        }
    }
}

fn cpus() -> Vec<usize> {
    sys::allowed_cpus().unwrap_or_else(|_| {
        (0..std::thread::available_parallelism().map_or(1, |count| count.get())).collect()
    })
}

fn memory_bytes() -> u64 {
    let total = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        })
        .map_or(1 << 30, |kib| kib << 10);
    cgroup_limit().map_or(total, |limit| limit.min(total))
}

/// The least `memory.max` of this process's cgroup (version 2) and its parents.
fn cgroup_limit() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mut dir = std::path::PathBuf::from("/sys/fs/cgroup").join(path);
    let mut least: Option<u64> = None;
    while dir.starts_with("/sys/fs/cgroup") {
        let limit = dir.join("memory.max").to_str().and_then(read_line);
        if let Some(limit) = limit.and_then(|text| text.parse::<u64>().ok()) {
            least = Some(least.map_or(limit, |least| least.min(limit)));
        }
        if !dir.pop() {
            break;
        }
    }
    least
}

fn descriptors_max() -> usize {
    sys::limit(Resource::OpenFiles)
        .map_or(1024, |(_, hard)| usize::try_from(hard).unwrap_or(usize::MAX))
}

fn read_line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_asked() {
        let machine = Machine::detect();
        assert!(!machine.cpus.is_empty());
        assert!(machine.memory_bytes > 1 << 20);
        assert!(machine.descriptors_max > 16);
        assert!(!machine.hostname.is_empty());
    }
}
