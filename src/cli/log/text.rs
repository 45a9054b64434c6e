//! Text for a terminal line.

/// Characters of a subject that a line shows.
const SUBJECT_CHARS_MAX: usize = 120;

/// What a client chose, on one printable line: controls, separators, bidirectional marks and the
/// backslash are escaped, so a line can neither be forged nor turned around.
pub(in crate::cli) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(['\'', '"']) {
        let plain = part.trim_end_matches(['\'', '"']);
        out.extend(plain.escape_debug());
        out.push_str(part.get(plain.len()..).unwrap_or_default());
    }
    out
}

/// A quoted, escaped and shortened subject.
pub(super) fn quote_subject(subject: &str) -> String {
    let mut shown: String = subject.chars().take(SUBJECT_CHARS_MAX).collect();
    if shown.len() < subject.len() {
        shown.push('…');
    }
    format!("\"{}\"", escape(&shown).replace('"', "\\\""))
}

/// `512`, `18.2K`, `3.0M`: octets in powers of 1,024, as short as a column wants it.
pub(super) fn human_size(bytes: u64) -> String {
    if bytes < 1_024 {
        return bytes.to_string();
    }
    let mut tenths = bytes.saturating_mul(10) / 1_024;
    for unit in ["K", "M", "G"] {
        if tenths < 10_240 {
            return format!("{}.{}{unit}", tenths / 10, tenths % 10);
        }
        tenths /= 1_024;
    }
    format!("{}.{}T", tenths / 10, tenths % 10)
}

/// `12s`, `5m`, `3h`, `2d`.
pub(super) fn human_age(micros: i64) -> String {
    let seconds = micros.max(0) / 1_000_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_printable_line() {
        assert_eq!(escape("o'neil \"x\" grün"), "o'neil \"x\" grün");
        for (bad, shown) in [
            ("a\r\nb", "a\\r\\nb"),
            ("a\u{1b}[31m", "a\\u{1b}[31m"),
            ("a\u{2028}b", "a\\u{2028}b"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("a\u{2066}b", "a\\u{2066}b"),
            ("a\u{85}b", "a\\u{85}b"),
            ("a\\n", "a\\\\n"),
        ] {
            assert_eq!(escape(bad), shown);
        }
        assert_eq!(quote_subject("say \"hi\""), "\"say \\\"hi\\\"\"");
        assert!(quote_subject(&"x".repeat(500)).len() < 130);
    }

    #[test]
    fn sizes_and_ages_are_short() {
        for (bytes, text) in [
            (0, "0"),
            (1_023, "1023"),
            (1_024, "1.0K"),
            (18_637, "18.2K"),
            (1 << 20, "1.0M"),
            (5 << 40, "5.0T"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(human_age(119_000_000), "119s");
        assert_eq!(human_age(3 * 86_400_000_000), "3d");
    }
}
