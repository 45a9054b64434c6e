//! Real mail to send: a directory of messages or an mbox file, read once.

use std::{fs, io, ops::Range, path::Path};

use super::random::below;

/// Where one message lies in the corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) plain: Range<usize>,
    /// With dots stuffed (RFC 5321 §4.5.2); `plain` where there are none.
    pub(super) stuffed: Range<usize>,
}

/// Messages, line ends made CRLF.
#[derive(Debug, Default)]
pub(super) struct Corpus {
    octets: Vec<u8>,
    messages: Vec<Message>,
}

impl Corpus {
    /// Reads every file of a directory (not of those below it) as a message, or an mbox file.
    ///
    /// # Errors
    /// What the file system says; `InvalidData` where there is no message.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let mut corpus = Self::default();
        if path.is_dir() {
            let mut paths = fs::read_dir(path)?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<Vec<_>>>()?;
            paths.sort();
            for path in paths.iter().filter(|path| path.is_file()) {
                corpus.push(&fs::read(path)?);
            }
        } else {
            for message in split_mbox(&fs::read(path)?) {
                corpus.push(&message);
            }
        }
        if corpus.messages.is_empty() {
            let what = format!("{}: no message in it", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(corpus)
    }

    pub(super) fn message(&self, random: u64) -> &Message {
        &self.messages[below(random, self.messages.len() as u64) as usize]
    }

    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    fn push(&mut self, raw: &[u8]) {
        let mut stuffed = Vec::new();
        let mut has_dots = false;
        let start = self.octets.len();
        for line in raw.split_inclusive(|&octet| octet == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.first() == Some(&b'.') {
                has_dots = true;
                stuffed.push(b'.');
            }
            // RFC 5321 §2.3.8: CR and LF appear only together; NUL is refused by many servers.
            let line = line.iter().map(|&octet| match octet {
                b'\r' | 0 => b' ',
                octet => octet,
            });
            let from = self.octets.len();
            self.octets.extend(line);
            self.octets.extend_from_slice(b"\r\n");
            stuffed.extend_from_slice(&self.octets[from..]);
        }
        let plain = start..self.octets.len();
        if plain.is_empty() {
            return;
        }
        let mut message = Message { plain: plain.clone(), stuffed: plain };
        if has_dots {
            let start = self.octets.len();
            self.octets.extend_from_slice(&stuffed);
            message.stuffed = start..self.octets.len();
        }
        self.messages.push(message);
    }
}

/// Cuts at `From ` lines; `>From ` in a message loses its mark (the mboxrd form of RFC 4155).
fn split_mbox(octets: &[u8]) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut after_blank = true;
    for line in octets.split_inclusive(|&octet| octet == b'\n') {
        if after_blank && line.starts_with(b"From ") {
            messages.push(Vec::new());
            after_blank = false;
            continue;
        }
        after_blank = matches!(line, b"\n" | b"\r\n");
        let marks = line.iter().take_while(|&&octet| octet == b'>').count();
        let quoted = marks > 0 && line[marks..].starts_with(b"From ");
        if let Some(message) = messages.last_mut() {
            message.extend_from_slice(if quoted { &line[1..] } else { line });
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mbox_is_cut() {
        let mbox = b"From a@b Thu Jan 1\nSubject: 1\n\n>From me\n.dot\n\nFrom c@d\nSubject: 2\n\nx";
        let messages = split_mbox(mbox);
        assert_eq!(messages.len(), 2);
        let mut corpus = Corpus::default();
        for message in &messages {
            corpus.push(message);
        }
        let at = |range: &Range<usize>| String::from_utf8_lossy(&corpus.octets[range.clone()]);
        let [first, second] = &corpus.messages[..] else { panic!() };
        assert_eq!(at(&first.plain), "Subject: 1\r\n\r\nFrom me\r\n.dot\r\n\r\n");
        assert_eq!(at(&first.stuffed), "Subject: 1\r\n\r\nFrom me\r\n..dot\r\n\r\n");
        assert_eq!(second.plain, second.stuffed);
        assert_eq!(at(&second.plain), "Subject: 2\r\n\r\nx\r\n");
    }

    #[test]
    fn a_directory_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Corpus::load(dir.path()).is_err());
        fs::write(dir.path().join("1"), "Subject: 1\r\n\r\na\rb\0c\r\n").unwrap();
        let corpus = Corpus::load(dir.path()).unwrap();
        assert_eq!(corpus.octets(), b"Subject: 1\r\n\r\na b c\r\n");
        assert!(Corpus::load(&dir.path().join("2")).is_err());
    }
}
