//! As much SMTP as it takes to see that a server is there and what it offers.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// What matters here of the service extensions in the reply to EHLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) pipelining: bool,
    pub(crate) chunking: bool,
    pub(crate) starttls: bool,
}

/// Waits until the server greets, and asks what it offers.
///
/// # Errors
/// Where it does not greet in time; the last error met.
pub(crate) fn wait_for(address: SocketAddr, longest: Duration) -> io::Result<Offer> {
    let began = Instant::now();
    loop {
        match ask(address) {
            Ok(offer) => return Ok(offer),
            Err(error) if began.elapsed() > longest => return Err(error),
            // Nothing tells when a foreign server has begun to listen.
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn ask(address: SocketAddr) -> io::Result<Offer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    read_reply(&mut stream)?;
    stream.write_all(b"EHLO client.test\r\n")?;
    let offer = offer(&read_reply(&mut stream)?);
    stream.write_all(b"QUIT\r\n")?;
    read_reply(&mut stream)?;
    Ok(offer)
}

fn offer(reply: &str) -> Offer {
    let has = |word: &str| {
        reply.lines().filter_map(|line| line.get(4..)).any(|line| {
            line.split_whitespace().next().is_some_and(|first| first.eq_ignore_ascii_case(word))
        })
    };
    Offer { pipelining: has("PIPELINING"), chunking: has("CHUNKING"), starttls: has("STARTTLS") }
}

/// Reads one reply with all its lines.
///
/// # Errors
/// Where none comes, or it is not 2yz.
pub(crate) fn read_reply(stream: &mut TcpStream) -> io::Result<String> {
    let mut octets = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        octets.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&octets);
        if is_whole(&text) {
            let is_good = text.starts_with('2');
            return if is_good { Ok(text.into_owned()) } else { Err(io::Error::other(text)) };
        }
    }
}

/// The last line has a space behind its code (RFC 5321 §4.2.1).
fn is_whole(text: &str) -> bool {
    text.ends_with("\r\n") && text.lines().last().is_some_and(|line| line.get(3..4) != Some("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_end_with_a_line_without_a_hyphen() {
        assert!(is_whole("250-a.test\r\n250 PIPELINING\r\n"));
        assert!(is_whole("220 a.test\r\n"));
        for part in ["250-a.test\r\n", "250-a.test\r\n250 PIPE", ""] {
            assert!(!is_whole(part), "{part:?}");
        }
    }

    #[test]
    fn keywords_are_whole_words() {
        let reply = "250-a.test CHUNKING\r\n250-pipelining\r\n250 CHUNKINGS\r\n";
        assert_eq!(offer(reply), Offer { pipelining: true, ..Offer::default() });
        assert!(offer("250-a\r\n250 STARTTLS\r\n").starttls);
        assert!(offer("250-a\r\n250 CHUNKING\r\n").chunking);
    }
}
