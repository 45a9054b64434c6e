//! Mailboxes as RFC 5321 §4.1.2 writes them.
//!
//! Some carriers send mail from and to `a..b@c.d`, `.a@c.d` or `a.@c.d`: a local part with an empty
//! atom, which is not a Dot-string. It is kept as given. When it is sent on it becomes a
//! Quoted-string, which names the same mailbox and which every server must accept.

use std::borrow::Cow;

/// A path without its brackets, its local part quoted where it is neither a Dot-string nor quoted
/// already.
pub(super) fn quoted(path: &str) -> Cow<'_, str> {
    let Some((local, domain)) = path.rsplit_once('@') else { return Cow::Borrowed(path) };
    // A quote within it: quoted already, or nothing that can be mended.
    if local.contains('"') || is_dot_string(local) {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len() + 2);
    out.push('"');
    for character in local.chars() {
        if character == '\\' {
            out.push('\\');
        }
        out.push(character);
    }
    out += "\"@";
    out += domain;
    Cow::Owned(out)
}

/// Atoms between single dots; RFC 6531 §3.3 adds what is beyond ASCII.
fn is_dot_string(local: &str) -> bool {
    let atext =
        |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii();
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(atext))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5321_4_1_2_what_is_no_dot_string_is_quoted() {
        for (path, sent) in [
            ("a@c.d", "a@c.d"),
            ("a.b+c@c.d", "a.b+c@c.d"),
            ("ü.b@c.d", "ü.b@c.d"),
            ("Postmaster", "Postmaster"),
            ("", ""),
            ("\"a..b\"@c.d", "\"a..b\"@c.d"),
            ("\"a@b\"@c.d", "\"a@b\"@c.d"),
            ("a..b@c.d", "\"a..b\"@c.d"),
            (".a@c.d", "\".a\"@c.d"),
            ("a.@c.d", "\"a.\"@c.d"),
            ("a b@c.d", "\"a b\"@c.d"),
            ("a\\b@c.d", "\"a\\\\b\"@c.d"),
            ("@c.d", "\"\"@c.d"),
        ] {
            assert_eq!(quoted(path), sent, "{path}");
        }
    }
}
