//! A plain SMTP client that sends what the test says.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

/// See the module's page.
pub struct Client {
    pub stream: BufReader<TcpStream>,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let mut client = Self::open(address);
        let greeting = client.reply();
        assert!(greeting.starts_with("220 "), "{greeting}");
        client
    }

    /// Connects; the greeting is not read.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("it listens"))
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream: BufReader::new(stream) }
    }

    /// Connects from 127.0.0.LAST; the greeting is not read.
    pub fn open_from(server: SocketAddr, last: u8) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let own = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
        socket.bind(&own.into()).expect("an address of loopback");
        socket.connect(&server.into()).expect("it listens");
        Self::over(TcpStream::from(socket))
    }

    /// Says each line; its reply begins as wanted.
    #[track_caller]
    pub fn dialogue(&mut self, lines: &[(&str, &str)]) {
        for (line, wanted) in lines {
            let reply = self.say(line);
            assert!(reply.starts_with(wanted), "{line}: {reply}, not {wanted}");
        }
    }

    /// The next reply, all its lines.
    #[track_caller]
    pub fn reply(&mut self) -> String {
        self.try_reply().expect("a reply")
    }

    pub fn try_reply(&mut self) -> Option<String> {
        let mut reply = String::new();
        loop {
            let at = reply.len();
            self.stream.read_line(&mut reply).ok()?;
            // The stream may end anywhere.
            if !reply[at..].ends_with("\r\n") {
                return None;
            }
            if reply.as_bytes().get(at + 3) != Some(&b'-') {
                return Some(reply);
            }
        }
    }

    pub fn send(&mut self, octets: &[u8]) -> bool {
        self.stream.get_mut().write_all(octets).is_ok()
    }

    #[track_caller]
    pub fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    #[track_caller]
    pub fn ehlo(&mut self) {
        let reply = self.say("EHLO client.test");
        assert!(reply.starts_with("250-"), "{reply}");
    }

    /// Says MAIL, RCPT and DATA up to the 354.
    #[track_caller]
    pub fn begin_data(&mut self) {
        for (line, code) in [
            ("MAIL FROM:<a@client.test>", "250"),
            ("RCPT TO:<b@server.test>", "250"),
            ("DATA", "354"),
        ] {
            let reply = self.say(line);
            assert!(reply.starts_with(code), "{line}: {reply}");
        }
    }

    /// Sends a message by BDAT in one write; the final reply.
    #[track_caller]
    pub fn bdat(&mut self, body: &[u8]) -> String {
        let mut group = format!(
            "MAIL FROM:<a@client.test>\r\nRCPT TO:<b@server.test>\r\nBDAT {} LAST\r\n",
            body.len()
        )
        .into_bytes();
        group.extend_from_slice(body);
        self.send(&group);
        for code in ["250 2.1.0", "250 2.1.5"] {
            let reply = self.reply();
            assert!(reply.starts_with(code), "{reply}");
        }
        self.reply()
    }

    /// Sends a message by DATA, dots stuffed; the final reply.
    #[track_caller]
    pub fn data(&mut self, body: &[u8]) -> String {
        self.begin_data();
        let mut octets = stuffed(body);
        octets.extend_from_slice(b".\r\n");
        self.send(&octets);
        self.reply()
    }

    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(self.stream.get_ref());
        socket.set_linger(Some(Duration::ZERO)).expect("it can be set");
    }
}

/// Mail data as it goes over the wire (RFC 5321 §4.5.2).
pub fn stuffed(body: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(body.len() + body.len() / 32 + 16);
    for line in body.split_inclusive(|&octet| octet == b'\n') {
        if line.first() == Some(&b'.') {
            octets.push(b'.');
        }
        octets.extend_from_slice(line);
    }
    octets
}
