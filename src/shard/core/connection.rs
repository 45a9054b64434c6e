//! One connection as its shard sees it: the link to the peer, and the dialogue over it.
//!
//! They are two types so that both can be borrowed: TLS of the link decrypts octets while the
//! dialogue processes them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use super::{SocketId, follow::Number, intake::Intake};
use crate::{
    log::{AppendError, FragmentAt, FragmentBuffer},
    metrics::CloseReason,
    policy::ClientAdvice,
    smtp::{Replies, Session},
    stage,
    tls::{self, Tls},
};

/// What stands for the peer of a unix socket, which has no address: this machine. The limits
/// against strangers never bind it, because the mode of the socket decides who may open it.
pub const UNIX_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How far a connection is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
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
pub(super) enum Waits {
    /// They go at the end of the turn.
    Nothing,
    /// A moment, for the commit that follows them.
    Commit,
    /// Longer: the peer made too many errors.
    Penalty,
}

/// See the module's page. Lives in its shard's slab; an idle one holds no receive buffer.
pub(super) struct Connection {
    pub(super) link: Link,
    /// Its TLS, from the accept or the 220 to STARTTLS on; a connection in the clear pays a word.
    pub(super) tls: Option<Box<TlsState>>,
    pub(super) dialogue: Dialogue,
}

impl Connection {
    /// Whether nothing holds it any more.
    pub(super) fn is_over(&self) -> bool {
        let held = self.link.has_operations() && !stage::planted(stage::Bug::SlotReused);
        self.link.phase == Phase::Dead && !held
    }
}

/// The socket of a connection, and what is under way at it.
pub(super) struct Link {
    pub(super) socket: SocketId,
    pub(super) phase: Phase,
    pub(super) reason: CloseReason,
    /// A reset is watched for, while nothing is received.
    pub(super) watching: bool,
    /// The multishot receive is armed.
    pub(super) receiving: bool,
    pub(super) send_under_way: bool,
    /// In the list of connections to be flushed at the end of this turn.
    pub(super) dirty: bool,
    /// What its replies wait for.
    pub(super) waits: Waits,
    /// A commit let replies go: they are sent at once.
    pub(super) released: bool,
    /// The end of the peer's stream was seen, after all that the intake holds.
    pub(super) ended: bool,
    /// Octets that came in and are not processed.
    pub(super) intake: Intake,
    /// Octets about to be sent; they are away while `send_under_way`.
    pub(super) sending: Vec<u8>,
    /// When the peer last took octets from us, or was owed none.
    pub(super) sent_at: Duration,
    /// When its timer is to come up; an entry of the wheel that comes up earlier is stale.
    pub(super) due: Duration,
}

impl Link {
    /// Of a socket that was just accepted, and that is being received from.
    pub(super) fn new(socket: SocketId, now: Duration) -> Self {
        Self {
            socket,
            phase: Phase::Open,
            reason: CloseReason::ClientGone,
            watching: false,
            receiving: true,
            send_under_way: false,
            dirty: false,
            waits: Waits::Nothing,
            released: false,
            ended: false,
            intake: Intake::default(),
            sending: Vec::new(),
            sent_at: now,
            due: Duration::MAX,
        }
    }

    /// Whether operations are under way for this connection.
    pub(super) fn has_operations(&self) -> bool {
        self.receiving || self.send_under_way || self.watching
    }

    /// The session is over: its replies still go out.
    pub(super) fn close(&mut self, reason: CloseReason) {
        self.phase = Phase::Closing;
        self.reason = reason;
    }
}

/// What is said over a connection: the session, its replies, the mail it brings, who the client is.
pub(super) struct Dialogue {
    /// By which it is named in what is recorded and followed.
    pub(super) number: Number,
    pub(super) session: Session,
    pub(super) replies: Replies,
    pub(super) mail: Collected,
    /// Whose connection it is: the socket's peer, [`UNIX_PEER`] at a unix socket, or the client
    /// that a proxy named.
    pub(super) peer: SocketAddr,
    pub(super) listener: u16,
    /// Its address counts it.
    pub(super) counted: bool,
    /// It had sent something before it was to be greeted; looked at once.
    pub(super) talks: bool,
    /// It was turned away at its greeting, or before: that line of the log is enough.
    pub(super) turned_away: bool,
    /// What its greeting waits for.
    pub(super) wait: Option<Box<Wait>>,
    /// What a proxy has to do with it; a connection without one pays a word.
    pub(super) proxy: Option<Box<Proxied>>,
    /// What its TLS agreed on, from the first octet of plaintext on.
    pub(super) tls: Option<Rc<tls::Facts>>,
    /// What the advisor said of the client, if that was anything.
    pub(super) advice: Option<Box<ClientAdvice>>,
    /// What it brought, for the line at its end.
    pub(super) taken: Taken,
}

impl Dialogue {
    /// The place that is listened at.
    pub(super) fn place(&self) -> usize {
        usize::from(self.listener)
    }

    /// Whether its PROXY header is still to come.
    pub(super) fn awaits_header(&self) -> bool {
        self.proxy.as_ref().is_some_and(|proxied| proxied.awaits_header)
    }

    /// Whether received octets wait to be read, or a whole message for its answer: the end of the
    /// stream follows them.
    pub(super) fn reads_later(&self, intake: &Intake) -> bool {
        intake.is_paused()
            || self.wait.is_some() && !intake.unread.is_empty()
            || self.session.is_waiting_for_verdict()
    }
}

/// Mail that a connection brought and that was acknowledged.
#[derive(Clone, Copy, Default)]
pub(super) struct Taken {
    pub(super) messages: u32,
    pub(super) recipients: u32,
    pub(super) bytes: u64,
}

/// The wait before a greeting.
pub(super) struct Wait {
    /// The delay is over then.
    pub(super) not_before: Duration,
    /// The advisor owes an answer, which is waited for until then.
    pub(super) answer_by: Option<Duration>,
}

impl Wait {
    /// When the wait is over, if the advisor says nothing.
    pub(super) fn at(&self) -> Duration {
        self.answer_by.map_or(self.not_before, |by| by.max(self.not_before))
    }
}

/// The TLS of a connection.
pub(super) struct TlsState {
    pub(super) tls: Tls,
    /// Replies in the clear are still to go: the 220 to STARTTLS, and what is held before it.
    pub(super) in_clear: bool,
    /// Since when the handshake is under way; `None` once it is over and counted.
    pub(super) handshake: Option<Duration>,
    /// Our close_notify is on its way.
    pub(super) closed: bool,
}

/// A connection's proxy: by a PROXY header, or by XCLIENT.
pub(super) struct Proxied {
    /// The peer of the socket.
    pub(super) peer: SocketAddr,
    /// The header is still to come, or to be completed: what came of it waits in the intake. Nothing
    /// is said before it is complete, and the session does not begin.
    pub(super) awaits_header: bool,
    /// When the wait began.
    pub(super) since: Duration,
    /// What the header said besides an address.
    pub(super) told: String,
}

/// Mail data of the present transaction that outlived its receive buffer.
#[derive(Default)]
pub(super) struct Collected {
    /// The first octets, until they are many.
    pub(super) heap: Vec<u8>,
    /// Then what became of the rest, and what few messages have.
    pub(super) large: Option<Box<Large>>,
}

/// A message that is judged before it is taken.
#[derive(Default)]
pub(super) struct JudgedMail {
    /// Copies of the fragments that left for the log.
    pub(super) copy: Vec<u8>,
    /// Octets that went away with the question.
    pub(super) lent_bytes: u64,
    /// Number of the question, once it is asked.
    pub(super) question: Option<u64>,
}

/// Mail data that is too long for the heap, or judged before it is taken.
#[derive(Default)]
pub(super) struct Large {
    /// Fragments, already on their way to the log...
    pub(super) fragments: Vec<FragmentAt>,
    /// ...and the one being filled.
    pub(super) filling: Option<FragmentBuffer>,
    /// The log refused a fragment: the message will be refused at its end.
    pub(super) failed: Option<AppendError>,
    /// It is judged before it is taken.
    pub(super) judged: Option<JudgedMail>,
}

impl Collected {
    /// The fragment being filled.
    pub(super) fn filling(&self) -> Option<&FragmentBuffer> {
        self.large.as_ref()?.filling.as_ref()
    }

    /// Whether its end is a question. Where the log refused a fragment the rest was not collected: it is
    /// refused for now, and nobody may judge a part of it.
    pub(super) fn is_to_be_judged(&self) -> bool {
        self.large.as_ref().is_some_and(|large| large.judged.is_some() && large.failed.is_none())
    }

    /// What there is to its judging, if it is judged.
    pub(super) fn judged(&self) -> Option<&JudgedMail> {
        self.large.as_ref()?.judged.as_ref()
    }

    /// Octets of memory that it holds.
    pub(super) fn memory(&self) -> u64 {
        let filling = self.filling().map_or(0, |buffer| buffer.capacity());
        let judged = self.judged().map_or(0, |mail| mail.copy.capacity() as u64 + mail.lent_bytes);
        (self.heap.capacity() + filling) as u64 + judged
    }

    /// Forgets the message; small buffers are kept for the next.
    pub(super) fn clear(&mut self) {
        if self.heap.capacity() > 1024 {
            self.heap = Vec::new();
        }
        self.heap.clear();
        self.large = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 640 octets are a size class of the allocator; with what a session has on the heap an idle one
    /// stays under 1 KiB.
    #[test]
    fn an_idle_connection_is_small() {
        let bytes = size_of::<Connection>();
        assert!(bytes <= 640, "{bytes}");
    }
}
