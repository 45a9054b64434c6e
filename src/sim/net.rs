//! The simulated network: sockets with octets under way in both directions, and what the kernel
//! would report to the shard.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read},
    rc::Rc,
};

use super::random::Random;
use crate::shard::core::{Completion, Key, ReceiveBuffer, ReceiveError, Returns, Side, SocketId};

/// Octets that a peer may send ahead of the server.
pub(super) const WINDOW: usize = 96 << 10;

/// Octets of a socket's send buffer.
const SEND_BUFFER: usize = 16 << 10;

/// Moves octets to the caller, who knows that there are so many.
fn take(from: &mut VecDeque<u8>, into: &mut [u8]) {
    from.read_exact(into).expect("so many are there");
}

/// One connection, seen from the middle.
#[derive(Debug, Default)]
pub(super) struct Socket {
    /// Whose it is.
    pub(super) peer: usize,
    key: Option<Key>,
    inbound: VecDeque<u8>,
    fin: bool,
    reset: bool,
    receiving: bool,
    stop_receiving: bool,
    watching: bool,
    stop_watching: bool,
    sending: Option<(Key, Vec<u8>, usize)>,
    outbound: VecDeque<u8>,
    shut_sending: bool,
    shut_both: bool,
    /// The server has closed it.
    closed: bool,
    /// What the peer gets behind the last octet is an RST.
    aborted: bool,
}

/// All sockets, and the buffers that octets are received in.
pub(super) struct Net {
    sockets: BTreeMap<u32, Socket>,
    by_key: BTreeMap<Key, u32>,
    next: u32,
    free: Vec<(u16, Box<[u8]>)>,
    home: Rc<Returns>,
}

/// What a peer finds at its socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// Octets, possibly none for now.
    Octets(Vec<u8>),
    /// The end of the stream.
    End,
    /// The connection broke.
    Broken,
}

impl Net {
    pub(super) fn new(buffers: u64, bytes: u64) -> Self {
        let memory = |_| vec![0; bytes as usize].into_boxed_slice();
        let free = (0..buffers as u16).map(|number| (number, memory(number))).collect();
        Self {
            sockets: BTreeMap::new(),
            by_key: BTreeMap::new(),
            next: 0,
            free,
            home: Rc::default(),
        }
    }

    /// A connection that the server is about to accept.
    pub(super) fn connect(&mut self, peer: usize) -> u32 {
        self.next += 1;
        self.sockets.insert(self.next, Socket { peer, ..Socket::default() });
        self.next
    }

    pub(super) fn peer_of(&self, socket: u32) -> Option<usize> {
        self.sockets.get(&socket).map(|socket| socket.peer)
    }

    /// The socket of a connection.
    pub(super) fn of(&self, key: Key) -> Option<u32> {
        self.by_key.get(&key).copied()
    }

    // What the shard asks for.

    pub(super) fn receive(&mut self, key: Key, socket: SocketId) {
        let Some(at) = self.sockets.get_mut(&socket.0) else { return };
        at.key = Some(key);
        at.receiving = true;
        self.by_key.insert(key, socket.0);
    }

    pub(super) fn stop_receiving(&mut self, key: Key) {
        if let Some(at) = self.of(key).and_then(|socket| self.sockets.get_mut(&socket)) {
            at.stop_receiving = at.receiving;
        }
    }

    pub(super) fn watch(&mut self, key: Key, socket: SocketId) {
        self.by_key.insert(key, socket.0);
        if let Some(at) = self.sockets.get_mut(&socket.0) {
            at.key = Some(key);
            at.watching = true;
        }
    }

    pub(super) fn stop_watching(&mut self, key: Key) {
        if let Some(at) = self.of(key).and_then(|socket| self.sockets.get_mut(&socket)) {
            at.stop_watching = at.watching;
        }
    }

    pub(super) fn send(
        &mut self,
        key: Key,
        socket: SocketId,
        octets: Vec<u8>,
    ) -> Result<(), String> {
        self.by_key.insert(key, socket.0);
        let at = self.sockets.get_mut(&socket.0).ok_or("a send on a socket that is closed")?;
        at.key = Some(key);
        match at.sending.replace((key, octets, 0)) {
            None => Ok(()),
            Some(_) => Err("two sends on one connection at a time".to_owned()),
        }
    }

    pub(super) fn shut(&mut self, socket: SocketId, side: Side) {
        if let Some(at) = self.sockets.get_mut(&socket.0) {
            at.shut_sending = true;
            at.shut_both |= side == Side::Both;
        }
    }

    pub(super) fn close(&mut self, socket: SocketId) -> Result<(), String> {
        let at = self.sockets.get_mut(&socket.0).ok_or("a socket is closed twice")?;
        if at.closed {
            return Err("a socket is closed twice".to_owned());
        }
        if at.receiving || at.watching || at.sending.is_some() {
            return Err(format!("socket {} is closed while something is under way", socket.0));
        }
        at.closed = true;
        at.aborted |= !at.inbound.is_empty();
        if let Some(key) = at.key.take() {
            self.by_key.remove(&key);
        }
        Ok(())
    }

    /// The server is gone. What it had sent may still arrive.
    pub(super) fn abort(&mut self, orderly: bool, random: &mut Random) {
        for socket in self.sockets.values_mut() {
            if !orderly && random.one_in(2) {
                socket.outbound.clear();
            }
            socket.aborted |= !orderly || !socket.inbound.is_empty();
            socket.closed = true;
            socket.sending = None;
        }
        self.by_key.clear();
        self.collect();
    }

    fn collect(&mut self) {
        let free = &mut self.free;
        self.home.take(|number, memory| free.push((number, memory)));
    }

    // What the peer does.

    /// Sends what the window takes; says how much that was.
    pub(super) fn push(&mut self, socket: u32, octets: &mut VecDeque<u8>, most: usize) -> usize {
        let Some(at) = self.sockets.get_mut(&socket) else { return 0 };
        if at.fin || at.reset {
            return 0;
        }
        let room = WINDOW.saturating_sub(at.inbound.len()).min(most).min(octets.len());
        // What a closed socket gets is answered with an RST.
        if !at.closed {
            let (front, back) = octets.as_slices();
            let split = room.min(front.len());
            at.inbound.extend(&front[..split]);
            at.inbound.extend(&back[..room - split]);
        }
        drop(octets.drain(..room));
        room
    }

    pub(super) fn fin(&mut self, socket: u32) {
        if let Some(at) = self.sockets.get_mut(&socket) {
            at.fin = true;
        }
    }

    /// The peer breaks the connection; what it sent last may be lost.
    pub(super) fn reset(&mut self, socket: u32, random: &mut Random) {
        let Some(at) = self.sockets.get_mut(&socket) else { return };
        at.reset = true;
        let kept = random.below(at.inbound.len() as u64 + 1) as usize;
        at.inbound.truncate(if random.one_in(2) { kept } else { 0 });
        at.outbound.clear();
    }

    /// What arrived at the peer.
    pub(super) fn pull(&mut self, socket: u32, most: usize) -> Arrived {
        let Some(at) = self.sockets.get_mut(&socket) else { return Arrived::Broken };
        let some = most.min(at.outbound.len());
        if some > 0 {
            let mut octets = vec![0; some];
            take(&mut at.outbound, &mut octets);
            return Arrived::Octets(octets);
        }
        let over = at.closed || at.shut_sending && at.sending.is_none();
        match (over && at.outbound.is_empty(), at.aborted) {
            (true, true) => Arrived::Broken,
            (true, false) => Arrived::End,
            (false, _) => Arrived::Octets(Vec::new()),
        }
    }

    /// The peer has left a socket that is closed.
    pub(super) fn leave(&mut self, socket: u32) {
        if self.sockets.get(&socket).is_some_and(|at| at.closed) {
            self.sockets.remove(&socket);
        }
    }

    /// What the kernel has to tell of a socket now, one thing at a time; and whether the peer finds
    /// something new.
    pub(super) fn poll(&mut self, socket: u32, random: &mut Random) -> (Option<Completion>, bool) {
        self.collect();
        let Some(at) = self.sockets.get_mut(&socket) else { return (None, false) };
        let Some(key) = at.key else { return (None, false) };
        if at.watching {
            let gone = at.reset || at.shut_both || at.fin && at.shut_sending;
            if gone || at.stop_watching {
                (at.watching, at.stop_watching) = (false, false);
                return (Some(Completion::HungUp { key, gone }), false);
            }
        }
        let receives_first = random.one_in(2);
        if receives_first
            && let Some(completion) = at.received(key, &mut self.free, &self.home, random)
        {
            return (Some(completion), false);
        }
        if let Some((key, octets, sent)) = &mut at.sending {
            let key = *key;
            if at.reset || at.shut_both || at.closed {
                let (_, octets, _) = at.sending.take().expect("it is there");
                let result = Err(io::Error::from_raw_os_error(libc::EPIPE));
                return (Some(Completion::Sent { key, octets, result }), false);
            }
            let room = SEND_BUFFER.saturating_sub(at.outbound.len()).min(octets.len() - *sent);
            at.outbound.extend(&octets[*sent..*sent + room]);
            *sent += room;
            if *sent == octets.len() {
                let (_, octets, len) = at.sending.take().expect("it is there");
                return (Some(Completion::Sent { key, octets, result: Ok(len) }), true);
            }
            if room > 0 {
                return (None, true);
            }
        }
        let received = match receives_first {
            true => None,
            false => at.received(key, &mut self.free, &self.home, random),
        };
        (received, false)
    }
}

impl Socket {
    fn received(
        &mut self,
        key: Key,
        free: &mut Vec<(u16, Box<[u8]>)>,
        home: &Rc<Returns>,
        random: &mut Random,
    ) -> Option<Completion> {
        if !self.receiving {
            return None;
        }
        let ended = |result| Some(Completion::Received { key, more: false, result });
        let stops = self.shut_both || self.stop_receiving && random.one_in(2);
        if !stops && !self.inbound.is_empty() {
            let Some((number, mut memory)) = free.pop() else {
                (self.receiving, self.stop_receiving) = (false, false);
                return ended(Err(ReceiveError::NoBuffer));
            };
            let most = memory.len().min(self.inbound.len());
            let len =
                if random.one_in(12) { random.between(1, most as u64) as usize } else { most };
            take(&mut self.inbound, &mut memory[..len]);
            let buffer = ReceiveBuffer::new(memory, len, number, home.clone());
            return Some(Completion::Received { key, more: true, result: Ok(Some(buffer)) });
        }
        let over = match (self.shut_both, self.reset, self.fin, self.stop_receiving) {
            (true, ..) => Ok(None),
            (_, true, ..) => Err(ReceiveError::Broken),
            (_, _, true, _) if self.inbound.is_empty() => Ok(None),
            (.., true) => Err(ReceiveError::Cancelled),
            _ => return None,
        };
        (self.receiving, self.stop_receiving) = (false, false);
        ended(over)
    }
}
