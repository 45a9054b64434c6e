//! Times and sizes as people read them.

/// `3d 4h`, `12m 5s`, `9s`: the two largest units.
pub(super) fn age(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// `12.3 GiB`
pub(super) fn bytes(bytes: u64) -> String {
    let mut amount = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if amount < 1024.0 {
            break;
        }
        (amount, unit) = (amount / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes() {
        for (seconds, shown) in [(0, "0s"), (61, "1m 1s"), (3_600, "1h 0m"), (90_061, "1d 1h")] {
            assert_eq!(age(seconds), shown);
        }
        for (count, shown) in [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KiB")] {
            assert_eq!(bytes(count), shown);
        }
    }
}
