//! Settings of the kernel that `serve` lives with, and worse than it could.

use std::time::{Duration, SystemTime};

use super::{Finding, read_line};
use crate::sys;

/// Connections that may wait to be accepted.
pub(super) fn somaxconn() -> Finding {
    judge_somaxconn(read_line("/proc/sys/net/core/somaxconn").unwrap_or_default())
}

fn judge_somaxconn(seen: String) -> Finding {
    if seen.parse::<u32>().is_ok_and(|count| count >= 1024) {
        return Finding::ok("somaxconn", seen);
    }
    Finding::warning("somaxconn", seen, "sysctl -w net.core.somaxconn=4096")
}

/// A clock before this program was written is wrong; so is one the kernel says is not set by NTP.
pub(super) fn clock() -> Finding {
    judge_clock(SystemTime::now(), sys::clock_is_synchronised())
}

fn judge_clock(now: SystemTime, is_synchronised: bool) -> Finding {
    let fix = "start a time service, for example systemd-timesyncd or chrony";
    // 2026-01-01T00:00:00Z
    let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    if now < written {
        return Finding::failed("clock", "is before 2026".to_owned(), fix);
    }
    if !is_synchronised {
        return Finding::warning("clock", "not synchronised".to_owned(), fix);
    }
    Finding::ok("clock", "synchronised".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    #[test]
    fn a_short_queue_and_a_wrong_clock_have_their_cures() {
        for (seen, verdict) in
            [("128", Verdict::Warning), ("", Verdict::Warning), ("4096", Verdict::Ok)]
        {
            let finding = judge_somaxconn(seen.to_owned());
            assert_eq!((finding.verdict, finding.fix.is_some()), (verdict, verdict != Verdict::Ok));
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for (now, is_synchronised, verdict) in [
            (now, true, Verdict::Ok),
            (now, false, Verdict::Warning),
            (SystemTime::UNIX_EPOCH, true, Verdict::Failed),
        ] {
            let finding = judge_clock(now, is_synchronised);
            assert_eq!((finding.verdict, finding.fix.is_some()), (verdict, verdict != Verdict::Ok));
        }
    }
}
