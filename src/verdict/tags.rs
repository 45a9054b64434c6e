//! Tag lists (RFC 6376 §3.2). mail-auth reads them by first letters, in any case, takes the last of
//! several, and fills in what is missing: this decides first whether there is a list at all.

/// The list of a DKIM-Signature (RFC 6376 §3.5).
pub(crate) const DKIM: &[&str] = &["v", "a", "b", "bh", "d", "h", "s"];
/// The list of an ARC-Message-Signature (RFC 8617 §4.1.2).
pub(crate) const ARC_SIGNATURE: &[&str] = &["i", "a", "b", "bh", "d", "h", "s"];
/// The list of an ARC-Seal (RFC 8617 §4.1.3).
pub(crate) const ARC_SEAL: &[&str] = &["i", "a", "b", "cv", "d", "s"];

/// Tags of one list that are looked at.
const TAGS_MAX: usize = 64;

/// Whether a value is a list in which each tag is there once, and all of these are.
pub(crate) fn is_list_with(value: &[u8], required: &[&str]) -> bool {
    let value = value.trim_ascii();
    let value = value.strip_suffix(b";").unwrap_or(value);
    let mut names: Vec<&[u8]> = Vec::new();
    for tag in value.split(|&octet| octet == b';') {
        let Some(equals) = memchr::memchr(b'=', tag) else { return false };
        let name = tag[..equals].trim_ascii();
        let inner = |&octet: &u8| octet.is_ascii_alphanumeric() || octet == b'_';
        let is_name = name.first().is_some_and(u8::is_ascii_alphabetic) && name.iter().all(inner);
        if !is_name || names.contains(&name) || names.len() >= TAGS_MAX {
            return false;
        }
        names.push(name);
    }
    required.iter().all(|name| names.contains(&name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_each_tag_once() {
        let is = |text: &str| is_list_with(text.as_bytes(), &["a", "b"]);
        assert!(is(" a=1;\r\n b = x=y ; later=2;\r\n"));
        for bad in ["a=1; b=2; a=3", "A=1; b=2", "a=1", "a=1;; b=2", "a=1; b", "a=1; b=2; 3=4", ""]
        {
            assert!(!is(bad), "{bad}");
        }
    }
}
