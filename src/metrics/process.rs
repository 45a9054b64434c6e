//! Facts about this process, from `/proc/self`.

use std::fs;

use mailrace_sys::{page_bytes, ticks_per_second};

/// What the standard `process_*` families show. A fact that cannot be read is absent.
#[derive(Clone, Debug, Default)]
pub struct ProcessFacts {
    /// User and system time used.
    pub cpu_seconds: Option<f64>,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Virtual memory.
    pub virtual_bytes: Option<u64>,
    /// Open descriptors.
    pub open_fds: Option<u64>,
    /// Soft limit of descriptors.
    pub max_fds: Option<u64>,
    /// Start time since the epoch.
    pub start_time_seconds: Option<f64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl ProcessFacts {
    /// Reads them now.
    pub fn read() -> Self {
        let mut facts = Self {
            // The descriptor that reads the directory is in the listing too.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|entries| (entries.count() as u64).saturating_sub(1)),
            max_fds: fs::read_to_string("/proc/self/limits").ok().and_then(|text| max_fds(&text)),
            ..Self::default()
        };
        if let Ok(text) = fs::read_to_string("/proc/self/stat") {
            let boot = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text));
            facts.fill_from_stat(&text, boot, ticks_per_second(), page_bytes());
        }
        facts
    }

    /// proc(5): fields count from 1, the name (2) stands in parentheses and may hold any octet.
    fn fill_from_stat(&mut self, text: &str, boot: Option<f64>, ticks: f64, page: u64) {
        let Some((_, rest)) = text.rsplit_once(')') else { return };
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field =
            |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
        self.cpu_seconds =
            field(14).zip(field(15)).map(|(user, system)| (user + system) as f64 / ticks);
        self.threads = field(20);
        self.start_time_seconds =
            boot.zip(field(22)).map(|(boot, start)| boot + start as f64 / ticks);
        self.virtual_bytes = field(23);
        self.resident_bytes = field(24).map(|pages| pages * page);
    }
}

fn boot_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn max_fds(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b) R 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 9 0 1000 4096 3 0";
        let mut facts = ProcessFacts::default();
        facts.fill_from_stat(text, Some(100.0), 100.0, 4096);
        assert_eq!(facts.cpu_seconds, Some(2.0));
        assert_eq!(facts.threads, Some(9));
        assert_eq!(facts.start_time_seconds, Some(110.0));
        assert_eq!(facts.virtual_bytes, Some(4096));
        assert_eq!(facts.resident_bytes, Some(12_288));
    }

    #[test]
    fn this_process_can_be_read() {
        let facts = ProcessFacts::read();
        assert!(facts.open_fds.is_some_and(|count| count >= 3));
        assert!(facts.resident_bytes.is_some_and(|bytes| bytes > 0));
        assert!(facts.max_fds.is_some());
    }
}
