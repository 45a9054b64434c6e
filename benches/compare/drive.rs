//! The echo's client: a closed loop of connections that ask and wait for the answer.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};

use crate::pattern::Pattern;

/// A minute, in nanoseconds; longer times count as this.
const TIME_MAX: u64 = 60_000_000_000;

/// What to ask, and how often.
pub(crate) struct Drive {
    pub(crate) pattern: Pattern,
    pub(crate) port: u16,
    pub(crate) connections: usize,
    /// Messages asked and not yet answered on one connection; above 1 only for one exchange a
    /// message, as a later ask needs the earlier answer.
    pub(crate) depth: usize,
    pub(crate) messages: u64,
}

struct Peer {
    stream: TcpStream,
    /// Octets of the present ask that the socket had no room for.
    unsent: usize,
    step: usize,
    /// Octets of the present answer still to come.
    wanted: usize,
    greeted: bool,
    /// When the messages in flight were begun.
    begun: VecDeque<Instant>,
}

struct Client<'a> {
    drive: &'a Drive,
    poll: Poll,
    peers: Vec<Option<Peer>>,
    ask: Vec<u8>,
    buffer: Vec<u8>,
    started: u64,
    done: u64,
    times: Histogram<u64>,
}

/// Drives the echo and tells the rate and the times as JSON, in seconds.
///
/// # Errors
/// Where the echo cannot be reached or goes away.
pub(crate) fn run(drive: &Drive) -> io::Result<Value> {
    let longest = drive.pattern.steps.iter().map(|step| step.ask).max().unwrap_or(0);
    let mut client = Client {
        drive,
        poll: Poll::new()?,
        peers: Vec::new(),
        ask: vec![b'.'; longest * drive.depth],
        buffer: vec![0; 64 << 10],
        started: 0,
        done: 0,
        times: Histogram::new_with_bounds(1, TIME_MAX, 3).map_err(io::Error::other)?,
    };
    let began = Instant::now();
    for index in 0..drive.connections {
        client.peers.push(None);
        client.connect(index)?;
    }
    let mut events = Events::with_capacity(1024);
    while client.done < drive.messages {
        match client.poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            client.handle(event.token().0)?;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let at = |quantile: f64| client.times.value_at_quantile(quantile) as f64 / 1e9;
    Ok(json!({
        "seconds": seconds,
        "messages": client.done,
        "p50": at(0.5),
        "p99": at(0.99),
        "p999": at(0.999),
    }))
}

impl Client<'_> {
    fn connect(&mut self, index: usize) -> io::Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.drive.port));
        // Over loopback a connection stands, or is refused, when `connect` returns.
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut stream = TcpStream::from_std(stream);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(index), both)?;
        let mut begun = VecDeque::new();
        if self.drive.pattern.steps.is_empty() {
            // A connection is a message.
            self.started += 1;
            begun.push_back(Instant::now());
        }
        self.peers[index] = Some(Peer {
            stream,
            unsent: 0,
            step: 0,
            wanted: self.drive.pattern.greeting,
            greeted: self.drive.pattern.greeting == 0,
            begun,
        });
        if self.drive.pattern.greeting == 0 {
            self.begin(index, self.drive.depth)?;
        }
        Ok(())
    }

    /// Begins `count` messages, as far as any are left.
    fn begin(&mut self, index: usize, count: usize) -> io::Result<()> {
        let left = self.drive.messages - self.started;
        let count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(peer) = &mut self.peers[index] else { return Ok(()) };
        self.started += count as u64;
        let now = Instant::now();
        peer.begun.extend(std::iter::repeat_n(now, count));
        let step = self.drive.pattern.steps[0];
        if peer.wanted == 0 {
            peer.wanted = step.answer;
        }
        peer.unsent += step.ask * count;
        flush(peer, &self.ask)
    }

    fn handle(&mut self, index: usize) -> io::Result<()> {
        let Some(peer) = &mut self.peers[index] else { return Ok(()) };
        flush(peer, &self.ask)?;
        loop {
            let Some(peer) = &mut self.peers[index] else { return Ok(()) };
            match peer.stream.read(&mut self.buffer) {
                Ok(0) => {
                    if !self.drive.pattern.closes {
                        return Err(io::Error::other("the echo closed"));
                    }
                    self.peers[index] = None;
                    if self.started < self.drive.messages {
                        self.connect(index)?;
                    }
                    return Ok(());
                }
                Ok(count) => {
                    self.take(index, count)?;
                    if count < self.buffer.len() && !self.drive.pattern.closes {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A message is over.
    fn finish(&mut self, index: usize) {
        let Some(peer) = &mut self.peers[index] else { return };
        let begun = peer.begun.pop_front().unwrap_or_else(Instant::now);
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.times.saturating_record(nanos);
        self.done += 1;
    }

    /// Takes octets that came.
    fn take(&mut self, index: usize, mut count: usize) -> io::Result<()> {
        let drive = self.drive;
        let steps = &drive.pattern.steps;
        let mut finished = 0;
        while count > 0 {
            let Some(peer) = &mut self.peers[index] else { return Ok(()) };
            let piece = count.min(peer.wanted);
            if piece == 0 {
                return Err(io::Error::other("the echo said more than it was asked"));
            }
            count -= piece;
            peer.wanted -= piece;
            if peer.wanted > 0 {
                break;
            }
            if !peer.greeted {
                peer.greeted = true;
                if steps.is_empty() {
                    // The greeting was all there is.
                    self.finish(index);
                    continue;
                }
                return self.begin(index, 1);
            }
            peer.step = (peer.step + 1) % steps.len();
            if peer.step == 0 {
                self.finish(index);
                finished += 1;
                let Some(peer) = &mut self.peers[index] else { return Ok(()) };
                peer.wanted = if peer.begun.is_empty() { 0 } else { steps[0].answer };
            } else {
                peer.wanted = steps[peer.step].answer;
                peer.unsent += steps[peer.step].ask;
                flush(peer, &self.ask)?;
            }
        }
        if finished > 0 && !self.drive.pattern.closes {
            self.begin(index, finished)?;
        }
        Ok(())
    }
}

fn flush(peer: &mut Peer, ask: &[u8]) -> io::Result<()> {
    while peer.unsent > 0 {
        match peer.stream.write(&ask[..peer.unsent.min(ask.len())]) {
            Ok(count) => peer.unsent -= count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
