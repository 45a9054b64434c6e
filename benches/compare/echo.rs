//! The echo limit: the least a server on epoll can do for a traffic pattern.
//!
//! It parses nothing, stores nothing and keeps one counter a connection. What it costs is what the
//! kernel costs for these exchanges: `epoll_wait`, one `recv` for what has come, one `send` for an
//! answer. No server of one thread on epoll answers the same octets for less, so the ratio to it
//! says how much is the server's own.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

use crate::pattern::Pattern;

const READ_BYTES: usize = 64 << 10;
const LISTENER: Token = Token(usize::MAX);

struct Peer {
    stream: TcpStream,
    step: usize,
    /// Octets of the step that came so far.
    come: usize,
}

/// What became of a connection.
enum Fate {
    Stays,
    Gone,
}

/// Serves until it is killed.
///
/// # Errors
/// Where the system gives no socket.
pub(crate) fn serve(pattern: &Pattern, port: u16) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let longest = pattern.steps.iter().map(|step| step.answer).max().unwrap_or(0);
    let answer = vec![b'.'; longest.max(pattern.greeting)];
    let mut buffer = vec![0; READ_BYTES];
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    let index = free.pop().unwrap_or_else(|| {
                        peers.push(None);
                        peers.len() - 1
                    });
                    let peer = welcome(stream, index, poll.registry(), pattern, &answer);
                    peers[index] = peer.ok().flatten();
                    if peers[index].is_none() {
                        free.push(index);
                    }
                }
                continue;
            }
            let index = event.token().0;
            let Some(peer) = &mut peers[index] else { continue };
            if let Fate::Gone = read(peer, pattern, &mut buffer, &answer) {
                // Dropping closes, and closing takes it off the epoll.
                peers[index] = None;
                free.push(index);
            }
        }
    }
}

fn welcome(
    mut stream: TcpStream,
    index: usize,
    registry: &Registry,
    pattern: &Pattern,
    answer: &[u8],
) -> io::Result<Option<Peer>> {
    if !pattern.steps.is_empty() {
        stream.set_nodelay(true)?;
        registry.register(&mut stream, Token(index), Interest::READABLE)?;
    }
    if pattern.greeting > 0 {
        stream.write_all(&answer[..pattern.greeting])?;
    }
    // Without an exchange all is said: dropping closes.
    Ok((!pattern.steps.is_empty()).then_some(Peer { stream, step: 0, come: 0 }))
}

fn read(peer: &mut Peer, pattern: &Pattern, buffer: &mut [u8], answer: &[u8]) -> Fate {
    loop {
        let count = match peer.stream.read(buffer) {
            Ok(0) => return Fate::Gone,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Fate::Stays,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Fate::Gone,
        };
        peer.come += count;
        let (mut due, mut is_last) = (0, false);
        while peer.come >= pattern.steps[peer.step].ask {
            peer.come -= pattern.steps[peer.step].ask;
            due += pattern.steps[peer.step].answer;
            peer.step = (peer.step + 1) % pattern.steps.len();
            is_last |= peer.step == 0;
        }
        // Answers to asks that came together leave together.
        while due > 0 {
            let piece = due.min(answer.len());
            if peer.stream.write_all(&answer[..piece]).is_err() {
                return Fate::Gone;
            }
            due -= piece;
        }
        if is_last && pattern.closes {
            return Fate::Gone;
        }
        // A short read empties the socket (epoll(7)): no need to ask again.
        if count < buffer.len() {
            return Fate::Stays;
        }
    }
}
