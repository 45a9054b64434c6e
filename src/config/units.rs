//! Sizes, durations, networks and names as text.

use std::time::Duration;

/// The first four are written by [`format_size`]. A letter alone is binary, as in systemd, nginx
/// and Postfix.
const SIZE_UNITS: [(&str, u64); 15] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
    ("", 1),
];

/// The first five are written by [`format_duration`].
const DURATION_UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Reads a size such as `64MiB`, `64M`, `500MB` or, in bytes, `1000000`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    with_unit(text, &SIZE_UNITS).ok_or_else(|| {
        format!("{text:?} is not a size such as \"64MiB\", \"500MB\" or a number of bytes")
    })
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
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    with_unit(text, &DURATION_UNITS).map(Duration::from_millis).ok_or_else(|| {
        let number = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        match number {
            true => unitless_duration(text),
            false => format!("{text:?} is not a duration such as \"10s\" or \"5m\""),
        }
    })
}

/// What is wrong with a duration that is a number alone: seconds and milliseconds are both common.
pub(super) fn unitless_duration(number: &str) -> String {
    let (last, units) = DURATION_UNITS.split_last().expect("there are some");
    let units = units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let last = last.0;
    format!("{number} is not a duration: it needs a unit, as in \"{number}s\"; {units} or {last}")
}

/// A regular expression of what [`size`] reads.
pub(super) fn size_pattern() -> String {
    pattern(&SIZE_UNITS)
}

/// A regular expression of what [`duration`] reads.
pub(super) fn duration_pattern() -> String {
    pattern(&DURATION_UNITS)
}

fn pattern(units: &[(&str, u64)]) -> String {
    let names: Vec<_> = units.iter().map(|(name, _)| *name).collect();
    format!("^[0-9]+ *({})$", names.join("|"))
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

/// `1 segment`, `2 segments`.
#[must_use]
pub fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
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
    let unit =
        DURATION_UNITS.iter().take(5).rev().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit));
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

/// Checks a host name: RFC 5321 §4.1.2 `Domain`, at most 255 octets (§4.5.3.1.2). The dot of the
/// root at its end is dropped.
pub(super) fn hostname(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('.').unwrap_or(text);
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

/// A host name made of what this machine calls itself, which nobody wrote for us: `mail_gw` becomes
/// `mail-gw`, other scripts their A-labels (RFC 5890). The second is a warning where the name had to
/// be changed.
pub(super) fn machine_hostname(name: &str) -> (String, Option<String>) {
    if let Ok(fine) = hostname(name) {
        return (fine, None);
    }
    let ascii = idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_owned());
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let labels: String = ascii.chars().map(plain).collect();
    let labels: Vec<_> = labels
        .split('.')
        .map(|label| label.trim_matches('-'))
        .filter(|label| !label.is_empty())
        .collect();
    let repaired = hostname(&labels.join(".")).unwrap_or_else(|_| "localhost".to_owned());
    let warning = format!(
        "the name of this machine, {name:?}, is not a host name that SMTP allows; using \
         {repaired:?}; set server.hostname to the name that clients know"
    );
    (repaired, Some(warning))
}

/// Checks a name that becomes a metric label.
pub(super) fn label(text: &str) -> Result<String, String> {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    if (1..=32).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a name of 1 to 32 letters, digits, '-', '_' or '.'"))
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
        for (text, bytes) in [
            ("5MB", 5_000_000),
            ("50M", 50 << 20),
            ("1 GiB", 1 << 30),
            ("2KB", 2_000),
            ("2kB", 2_000),
            ("52428800", 52_428_800),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1MiB", "1.5MiB", "1mib", "5m", "1KiBs", "99999999999TiB"] {
            let error = size(text).unwrap_err();
            assert!(error.contains("\"64MiB\", \"500MB\" or a number of bytes"), "{error}");
        }
    }

    /// The schema's patterns take what is read, and nothing else; overflow aside.
    #[test]
    fn patterns_fit_what_is_read() {
        let (sizes, durations) = (size_pattern(), duration_pattern());
        let fits = |pattern: &str, text: &str| regex::Regex::new(pattern).unwrap().is_match(text);
        let units = SIZE_UNITS.iter().chain(&DURATION_UNITS).map(|(name, _)| *name);
        for unit in units.chain(["k", "kib", "b", "MS", "y", "%", "octets"]) {
            for text in ["5", "5 ", "", "-5", "5.5"].map(|number| format!("{number}{unit}")) {
                assert_eq!(fits(&sizes, &text), size(&text).is_ok(), "{text:?}");
                assert_eq!(fits(&durations, &text), duration(&text).is_ok(), "{text:?}");
            }
        }
    }

    #[test]
    fn durations_go_both_ways() {
        for (text, ms) in [("10s", 10_000), ("5m", 300_000), ("500ms", 500), ("1d", 86_400_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(format_duration(Duration::from_millis(ms)), text);
        }
        assert_eq!(duration("2w"), Ok(Duration::from_secs(14 * 86_400)));
        assert_eq!(format_duration(Duration::from_secs(7 * 86_400)), "7d");
        for text in ["", "s", "10 seconds", "-1s", "1y"] {
            assert!(duration(text).unwrap_err().contains("such as \"10s\""), "{text}");
        }
        assert!(duration("10").unwrap_err().contains("it needs a unit, as in \"10s\""));
    }

    #[test]
    fn lists() {
        assert_eq!(list("a, b"), ["a", "b"]);
        assert_eq!(list(r#"["a", "b"]"#), ["a", "b"]);
        assert_eq!(list("[::1]:25,127.0.0.1:25"), ["[::1]:25", "127.0.0.1:25"]);
        assert!(list("[]").is_empty() && list("").is_empty());
    }

    #[test]
    fn host_names() {
        assert!(hostname("mx1.example.com").is_ok() && hostname("localhost").is_ok());
        assert_eq!(hostname("mx1.example.com.").as_deref(), Ok("mx1.example.com"));
        for text in ["", "a..b", "-a", "a b", "a_b", "a\r\nb"] {
            assert!(hostname(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_of_machines_are_repaired_and_never_judged() {
        for (name, repaired) in [
            ("mail_gw", "mail-gw"),
            ("b\u{fc}ro-pc", "xn--bro-pc-3ya"),
            ("_x_.a..b.", "x.a.b"),
            ("my host", "my-host"),
            ("---", "localhost"),
            ("", "localhost"),
            (&"a".repeat(64), "localhost"),
        ] {
            let (found, warning) = machine_hostname(name);
            assert_eq!(found, repaired, "{name:?}");
            let warning = warning.expect("it was changed");
            assert!(warning.contains(&format!("{name:?}")) && warning.contains(repaired));
        }
        for (name, kept) in [("mx1", "mx1"), ("node1.example.org.", "node1.example.org")] {
            assert_eq!(machine_hostname(name), (kept.to_owned(), None));
        }
    }
}
