//! One connection as its shard sees it: the session, what has been received of a message, what
//! waits to be sent.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use super::{ReceiveBuffer, SocketId};
use crate::{
    log::{AppendError, FragmentAt, FragmentBuffer},
    metrics::CloseReason,
    shard::ClientAdvice,
    smtp::{Replies, Session},
    tls::{self, Tls},
};

/// What stands for the peer of a unix socket, which has no address: this machine. It is spared the
/// limits against strangers always, as whoever may open the socket was let in by its mode.
pub const UNIX_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How far a connection is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In service.
    Open,
    /// The session is over; its replies still go out.
    Closing,
    /// All is sent and our side is shut; octets that arrive are dropped until the peer's FIN, so
    /// that a reset does not overtake the last reply.
    Lingering,
    /// Nothing more is read or sent; waits for the kernel to let go.
    Dead,
}

/// What ready replies wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// They go at the end of the turn.
    Nothing,
    /// A moment, for the commit behind them.
    Commit,
    /// Longer: the peer made too many errors.
    Penalty,
}

/// See the module's page. Lives in its shard's slab; an idle one holds no receive buffer.
pub(crate) struct Connection {
    pub(crate) socket: SocketId,
    /// Whose connection it is: the socket's peer, [`UNIX_PEER`] at a unix socket, or who a proxy told
    /// of.
    pub(crate) peer: SocketAddr,
    pub(crate) generation: u32,
    pub(crate) listener: u16,
    /// It had sent something before it was to be greeted; looked at once.
    pub(crate) talks: bool,
    pub(crate) phase: Phase,
    pub(crate) reason: CloseReason,
    /// A reset is watched for, while nothing is received.
    pub(crate) watching: bool,
    /// Its address counts it.
    pub(crate) counted: bool,
    /// The multishot receive is armed.
    pub(crate) receiving: bool,
    /// Reading was stopped then: too many unsent replies, too little memory or a slow log.
    pub(crate) paused: Option<Duration>,
    /// The peer's FIN was seen.
    pub(crate) ended: bool,
    /// In the list of connections to be flushed at the end of this turn.
    pub(crate) dirty: bool,
    /// It was turned away at its greeting: that line of the log is enough.
    pub(crate) turned_away: bool,
    /// What its replies wait for.
    pub(crate) waits: Waits,
    /// A commit let replies go: they are sent at once.
    pub(crate) released: bool,
    pub(crate) session: Session,
    pub(crate) replies: Replies,
    /// Octets about to be sent; they are away while `send_under_way`.
    pub(crate) sending: Vec<u8>,
    pub(crate) send_under_way: bool,
    /// Receive buffers that came while the log had no room: not given back to the kernel, which
    /// stops by itself when it has none left.
    pub(crate) kept: Vec<ReceiveBuffer>,
    /// Received but not yet taken by the session: an incomplete command line, or what had arrived
    /// when reading was stopped.
    pub(crate) unread: Vec<u8>,
    pub(crate) mail: Collected,
    /// Its TLS, from the accept or the 220 to STARTTLS on; a connection in the clear pays a word.
    pub(crate) tls: Option<Box<TlsState>>,
    /// What a proxy has to do with it; a connection without one pays a word.
    pub(crate) proxy: Option<Box<Proxied>>,
    /// What its handshake agreed on, from the first octet of plaintext on; while the session is
    /// served, `tls` is not at hand.
    pub(crate) tls_facts: Option<Rc<tls::Facts>>,
    /// What its greeting waits for.
    pub(crate) greeting: Option<Box<Greeting>>,
    /// What the advisor said of the client, if that was anything.
    pub(crate) advice: Option<Box<ClientAdvice>>,
    /// What it brought, for the line at its end.
    pub(crate) taken: Option<Box<Taken>>,
    /// When the peer last took octets from us, or was owed none.
    pub(crate) sent_at: Duration,
    /// When its timer is to come up; an entry of the wheel that comes up earlier is stale.
    pub(crate) due: Duration,
}

impl Connection {
    /// Operations the kernel still holds for this connection.
    pub(crate) fn operations(&self) -> bool {
        self.receiving || self.send_under_way || self.watching
    }

    /// Whether octets that came wait to be read: the end of the stream is behind them.
    pub(crate) fn reads_later(&self) -> bool {
        self.paused.is_some() || self.greeting.is_some() && !self.unread.is_empty()
    }
}

/// Mail that a connection brought and that was acknowledged.
#[derive(Clone, Copy, Default)]
pub(crate) struct Taken {
    pub(crate) messages: u32,
    pub(crate) recipients: u32,
    pub(crate) bytes: u64,
}

/// The wait before a greeting.
pub(crate) struct Greeting {
    /// The delay is over then.
    pub(crate) not_before: Duration,
    /// The advisor owes an answer, which is waited for until then.
    pub(crate) answer_by: Option<Duration>,
}

impl Greeting {
    /// When the wait is over, if the advisor says nothing.
    pub(crate) fn at(&self) -> Duration {
        self.answer_by.map_or(self.not_before, |by| by.max(self.not_before))
    }
}

/// The TLS of a connection.
pub(crate) struct TlsState {
    pub(crate) tls: Tls,
    /// Replies in the clear are still to go: the 220 to STARTTLS, and what is held before it.
    pub(crate) in_clear: bool,
    /// Since when the handshake is under way; `None` once it is over and counted.
    pub(crate) handshake: Option<Duration>,
    /// Our close_notify is on its way.
    pub(crate) closed: bool,
}

/// A connection's proxy: by a PROXY header, or by XCLIENT.
pub(crate) struct Proxied {
    /// The peer of the socket.
    pub(crate) peer: SocketAddr,
    /// What has come of the header that is waited for. Nothing is said before it is complete, and
    /// the session does not begin.
    pub(crate) header: Option<Vec<u8>>,
    /// When the wait began.
    pub(crate) since: Duration,
    /// What the header told besides an address.
    pub(crate) told: String,
}

impl Connection {
    /// Whether its PROXY header is still to come.
    pub(crate) fn awaits_header(&self) -> bool {
        self.proxy.as_ref().is_some_and(|proxied| proxied.header.is_some())
    }
}

/// Mail data of the present transaction that outlived its receive buffer.
#[derive(Default)]
pub(crate) struct Collected {
    /// The first octets, until they are many.
    pub(crate) heap: Vec<u8>,
    /// Then what became of the rest.
    pub(crate) large: Option<Box<Large>>,
    /// Octets of memory that the shard counts for it.
    pub(crate) accounted: u64,
}

/// Mail data that is too long for the heap.
#[derive(Default)]
pub(crate) struct Large {
    /// Fragments, already on their way to the log...
    pub(crate) fragments: Vec<FragmentAt>,
    /// ...and the one being filled.
    pub(crate) filling: Option<FragmentBuffer>,
    /// The log refused a fragment: the message will be refused at its end.
    pub(crate) failed: Option<AppendError>,
}

impl Collected {
    /// The fragment being filled.
    pub(crate) fn filling(&self) -> Option<&FragmentBuffer> {
        self.large.as_ref()?.filling.as_ref()
    }

    /// Forgets the message; small buffers are kept for the next.
    pub(crate) fn clear(&mut self) {
        if self.heap.capacity() > 1024 {
            self.heap = Vec::new();
        }
        self.heap.clear();
        self.large = None;
    }
}
