//! Replies as they come off the wire, cut anywhere.

/// Longest reply line that is waited for. RFC 5321 §4.5.3.1.5 allows 512 octets; servers exceed it.
const LINE_BYTES_MAX: usize = 4096;

/// One line of a reply (RFC 5321 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) code: u16,
    /// The last line of its reply.
    pub(super) is_final: bool,
    /// What follows the code, without the line end.
    pub(super) text: &'a [u8],
}

/// What came is no SMTP reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotSmtp;

/// Cuts lines out of octets. Copies only a line that came in parts.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    part: Vec<u8>,
    part_is_done: bool,
}

impl LineReader {
    /// Takes the next line off the front of `input`; `None` once all of it is consumed.
    ///
    /// # Errors
    /// Where a line is none of a reply. The reader is of no use afterwards.
    pub(super) fn next<'a, 'input: 'a>(
        &'a mut self,
        input: &mut &'input [u8],
    ) -> Result<Option<Line<'a>>, NotSmtp> {
        if self.part_is_done {
            self.part.clear();
            self.part_is_done = false;
        }
        let Some(end) = memchr::memchr(b'\n', input) else {
            self.part.extend_from_slice(input);
            *input = &[];
            return if self.part.len() > LINE_BYTES_MAX { Err(NotSmtp) } else { Ok(None) };
        };
        let (line, rest) = input.split_at(end + 1);
        *input = rest;
        if self.part.is_empty() {
            return parse(line).map(Some);
        }
        self.part.extend_from_slice(line);
        self.part_is_done = true;
        parse(&self.part).map(Some)
    }
}

fn parse(line: &[u8]) -> Result<Line<'_>, NotSmtp> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (code, rest) = line.split_at_checked(3).ok_or(NotSmtp)?;
    let (is_final, text) = match rest.split_first() {
        None => (true, rest),
        Some((b' ', text)) => (true, text),
        Some((b'-', text)) => (false, text),
        Some(_) => return Err(NotSmtp),
    };
    let mut number = 0;
    for &digit in code {
        if !digit.is_ascii_digit() {
            return Err(NotSmtp);
        }
        number = number * 10 + u16::from(digit - b'0');
    }
    if !(200..600).contains(&number) {
        return Err(NotSmtp);
    }
    Ok(Line { code: number, is_final, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&[u8]]) -> Result<Vec<(u16, bool, String)>, NotSmtp> {
        let mut reader = LineReader::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            let mut input = *chunk;
            while let Some(line) = reader.next(&mut input)? {
                let text = String::from_utf8_lossy(line.text).into_owned();
                lines.push((line.code, line.is_final, text));
            }
            assert!(input.is_empty());
        }
        Ok(lines)
    }

    #[test]
    fn any_split_reads_the_same() {
        let wire = b"220 mx ESMTP\r\n250-mx\r\n250-PIPELINING\r\n250 SIZE 1\r\n354\r\n250 ok\n";
        let whole = read(&[wire]).unwrap();
        assert_eq!(whole.len(), 6);
        assert_eq!(whole[1], (250, false, "mx".into()));
        assert_eq!(whole[4], (354, true, String::new()));
        for first in 0..wire.len() {
            for second in first..wire.len() {
                let chunks = [&wire[..first], &wire[first..second], &wire[second..]];
                assert_eq!(read(&chunks).unwrap(), whole, "cut at {first}, {second}");
            }
        }
    }

    #[test]
    fn other_protocols_are_noticed() {
        for bad in ["HTTP/1.1 400\r\n", "25\r\n", "250+x\r\n", "999 x\r\n", "\r\n"] {
            assert_eq!(read(&[bad.as_bytes()]), Err(NotSmtp), "{bad:?}");
        }
        assert_eq!(read(&[&[b'2'; LINE_BYTES_MAX + 1]]), Err(NotSmtp));
    }
}
