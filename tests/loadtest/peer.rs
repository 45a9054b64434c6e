//! A small server of the test's own. It takes connections behind a PROXY header, which it reads by
//! the words of the specification, sharing no code with what writes it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

/// What a header claimed.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// Source and destination.
    Relayed(SocketAddr, SocketAddr),
    /// Nothing is known of the source.
    Local,
}

/// What a connection claimed, and where it really came from.
pub struct Seen {
    pub claim: Result<Claim, String>,
    pub peer: SocketAddr,
}

/// Where it listens, and what it saw of each connection.
pub fn start() -> (SocketAddr, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let tell = tell.clone();
            thread::spawn(move || serve(stream, &tell));
        }
    });
    (address, told)
}

fn serve(stream: TcpStream, tell: &Sender<Seen>) {
    let mut out = stream.try_clone().unwrap();
    let peer = stream.peer_addr().unwrap();
    let mut input = BufReader::new(stream);
    if input.fill_buf().is_ok_and(<[u8]>::is_empty) {
        // Opened when the run ended, and closed at once.
        return;
    }
    let claim = header(&mut input);
    let is_bad = claim.is_err();
    // The test may have seen enough.
    let _ = tell.send(Seen { claim, peer });
    if !is_bad {
        talk(input, &mut out);
    }
}

/// Answers as a server that takes all mail; LMTP alike as long as a message has one recipient.
pub fn talk(input: impl BufRead, out: &mut impl Write) {
    if out.write_all(b"220 mx\r\n").is_err() {
        return;
    }
    let mut is_data = false;
    for line in input.lines().map_while(Result::ok) {
        let reply = match line.as_bytes() {
            b"." => {
                is_data = false;
                "250 ok\r\n"
            }
            _ if is_data => continue,
            b"DATA" => {
                is_data = true;
                "354 go\r\n"
            }
            b"QUIT" => "221 bye\r\n",
            _ => "250 ok\r\n",
        };
        if out.write_all(reply.as_bytes()).is_err() || reply.starts_with("221") {
            return;
        }
    }
}

/// "The receiver may apply a short timeout"; a test's client either sends it or fails.
pub fn header(input: &mut BufReader<TcpStream>) -> Result<Claim, String> {
    let first = input.fill_buf().map_err(|error| error.to_string())?.first().copied();
    match first {
        Some(b'P') => version_1(input),
        Some(b'\r') => version_2(input),
        other => Err(format!("begins with {other:?}")),
    }
}

fn version_1(input: &mut BufReader<TcpStream>) -> Result<Claim, String> {
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| error.to_string())?;
    let line = line.strip_suffix("\r\n").ok_or("no CRLF")?;
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["PROXY", "UNKNOWN"] => Ok(Claim::Local),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, to, source_port, to_port] => {
            let end = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().map_err(|_| format!("address {ip}"))?;
                if ip.is_ipv4() != (family == "TCP4") {
                    return Err(format!("{ip} is not of {family}"));
                }
                Ok(SocketAddr::new(ip, port.parse().map_err(|_| format!("port {port}"))?))
            };
            Ok(Claim::Relayed(end(source, source_port)?, end(to, to_port)?))
        }
        _ => Err(line.to_owned()),
    }
}

fn version_2(input: &mut BufReader<TcpStream>) -> Result<Claim, String> {
    let mut fixed = [0; 16];
    input.read_exact(&mut fixed).map_err(|error| error.to_string())?;
    if fixed[..12] != *b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A" {
        return Err(format!("signature {fixed:x?}"));
    }
    let mut rest = vec![0; usize::from(fixed[14]) << 8 | usize::from(fixed[15])];
    input.read_exact(&mut rest).map_err(|error| error.to_string())?;
    if fixed[12] >> 4 != 2 {
        return Err(format!("version {:x}", fixed[12]));
    }
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    match (fixed[12] & 15, fixed[13], rest.len()) {
        (0, _, _) => Ok(Claim::Local),
        (1, 0x11, 12) => {
            let ip = |at: usize| Ipv4Addr::new(rest[at], rest[at + 1], rest[at + 2], rest[at + 3]);
            Ok(Claim::Relayed((ip(0), port(8)).into(), (ip(4), port(10)).into()))
        }
        (1, 0x21, 36) => {
            let ip = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&rest[at..at + 16]).unwrap());
            Ok(Claim::Relayed((ip(0), port(32)).into(), (ip(16), port(34)).into()))
        }
        what => Err(format!("{what:x?}")),
    }
}
