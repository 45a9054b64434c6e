//! Octets to text, by a charset's name or without one.

use std::borrow::Cow;

use encoding_rs::{Encoding, ISO_2022_JP, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// What the octets of encoded words stand for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Charset {
    /// By the Encoding Standard of WHATWG, which reads names as mail uses them: ISO-8859-1 is
    /// windows-1252, GB2312 is GBK, KS_C_5601 is windows-949.
    Known(&'static Encoding),
    /// UTF-7, IBM850.
    Rare(fn(&[u8]) -> String),
    /// US-ASCII, and every name that nobody knows: as text that declares nothing.
    Undeclared,
}

impl Charset {
    /// By its name. `None` where octets of it would be read as other letters: ISO-2022-KR,
    /// ISO-2022-CN and HZ write theirs with octets of ASCII, and no library here knows them.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        // RFC 2231 §5: a language may follow.
        let name = name.split(|&octet| octet == b'*').next().unwrap_or_default();
        if [&b"us-ascii"[..], b"ascii"].iter().any(|ascii| name.eq_ignore_ascii_case(ascii)) {
            return Some(Self::Undeclared);
        }
        if let Some(known) = Encoding::for_label(name).or_else(|| alias(name)) {
            return (known != encoding_rs::REPLACEMENT).then_some(Self::Known(known));
        }
        // That map is hashed over at most 45 octets, and wants one.
        let fits = (1..=45).contains(&name.len());
        let rare = fits.then(|| mail_parser::decoders::charsets::map::charset_decoder(name));
        Some(rare.flatten().map_or(Self::Undeclared, Self::Rare))
    }

    pub(super) fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Known(one), Self::Known(other)) => one == other,
            (Self::Rare(one), Self::Rare(other)) => std::ptr::fn_addr_eq(one, other),
            (Self::Undeclared, Self::Undeclared) => true,
            _ => false,
        }
    }

    pub(super) fn text(self, octets: &[u8]) -> Cow<'_, str> {
        match self {
            // With either a mark of the byte order counts more than the name.
            Self::Known(known) if known == UTF_16LE || known == UTF_16BE => known.decode(octets).0,
            Self::Known(known) if known == ISO_2022_JP && octets.contains(&ESC) => {
                let octets = without_empty_shifts(octets);
                Cow::Owned(known.decode_without_bom_handling(&octets).0.into_owned())
            }
            Self::Known(known) => known.decode_with_bom_removal(octets).0,
            Self::Rare(decode) => Cow::Owned(decode(octets)),
            Self::Undeclared => undeclared(octets),
        }
    }
}

const ESC: u8 = 0x1b;

/// A shift that another follows at once, as where two words meet, shows nothing; the standard makes
/// it a broken character.
fn without_empty_shifts(octets: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(octets.len());
    let mut rest = octets;
    while let Some((&octet, behind)) = rest.split_first() {
        if octet == ESC && behind.get(2) == Some(&ESC) {
            rest = rest.get(3..).unwrap_or_default();
        } else {
            shown.push(octet);
            rest = behind;
        }
    }
    shown
}

/// Names that mail has and the standard lacks.
fn alias(name: &[u8]) -> Option<&'static Encoding> {
    let known: &[u8] = match name.to_ascii_lowercase().as_slice() {
        b"cp932" | b"ms932" | b"windows-932" => b"shift_jis",
        b"cp936" | b"ms936" | b"windows-936" | b"euc-cn" => b"gbk",
        b"cp949" | b"ms949" | b"uhc" => b"euc-kr",
        b"cp950" | b"ms950" | b"windows-950" => b"big5",
        b"cp50220" | b"cp50221" | b"iso-2022-jp-1" | b"iso-2022-jp-ms" => b"iso-2022-jp",
        b"eucjp-ms" | b"eucjp" | b"cp51932" => b"euc-jp",
        b"latin-1" => b"latin1",
        b"utf8mb4" => b"utf-8",
        _ => return None,
    };
    Encoding::for_label(known)
}

/// Text that declares no charset: UTF-8 if valid, else windows-1252. Some well-formed characters
/// beyond ASCII show that UTF-8 was meant and something cut or broke it: the rest is replaced.
pub(super) fn undeclared(octets: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(octets) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) if octets.utf8_chunks().any(|chunk| !chunk.valid().is_ascii()) => {
            String::from_utf8_lossy(octets)
        }
        Err(_) => WINDOWS_1252.decode_without_bom_handling(octets).0,
    }
}
