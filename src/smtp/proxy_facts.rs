//! What a proxy said about a client, as text: `KEY=value` items joined by LF.

/// Longest value kept, in characters: a domain and a login have 255 at most.
const VALUE_CHARS_MAX: usize = 255;

/// Appends an item.
///
/// The value may be hostile: what is not printable becomes `?`, so that no item breaks in two, and
/// what is long is cut.
pub fn push_proxy_fact(items: &mut String, prefix: &str, key: &str, value: &[u8]) {
    if !items.is_empty() {
        items.push('\n');
    }
    items.push_str(prefix);
    items.push_str(key);
    items.push('=');
    items.push_str(&printable(value));
}

/// The text of some octets, with `?` for what is not printable.
pub(super) fn printable(octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets);
    let plain = |c: char| match c {
        char::REPLACEMENT_CHARACTER | '\u{2028}' | '\u{2029}' => '?',
        c if c.is_control() => '?',
        c => c,
    };
    text.chars().take(VALUE_CHARS_MAX).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_breaks_an_item() {
        let mut items = String::new();
        push_proxy_fact(&mut items, "P_", "A", b"one");
        push_proxy_fact(&mut items, "P_", "B", b"two\r\nP_C=3\0\xff\xc2\x85");
        push_proxy_fact(&mut items, "", "D", "ü".repeat(300).as_bytes());
        let lines: Vec<&str> = items.split('\n').collect();
        assert_eq!(lines[..2], ["P_A=one", "P_B=two??P_C=3???"]);
        assert_eq!(lines[2..], [format!("D={}", "ü".repeat(255))]);
    }
}
