//! Sizes, durations, networks and names as text.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

const SIZE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// `ms` comes before `m` and `s`, which are its suffixes.
const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a size such as `64MiB` or `1000000B`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    with_unit(text, &SIZE_UNITS)
        .ok_or_else(|| format!("{text:?} is not a size such as \"64MiB\" or \"512KiB\""))
}

/// Reads a size between two bounds, both included.
pub(super) fn size_within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let bytes = size(text)?;
    if (least..=most).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("{text} is out of range: {} to {}", format_size(least), format_size(most)))
}

/// Reads a duration such as `10s`, `5m` or `500ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    with_unit(text, &DURATION_UNITS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is not a duration such as \"10s\" or \"5m\""))
}

/// Reads a duration between two bounds, both included.
pub(super) fn duration_within(
    text: &str,
    least: Duration,
    most: Duration,
) -> Result<Duration, String> {
    let duration = duration(text)?;
    if (least..=most).contains(&duration) {
        return Ok(duration);
    }
    let (least, most) = (format_duration(least), format_duration(most));
    Err(format!("{text} is out of range: {least} to {most}"))
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Writes a size in the largest binary unit that divides it.
pub fn format_size(bytes: u64) -> String {
    let unit =
        SIZE_UNITS.iter().take(4).rev().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// Writes a duration in the largest unit that divides it.
pub fn format_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit = DURATION_UNITS.iter().rev().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{ms}ms"), |(name, unit)| format!("{}{name}", ms / unit))
}

/// Reads an integer between two bounds, both included.
pub(super) fn integer(text: &str, least: usize, most: usize) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("{text:?} is not a number from {least} to {most}"))
}

/// Splits a list: `a, b` or `["a", "b"]`.
pub(super) fn list(text: &str) -> Vec<&str> {
    let text = text.trim();
    // A bracket may open an IPv6 address too: `[::1]:25`.
    let is_array = text.starts_with("[\"") || text == "[]";
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inner
        .filter(|_| is_array)
        .unwrap_or(text)
        .split(',')
        .map(|item| item.trim().trim_matches('"'))
        .filter(|item| !item.is_empty())
        .collect()
}

/// Checks a host name: RFC 5321 §4.1.2 `Domain`, at most 255 octets (§4.5.3.1.2).
pub(super) fn hostname(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 255 && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a host name such as mx1.example.com"))
}

/// Checks a name that becomes a metric label.
pub(super) fn label(text: &str) -> Result<String, String> {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    if (1..=32).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a name of 1 to 32 letters, digits, '-', '_' or '.'"))
}

/// A network, such as `127.0.0.0/8`; an address without a prefix length is itself alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether `peer` lies in it; an IPv4-mapped address counts as the IPv4 address.
    pub fn contains(&self, peer: IpAddr) -> bool {
        match (self.address, peer.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(peer)) => {
                let difference = u32::from(mine) ^ u32::from(peer);
                difference.checked_shr(32 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(mine), IpAddr::V6(peer)) => {
                let difference = u128::from(mine) ^ u128::from(peer);
                difference.checked_shr(128 - self.prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is not a network such as 192.0.2.0/24 or ::1");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), |prefix| prefix.parse().map_err(|_| error()))?;
        if prefix > longest {
            return Err(error());
        }
        Ok(Network { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_go_both_ways() {
        for (text, bytes) in [("64MiB", 64 << 20), ("1B", 1), ("3 KiB", 3072), ("2GiB", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(size(&format_size(bytes)), Ok(bytes), "{text}");
        }
        assert_eq!(size("5MB"), Ok(5_000_000));
        for text in ["", "64", "MiB", "-1MiB", "1.5MiB", "1mib", "99999999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_go_both_ways() {
        for (text, ms) in [("10s", 10_000), ("5m", 300_000), ("500ms", 500), ("1d", 86_400_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(format_duration(Duration::from_millis(ms)), text);
        }
        for text in ["", "10", "s", "10 seconds", "-1s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists() {
        assert_eq!(list("a, b"), ["a", "b"]);
        assert_eq!(list(r#"["a", "b"]"#), ["a", "b"]);
        assert_eq!(list("[::1]:25,127.0.0.1:25"), ["[::1]:25", "127.0.0.1:25"]);
        assert!(list("[]").is_empty() && list("").is_empty());
    }

    #[test]
    fn networks_contain() {
        let contains = |network: &str, peer: &str| {
            network.parse::<Network>().unwrap().contains(peer.parse().unwrap())
        };
        assert!(contains("127.0.0.0/8", "127.9.9.9"));
        assert!(contains("127.0.0.0/8", "::ffff:127.0.0.1"));
        assert!(!contains("127.0.0.0/8", "128.0.0.1"));
        assert!(contains("::1", "::1") && !contains("::1", "::2"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && contains("::/0", "2001:db8::1"));
        assert!(!contains("::/0", "192.0.2.1"));
        assert!("10.0.0.0/33".parse::<Network>().is_err());
    }

    #[test]
    fn host_names() {
        assert!(hostname("mx1.example.com").is_ok() && hostname("localhost").is_ok());
        for text in ["", "a..b", "-a", "a b", "a_b", "a\r\nb"] {
            assert!(hostname(text).is_err(), "{text:?}");
        }
    }
}
