//! PLAIN (RFC 4616) and LOGIN: the client sends its password.

use super::USER_BYTES_MAX;

/// A message of PLAIN.
#[derive(PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) user: String,
    pub(super) password: String,
    /// The authorization identity is somebody else's, which nobody is allowed.
    pub(super) acts_for_another: bool,
}

/// RFC 4616 §2: `[authzid] NUL authcid NUL passwd`, the latter two not empty.
pub(super) fn plain(message: &[u8]) -> Option<Plain> {
    let mut parts = message.split(|octet| *octet == 0);
    let (actor, name, secret) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (user, password) = (user(name)?, word(secret)?);
    let acts_for_another = !actor.is_empty() && actor != user.as_bytes();
    Some(Plain { user, password, acts_for_another })
}

/// A name: UTF-8 without NUL, not empty, of a sane length. Whether anybody has it is not said here.
pub(super) fn user(octets: &[u8]) -> Option<String> {
    word(octets).filter(|name| name.len() <= USER_BYTES_MAX)
}

/// A password: as a name, of any length that a line holds.
pub(super) fn word(octets: &[u8]) -> Option<String> {
    let text = str::from_utf8(octets).ok()?;
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// G7 and G8.
    #[test]
    fn rfc4616_2_the_message() {
        let plain = |message: &[u8]| {
            plain(message).map(|plain| (plain.user, plain.password, plain.acts_for_another))
        };
        let some = |another| Some(("tim".to_owned(), "tanstaaftanstaaf".to_owned(), another));
        // RFC 4616 §4.
        assert_eq!(plain(b"\0tim\0tanstaaftanstaaf"), some(false));
        assert_eq!(plain(b"tim\0tim\0tanstaaftanstaaf"), some(false));
        assert_eq!(plain(b"Ursel\0tim\0tanstaaftanstaaf"), some(true));
        for bad in [&b""[..], b"tim", b"tim\0x", b"\0\0x", b"\0tim\0", b"\0tim\0x\0", b"\0\xff\0x"]
        {
            assert_eq!(plain(bad), None, "{bad:?}");
        }
        assert_eq!(plain(&[b"\0", &[b'u'; 256][..], b"\0x"].concat()), None);
        assert!(plain(&[b"\0", &[b'u'; 255][..], b"\0x"].concat()).is_some());
    }
}
