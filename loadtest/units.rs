//! Numbers of the command line: sizes, counts, rates, durations and their way back into text.

use std::time::Duration;

/// Reads `4096`, `10k`, `5m`, `1g`: octets, the letters are powers of 1024.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let factors = [("k", 1 << 10), ("m", 1 << 20), ("g", 1 << 30), ("", 1)];
    let lower = text.to_ascii_lowercase();
    let plain = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower);
    scaled(plain, &factors)
        .filter(|bytes| bytes.fract() == 0.0 && *bytes < 1e12)
        .map(|bytes| bytes as usize)
        .ok_or_else(|| format!("{text:?} is not a size such as 10k or 5m"))
}

/// Reads `100`, `1.5k`, `2M`: the letters are powers of 1000.
pub(super) fn count(text: &str) -> Result<u64, String> {
    decimal(text)
        .filter(|count| count.fract() == 0.0 && *count < 1e15)
        .map(|count| count as u64)
        .ok_or_else(|| format!("{text:?} is not a count such as 500 or 10k"))
}

/// Reads `500`, `20k/s`, `600/m`, `72M/h`; in messages a second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let (number, per) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match per {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => 0.0,
    };
    decimal(number)
        .map(|number| number / seconds)
        .filter(|rate| rate.is_finite() && *rate > 0.0 && *rate <= 1e8)
        .ok_or_else(|| format!("{text:?} is not a rate such as 500, 20k/s or 72M/h"))
}

/// Reads `30s`, `1.5m`, `500ms`, `50us`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let factors = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("", 1.0)];
    scaled(text, &factors)
        .filter(|seconds| *seconds < 1e9)
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("{text:?} is not a duration such as 10s, 5m or 50ms"))
}

fn decimal(text: &str) -> Option<f64> {
    scaled(text, &[("k", 1e3), ("K", 1e3), ("M", 1e6), ("m", 1e6), ("", 1.0)])
}

fn scaled<T: Copy + Into<f64>>(text: &str, factors: &[(&str, T)]) -> Option<f64> {
    let digits = text.bytes().take_while(|octet| octet.is_ascii_digit() || *octet == b'.').count();
    let (number, unit) = text.split_at(digits);
    let factor = factors.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<f64>().ok().map(|number| number * factor.into())
}

/// `412us`, `1.41ms`, `14.2ms`, `2.50s`: three digits.
pub(super) fn show_seconds(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 0.000_999_5 => (s * 1e6, "us"),
        s if s < 0.999_5 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    match value {
        v if v < 9.995 => format!("{v:.2}{unit}"),
        v if v < 99.95 => format!("{v:.1}{unit}"),
        v => format!("{v:.0}{unit}"),
    }
}

/// `1,199,874`.
pub(super) fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `10 KiB`, `195.3 MiB`.
pub(super) fn show_bytes(bytes: f64) -> String {
    let units = [("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1_024.0)];
    for (unit, factor) in units {
        if bytes >= factor {
            let value = bytes / factor;
            return if value.fract() < 0.05 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
    }
    format!("{bytes:.0} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read() {
        assert_eq!(size("10k"), Ok(10_240));
        assert_eq!(size("5m"), Ok(5 << 20));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("1.5KiB"), Ok(1536));
        assert_eq!(count("10k"), Ok(10_000));
        assert_eq!(rate("20k/s"), Ok(20_000.0));
        assert_eq!(rate("600/m"), Ok(10.0));
        assert_eq!(rate("72M/h"), Ok(20_000.0));
        assert_eq!(duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        for bad in ["", "x", "-1", "1x", "1..2", "k"] {
            assert!(size(bad).is_err(), "{bad}");
            assert!(count(bad).is_err(), "{bad}");
            assert!(rate(bad).is_err(), "{bad}");
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(rate("0").is_err() && rate("1/d").is_err());
    }

    #[test]
    fn numbers_are_shown() {
        assert_eq!(show_seconds(0.000_412), "412us");
        assert_eq!(show_seconds(0.001_41), "1.41ms");
        assert_eq!(show_seconds(0.014_2), "14.2ms");
        assert_eq!(show_seconds(0.999_9), "1.00s");
        assert_eq!(show_count(1_199_874), "1,199,874");
        assert_eq!(show_count(999), "999");
        assert_eq!(show_bytes(10_240.0), "10 KiB");
        assert_eq!(show_bytes(204_800_000.0), "195.3 MiB");
    }
}
