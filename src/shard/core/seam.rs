//! The border between a shard and its driver: operations that the shard wants done, and their
//! results.
//!
//! The shard knows sockets and segments by number only. Memory that an operation uses is passed by
//! value and comes back with its completion, so that nothing can touch it in between.

use std::{io, net::SocketAddr, time::Duration};

use super::ReceiveBuffer;
use crate::{
    log::{GroupBuffer, IndexEntry, Op, Seal, Spare},
    policy::{Question, Ticket},
};

/// The time of a call. The shard never reads a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Since the shard was made, by a clock that never goes back. All deadlines are by it.
    pub elapsed: Duration,
    /// Microseconds since 1970, by the wall clock, which may go back: written down for people, and
    /// nothing depends on it (D14).
    pub unix_micros: i64,
}

/// Names a connection over its whole life: an index may be used again, the pair never is (before the
/// generation has gone round, after 2^24 connections).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its place in the slab.
    pub index: u32,
    /// Counts up with each connection; below 2^24.
    pub generation: u32,
}

impl Key {
    /// The number under which questions for this connection are asked.
    pub(in crate::shard) fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// Of [`Key::number`].
    pub(in crate::shard) fn from_number(number: u64) -> Self {
        Self { index: number as u32, generation: (number >> 32) as u32 }
    }
}

/// The number by which the outside knows a socket. Used again after [`Submission::Close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// An operation that the shard wants done, from [`super::Shard::poll_submission`].
#[derive(Debug)]
pub enum Submission {
    /// Take connections at a listener, one [`Completion::Accepted`] each, until one says that there
    /// is no `more`.
    Accept {
        /// Place of the listener.
        listener: u32,
    },
    /// Stop taking connections for now; [`Completion::Accepted`] says `Cancelled` once.
    StopAccepting {
        /// Place of the listener.
        listener: u32,
    },
    /// The listener is closed for good: who connects is refused by the system.
    CloseListener {
        /// Place of the listener.
        listener: u32,
    },
    /// Receive from a socket, one [`Completion::Received`] each time, until one says that there is
    /// no `more`.
    Receive {
        /// Whose it is.
        key: Key,
        /// The socket.
        socket: SocketId,
    },
    /// Stop receiving; [`Completion::Received`] says so once. What arrived before still comes.
    StopReceiving {
        /// Whose it is.
        key: Key,
    },
    /// Say when the peer has reset the connection, or both sides are shut.
    Watch {
        /// Whose it is.
        key: Key,
        /// The socket.
        socket: SocketId,
    },
    /// Stop watching; [`Completion::HungUp`] says so once.
    StopWatching {
        /// Whose it is.
        key: Key,
    },
    /// Send all of these octets; one at a time for each connection.
    Send {
        /// Whose they are.
        key: Key,
        /// The socket.
        socket: SocketId,
        /// They come back with [`Completion::Sent`].
        octets: Vec<u8>,
    },
    /// Shut down one side or both. No completion; what is under way at the socket ends by it.
    Shut {
        /// The socket.
        socket: SocketId,
        /// Which side.
        side: Side,
    },
    /// Nothing is under way at this socket any more, and nothing will be: it is closed. No
    /// completion.
    Close {
        /// The socket.
        socket: SocketId,
    },
    /// An operation of the log. The sync linked to a write starts only after the whole of the
    /// write, and fails if that failed or was short.
    Log(Op),
    /// Make a segment file: allocated, its directory entry durable, its blocks zero. Answered by
    /// [`Completion::Segment`]; one at a time.
    Prepare {
        /// Its number.
        number: u64,
        /// Its size.
        bytes: u64,
    },
    /// Hand the segment that is being made over as it is: the appender needs it soon.
    Hurry,
    /// A segment will not be written any more: this goes into the manifest, in time. Answered by
    /// [`Completion::Sealed`] once it is durable there.
    Seal(Box<Seal>),
    /// An entry of the sparse index; no completion, and a lost one costs a reader some time.
    Index(IndexEntry),
    /// Free octets under which [`Completion::Space`] says that the disk is full, from now on.
    DiskLow(u64),
    /// A question for the advisor, and where the answer goes.
    Ask(Box<(Question, Ticket)>),
    /// `log.on_io_error = "abort"`: the process ends, without another reply.
    Abort,
}

/// What may be shut of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Ours: the peer sees the end of the stream.
    Sending,
    /// Both: whatever is under way at the socket ends.
    Both,
}

/// What became of an operation, for [`super::Shard::handle_completion`].
#[derive(Debug)]
pub enum Completion {
    /// Of [`Submission::Accept`].
    Accepted {
        /// Place of the listener.
        listener: u32,
        /// Whether further ones follow by themselves.
        more: bool,
        /// What came.
        result: Result<Arrival, AcceptError>,
    },
    /// Of [`Submission::Receive`].
    Received {
        /// Whose it is.
        key: Key,
        /// Whether further ones follow by themselves.
        more: bool,
        /// Octets that came; `None`: the end of the stream.
        result: Result<Option<ReceiveBuffer>, ReceiveError>,
    },
    /// Of [`Submission::Send`].
    Sent {
        /// Whose it is.
        key: Key,
        /// The octets of the submission.
        octets: Vec<u8>,
        /// How many of them went.
        result: io::Result<usize>,
    },
    /// Of [`Submission::Watch`].
    HungUp {
        /// Whose it is.
        key: Key,
        /// The peer is gone; `false`: the watch was stopped.
        gone: bool,
    },
    /// Of [`Op::Write`].
    Written {
        /// Its name.
        op: u64,
        /// The buffer of the submission.
        buffer: GroupBuffer,
        /// How many octets were written.
        result: io::Result<usize>,
        /// How long it took.
        took: Duration,
    },
    /// Of [`Op::Sync`], and of the sync linked to an [`Op::Write`].
    Synced {
        /// Its name.
        op: u64,
        /// Whether it worked.
        result: io::Result<()>,
        /// How long it took.
        took: Duration,
    },
    /// Of [`Submission::Seal`]: the seal of this segment is durable.
    Sealed(u64),
    /// Of [`Submission::Prepare`].
    Segment(io::Result<Spare>),
    /// The free space was looked at: now and then, and before each segment is made.
    Space {
        /// New mail is refused for want of it (D9).
        full: bool,
        /// Octets free beyond the threshold.
        room: u64,
    },
}

/// A connection that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its socket.
    pub socket: SocketId,
    /// The socket's peer; [`super::UNIX_PEER`] at a unix socket.
    pub peer: SocketAddr,
    /// It has sent something already. Looked at only where [`super::Shard::wants_first_look`].
    pub talks: bool,
}

/// Why nothing was accepted.
#[derive(Debug)]
pub enum AcceptError {
    /// It was stopped on purpose.
    Cancelled,
    /// The connection was gone before anybody could look at it.
    Gone,
    /// Descriptors or memory are short.
    Failed(io::Error),
}

/// Why nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveError {
    /// No buffer was free.
    NoBuffer,
    /// It was stopped on purpose.
    Cancelled,
    /// The connection broke.
    Broken,
}

/// They are queued by value: what is rare and large is boxed.
const _: () = assert!(size_of::<Submission>() <= 72 && size_of::<Completion>() <= 72);
