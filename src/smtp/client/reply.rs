//! Replies of a server (RFC 5321 §4.2): assembled from octets as they come, and bounded, because
//! the server may be hostile.

/// Longest reply line. RFC 5321 §4.5.3.1.5 has 512 octets; servers with long texts exceed it.
const LINE_OCTETS_MAX: usize = 2_048;
/// Longest reply, all its lines together: an EHLO reply with every extension has some 1,000 octets.
const REPLY_OCTETS_MAX: usize = 65_536;
/// What is kept of a reply's text for people.
const TEXT_OCTETS_MAX: usize = 300;

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Reply code, 200 to 599.
    pub code: u16,
    /// Text of each line, without code and separator.
    pub lines: Vec<String>,
}

impl Reply {
    /// First digit of the code.
    #[must_use]
    pub fn class(&self) -> u16 {
        self.code / 100
    }

    /// Enhanced status code (RFC 3463) at the start of the text, if its class agrees (RFC 2034 §4).
    #[must_use]
    pub fn enhanced(&self) -> Option<(u16, u16)> {
        let word = self.lines.first()?.split(' ').next()?;
        let mut parts = word.split('.').map(|part| part.parse::<u16>().ok());
        let (class, subject, detail) = (parts.next()??, parts.next()??, parts.next()??);
        (class == self.class() && parts.next().is_none()).then_some((subject, detail))
    }

    /// Code and text on one line, shortened: a server's words go into logs and dead letters.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.code.to_string();
        for word in self.lines.iter().flat_map(|line| line.split_whitespace()) {
            if text.len() + word.len() >= TEXT_OCTETS_MAX {
                text.push('…');
                break;
            }
            text.push(' ');
            text.extend(word.chars().map(|c| if c.is_control() { '?' } else { c }));
        }
        text
    }
}

/// Why what came is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadReply {
    /// A line without a code, or with one that is none.
    NotAReply,
    /// Lines of one reply with different codes.
    MixedCodes,
    /// A line beyond the limit.
    LineTooLong,
    /// Lines without end.
    TooLong,
}

impl BadReply {
    /// For people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NotAReply => "the server sent something that is not an SMTP reply",
            Self::MixedCodes => "the server sent a reply with several codes",
            Self::LineTooLong => "the server sent a reply line of more than 2,048 bytes",
            Self::TooLong => "the server sent a reply of more than 65,536 bytes",
        }
    }
}

/// One line of a reply (RFC 5321 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Reply code, 200 to 599.
    pub code: u16,
    /// The last line of its reply.
    pub is_final: bool,
    /// What follows code and separator, without the line end.
    pub text: &'a [u8],
}

/// Cuts reply lines out of octets. Copies only a line that came in parts.
#[derive(Debug, Default)]
pub struct LineReader {
    /// Invariant: `len <= LINE_OCTETS_MAX`.
    part: Vec<u8>,
    part_is_done: bool,
    /// Of the reply that has begun.
    code: Option<u16>,
    /// Of its lines that are complete.
    octets: usize,
}

impl LineReader {
    /// Takes the next line off the front of `input`; `None` once all of it is consumed.
    ///
    /// # Errors
    /// What came is no reply, or none that ends; nothing more can be read then.
    pub fn next<'a, 'input: 'a>(
        &'a mut self,
        input: &mut &'input [u8],
    ) -> Result<Option<Line<'a>>, BadReply> {
        if self.part_is_done {
            self.part.clear();
            self.part_is_done = false;
        }
        // A bare LF ends a line here too: there is nothing to smuggle in a reply.
        let end = memchr::memchr(b'\n', input).map(|at| at + 1);
        let (piece, rest) = input.split_at(end.unwrap_or(input.len()));
        *input = rest;
        let len = self.part.len() + piece.len();
        if len > LINE_OCTETS_MAX {
            return Err(BadReply::LineTooLong);
        }
        let line = if end.is_some() && self.part.is_empty() {
            piece
        } else {
            self.part.extend_from_slice(piece);
            self.part_is_done = end.is_some();
            if end.is_none() {
                return Ok(None);
            }
            &self.part
        };
        self.octets += len;
        if self.octets > REPLY_OCTETS_MAX {
            return Err(BadReply::TooLong);
        }
        let line = parse(line)?;
        if *self.code.get_or_insert(line.code) != line.code {
            return Err(BadReply::MixedCodes);
        }
        if line.is_final {
            self.code = None;
            self.octets = 0;
        }
        Ok(Some(line))
    }

    /// Something of a reply has come, and not all of it.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.octets > 0 || !self.part.is_empty() && !self.part_is_done
    }
}

fn parse(line: &[u8]) -> Result<Line<'_>, BadReply> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (code, rest) = line.split_at_checked(3).ok_or(BadReply::NotAReply)?;
    let code = match code {
        [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'] => {
            code.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
        }
        _ => return Err(BadReply::NotAReply),
    };
    let is_final = match rest.first() {
        None | Some(b' ') => true,
        Some(b'-') => false,
        Some(_) => return Err(BadReply::NotAReply),
    };
    Ok(Line { code, is_final, text: rest.get(1..).unwrap_or_default() })
}

/// Collects replies.
#[derive(Debug, Default)]
pub struct ReplyReader {
    reader: LineReader,
    lines: Vec<String>,
}

impl ReplyReader {
    /// Takes octets from the front of `input` up to the end of one reply.
    ///
    /// # Errors
    /// As [`LineReader::next`].
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, BadReply> {
        while let Some(line) = self.reader.next(input)? {
            self.lines.push(String::from_utf8_lossy(line.text).into_owned());
            if line.is_final {
                return Ok(Some(Reply { code: line.code, lines: std::mem::take(&mut self.lines) }));
            }
        }
        Ok(None)
    }

    /// Something of a reply has come, and not all of it.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.reader.is_inside()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(octets: &[u8]) -> Result<Vec<Reply>, BadReply> {
        let whole = read_in(octets, octets.len().max(1));
        assert_eq!(read_in(octets, 1), whole, "octet by octet");
        whole
    }

    fn read_in(octets: &[u8], piece: usize) -> Result<Vec<Reply>, BadReply> {
        let mut reader = ReplyReader::default();
        let mut replies = Vec::new();
        for mut input in octets.chunks(piece) {
            while let Some(reply) = reader.take(&mut input)? {
                replies.push(reply);
            }
        }
        Ok(replies)
    }

    #[test]
    fn rfc5321_4_2_replies_of_one_and_of_many_lines() {
        let replies = read(b"220 hi\r\n250-a\r\n250-b c\r\n250 d\r\n354\r\n250 \n").unwrap();
        let texts: Vec<_> = replies.iter().map(Reply::text).collect();
        assert_eq!(texts, ["220 hi", "250 a b c d", "354", "250"]);
        assert_eq!(replies[1].lines, ["a", "b c", "d"]);
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bad in ["\r\n", "25\r\n", "abc hello\r\n", "250_x\r\n", "199 x\r\n", "600 x\r\n"] {
            assert_eq!(read(bad.as_bytes()), Err(BadReply::NotAReply), "{bad:?}");
        }
        assert_eq!(read(b"HTTP/1.1 400 Bad Request\r\n"), Err(BadReply::NotAReply));
        assert_eq!(read(b"250-a\r\n251 b\r\n"), Err(BadReply::MixedCodes));
    }

    #[test]
    fn a_line_is_copied_only_where_it_came_in_parts() {
        let mut reader = LineReader::default();
        let mut input = b"250-a\r\n250 b\r\n25".as_slice();
        let first = input.as_ptr();
        let line = reader.next(&mut input).unwrap().unwrap();
        assert_eq!(line.text.as_ptr(), first.wrapping_add(4));
        assert_eq!(reader.next(&mut input).unwrap().unwrap().text, b"b");
        assert!(!reader.is_inside());
        assert_eq!(reader.next(&mut input), Ok(None));
        assert!(reader.is_inside());
    }

    #[test]
    fn a_reply_has_an_end() {
        let line = [b"250-".as_slice(), &[b'x'; 3_000]].concat();
        assert_eq!(read(&line), Err(BadReply::LineTooLong));
        assert_eq!(read(&b"250-x\r\n".repeat(10_000)), Err(BadReply::TooLong));
    }

    #[test]
    fn rfc3463_enhanced_codes() {
        let enhanced = |line: &str| read(line.as_bytes()).unwrap()[0].enhanced();
        assert_eq!(enhanced("552 5.2.2 full\r\n"), Some((2, 2)));
        assert_eq!(enhanced("452 4.5.3\r\n"), Some((5, 3)));
        for none in
            ["552 4.2.2 full\r\n", "552 full\r\n", "552\r\n", "552 5.2\r\n", "552 5.2.2.1\r\n"]
        {
            assert_eq!(enhanced(none), None, "{none}");
        }
    }

    #[test]
    fn a_text_for_people_is_short_and_holds_no_control_characters() {
        let reply = &read(&[b"550 \x1b[2Jx ".as_slice(), &b"long ".repeat(200), b"\r\n"].concat())
            .unwrap()[0];
        assert!(reply.text().starts_with("550 ?[2Jx long"));
        assert!(reply.text().len() < 310);
    }
}
