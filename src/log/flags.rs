//! What was noticed in mail data, by the names that every tool and document uses.

/// Something noticed in the octets of a message: a bit of [`super::Mail::flags`].
///
/// The bits are those of the log's format: none is ever given to another flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MailFlag {
    /// An octet with bit 7 set, declared by BODY=8BITMIME or not.
    EightBit,
    /// A line of more than 998 octets (RFC 5321 §4.5.3.1.6).
    LongLine,
    /// An LF without its CR as it was received: kept with `line_ends = "allow"`, else repaired.
    BareLf,
    /// A CR without its LF, likewise.
    BareCr,
    /// A NUL.
    Nul,
    /// It does not end in CRLF (RFC 3030 §3).
    NoFinalCrlf,
    /// It came by BDAT rather than DATA.
    Chunked,
    /// Its author is nobody as whom the user that sent it may send (`listener.senders_file`).
    ForeignAuthor = 8,
}

impl MailFlag {
    /// Each with its stable name, by bit.
    pub const NAMES: [(Self, &'static str); 8] = [
        (Self::EightBit, "eight_bit"),
        (Self::LongLine, "long_line"),
        (Self::BareLf, "bare_lf"),
        (Self::BareCr, "bare_cr"),
        (Self::Nul, "nul"),
        (Self::NoFinalCrlf, "no_final_crlf"),
        (Self::Chunked, "chunked"),
        (Self::ForeignAuthor, "foreign_author"),
    ];

    /// Its bit.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The bit where something was noticed, else none.
    #[must_use]
    pub const fn when(self, noticed: bool) -> u32 {
        if noticed { self.bit() } else { 0 }
    }

    /// Names of those that are set; bits that are no such flag are passed over.
    pub fn names(flags: u32) -> impl Iterator<Item = &'static str> {
        let set = move |(flag, _): &(Self, &str)| flags & flag.bit() != 0;
        Self::NAMES.into_iter().filter(set).map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records on disk have these.
    #[test]
    fn bits_are_frozen() {
        let bits = MailFlag::NAMES.map(|(flag, _)| flag.bit());
        assert_eq!(bits, [1, 2, 4, 8, 16, 32, 64, 256]);
        assert!(bits.iter().all(|bit| bit & crate::UNDER_TLS == 0));
        assert_eq!(MailFlag::names(u32::MAX).count(), MailFlag::NAMES.len());
        assert_eq!(MailFlag::names(0b10_0001_0100).collect::<Vec<_>>(), ["bare_lf", "nul"]);
        assert_eq!(MailFlag::names(crate::UNDER_TLS).count(), 0);
    }
}
