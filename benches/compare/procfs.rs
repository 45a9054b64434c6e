//! CPU time and memory of a process and all its descendants, from /proc.

use std::fs;
use std::time::Duration;

/// CPU time, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Cpu {
    pub(crate) fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }

    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }
}

/// One process as /proc/PID/stat tells it, times in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    user: u64,
    system: u64,
}

/// CPU time that a process, its threads, its descendants and those of them that were waited for
/// have used. Exact up to a clock tick for each process (10 ms as a rule); how much of the sum is
/// the user's share is the kernel's estimate.
pub(crate) fn cpu(root: u32) -> Cpu {
    let stats = stats();
    let ticks = ticks_per_second();
    let mut sum = Cpu::default();
    for pid in family(root, &stats) {
        if let Some((_, stat)) = stats.iter().find(|(other, _)| *other == pid) {
            sum.user += stat.user as f64 / ticks;
            sum.system += stat.system as f64 / ticks;
        }
    }
    sum
}

/// Resident octets of a process and its descendants; shared pages count in each.
pub(crate) fn resident(root: u32) -> u64 {
    let of = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        parse_resident(&text)
    };
    family(root, &stats()).into_iter().filter_map(of).sum()
}

/// How long a clock tick is.
pub(crate) fn tick() -> Duration {
    Duration::from_secs_f64(1.0 / ticks_per_second())
}

fn ticks_per_second() -> f64 {
    // SAFETY: a number in, a number out.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

fn stats() -> Vec<(u32, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // A process may end between the listing and here.
            let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse_stat(&text)?))
        })
        .collect()
}

fn family(root: u32, stats: &[(u32, Stat)]) -> Vec<u32> {
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        next += 1;
        family.extend(stats.iter().filter(|(_, s)| s.parent == parent).map(|(pid, _)| *pid));
    }
    family
}

/// Fields 4 and 14 to 17 of proc_pid_stat(5). The name stands in parentheses and may hold spaces
/// and parentheses itself.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, behind) = text.rsplit_once(')')?;
    let fields: Vec<&str> = behind.split_whitespace().collect();
    // The first field behind the name is number 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(field(4)?).ok()?,
        user: field(14)? + field(16)?,
        system: field(15)? + field(17)?,
    })
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_an_ugly_name() {
        let text = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(text), Some(Stat { parent: 7, user: 103, system: 24 }));
        assert_eq!(parse_stat("42 (a) S 7"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn resident_memory_is_in_kibibytes() {
        assert_eq!(parse_resident("Name:\tx\nVmRSS:\t    12 kB\nVmData: 3 kB\n"), Some(12 << 10));
        assert_eq!(parse_resident("Name:\tx\n"), None);
    }

    #[test]
    fn a_family_is_the_tree_below_its_root() {
        let stat = |parent| Stat { parent, user: 0, system: 0 };
        let stats = [(5, stat(4)), (2, stat(1)), (3, stat(2)), (4, stat(2)), (9, stat(8))];
        let mut found = family(2, &stats);
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4, 5]);
    }

    #[test]
    fn this_process_is_there() {
        assert!(resident(std::process::id()) > 0);
    }
}
