//! Replies: the fixed lines, and the queue that keeps their order while some wait for the disk.

use std::fmt::Display;
use std::io::Write;
use std::ops::Range;

use mailrace_stage::{Bug, planted};

/// A whole reply line with its CRLF.
///
/// Every 2yz, 4yz and 5yz carries an enhanced status code (RFC 2034 §4), except the greeting and
/// the replies to EHLO and HELO; 3yz has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply {
    line: &'static str,
}

impl Reply {
    const fn new(line: &'static str) -> Self {
        // RFC 5321 §4.5.3.1.5: 512 octets with the code and CRLF.
        assert!(line.len() <= 512 && line.len() > 5);
        Self { line }
    }

    /// The reply code.
    pub(super) const fn code(self) -> u16 {
        match self.line.as_bytes() {
            [a, b, c, ..] => {
                (*a - b'0') as u16 * 100 + (*b - b'0') as u16 * 10 + (*c - b'0') as u16
            }
            // Asserted where it was made.
            _ => 0,
        }
    }

    /// The whole line, with its CRLF.
    pub(super) const fn line(self) -> &'static str {
        self.line
    }

    /// Whether the client is to blame: RFC 5321 §4.2.1, permanent negative completion.
    pub(super) const fn is_permanent(self) -> bool {
        self.code() >= 500
    }
}

pub(super) const OK: Reply = Reply::new("250 2.0.0 Ok\r\n");
pub(super) const SENDER_OK: Reply = Reply::new("250 2.1.0 Sender ok\r\n");
pub(super) const RECIPIENT_OK: Reply = Reply::new("250 2.1.5 Recipient ok\r\n");
pub(super) const CHUNK_OK: Reply = Reply::new("250 2.0.0 Chunk received\r\n");
pub(super) const BYE: Reply = Reply::new("221 2.0.0 Bye\r\n");
// RFC 5321 §3.5.3: a VRFY that looks nothing up says 252, neither a false 250 nor 550.
pub(super) const CANNOT_VERIFY: Reply =
    Reply::new("252 2.0.0 Cannot verify the user, but will take the message\r\n");
pub(super) const HELP: Reply =
    Reply::new("214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT\r\n");
pub(super) const HELP_LMTP: Reply =
    Reply::new("214 2.0.0 LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT\r\n");
// RFC 3207 §4.
pub(super) const START_TLS: Reply = Reply::new("220 2.0.0 Ready to start TLS\r\n");
// RFC 4954 §6, with the enhanced codes it gives, for these and those below.
pub(super) const AUTHENTICATED: Reply = Reply::new("235 2.7.0 Authentication succeeded\r\n");
pub(super) const SEND_DATA: Reply = Reply::new("354 End data with <CR><LF>.<CR><LF>\r\n");

pub(super) const UNKNOWN_COMMAND: Reply = Reply::new("500 5.5.2 Command not recognized\r\n");
pub(super) const BARE_LF: Reply = Reply::new("500 5.5.2 Lines must end in CRLF\r\n");
pub(super) const NOT_SMTP: Reply = Reply::new("500 5.5.2 This is not SMTP\r\n");
pub(super) const AUTH_LINE_TOO_LONG: Reply =
    Reply::new("500 5.5.6 Authentication exchange line is too long\r\n");
pub(super) const BAD_AUTH: Reply = Reply::new("501 5.5.2 Cannot decode the response\r\n");
pub(super) const AUTH_CANCELLED: Reply = Reply::new("501 5.7.0 Authentication cancelled\r\n");
pub(super) const LINE_TOO_LONG: Reply = Reply::new("500 5.5.2 Line too long\r\n");
pub(super) const BAD_ARGUMENT: Reply = Reply::new("501 5.5.4 Syntax error in arguments\r\n");
pub(super) const NO_ARGUMENT: Reply = Reply::new("501 5.5.4 No argument allowed\r\n");
pub(super) const BAD_REVERSE_PATH: Reply = Reply::new("501 5.1.7 Bad sender address syntax\r\n");
pub(super) const BAD_FORWARD_PATH: Reply = Reply::new("501 5.1.3 Bad recipient address syntax\r\n");
pub(super) const BAD_UTF8: Reply = Reply::new("501 5.6.7 Invalid UTF-8\r\n");
pub(super) const BAD_EHLO: Reply = Reply::new("501 Syntax: EHLO or HELO and one domain\r\n");
// RFC 2034 §4 spares EHLO and HELO the enhanced code, not LHLO.
pub(super) const BAD_LHLO: Reply = Reply::new("501 5.5.4 Syntax: LHLO and one domain\r\n");
pub(super) const NOT_IMPLEMENTED: Reply = Reply::new("502 5.5.1 Command not implemented\r\n");
pub(super) const EHLO_FIRST: Reply = Reply::new("503 5.5.1 Send EHLO or HELO first\r\n");
pub(super) const LHLO_FIRST: Reply = Reply::new("503 5.5.1 Send LHLO first\r\n");
// RFC 7504 §3.2: a server that does not take mail answers so to all but QUIT.
pub(super) const NO_MAIL: Reply = Reply::new("503 5.5.1 No mail is accepted here\r\n");
pub(super) const AUTH_AGAIN: Reply = Reply::new("503 5.5.1 Already authenticated\r\n");
pub(super) const AUTH_IN_MAIL: Reply =
    Reply::new("503 5.5.1 AUTH not permitted during a mail transaction\r\n");
pub(super) const UNKNOWN_MECHANISM: Reply =
    Reply::new("504 5.5.4 Authentication mechanism not supported\r\n");
pub(super) const NEEDS_AUTH: Reply = Reply::new("530 5.7.0 Authentication required\r\n");
pub(super) const WEAK_MECHANISM: Reply =
    Reply::new("534 5.7.9 Authentication mechanism is too weak\r\n");
pub(super) const BAD_CREDENTIALS: Reply =
    Reply::new("535 5.7.8 Authentication credentials invalid\r\n");
pub(super) const AUTH_NEEDS_TLS: Reply =
    Reply::new("538 5.7.11 Encryption required for authentication\r\n");
pub(super) const MAIL_FIRST: Reply = Reply::new("503 5.5.1 Send MAIL first\r\n");
pub(super) const UNDER_TLS: Reply = Reply::new("503 5.5.1 TLS already active\r\n");
// RFC 8689 §2: the parameter is for sessions under TLS; RFC 5248 has this code for X.7.10.
pub(super) const REQUIRETLS_NEEDS_TLS: Reply =
    Reply::new("523 5.7.10 REQUIRETLS needs a TLS session\r\n");
// RFC 3207 §4: the text is the RFC's own, which clients know.
pub(super) const NEEDS_TLS: Reply = Reply::new("530 5.7.0 Must issue a STARTTLS command first\r\n");
pub(super) const NESTED_MAIL: Reply = Reply::new("503 5.5.1 Transaction already open\r\n");
pub(super) const IN_TRANSACTION: Reply = Reply::new("503 5.5.1 Mail transaction in progress\r\n");
pub(super) const RCPT_FIRST: Reply = Reply::new("503 5.5.1 No valid recipients\r\n");
pub(super) const CHUNKING: Reply = Reply::new("503 5.5.1 Only BDAT, RSET or EHLO after BDAT\r\n");
pub(super) const BINARY_NEEDS_BDAT: Reply = Reply::new("503 5.5.1 BODY=BINARYMIME needs BDAT\r\n");
// RFC 7504: 521 ends the conversation; where the next command begins is not known any more.
pub(super) const BAD_BDAT: Reply = Reply::new("521 5.5.4 Bad BDAT argument, closing\r\n");
pub(super) const BAD_CONTENT: Reply =
    Reply::new("550 5.6.0 Message has a bare CR, a bare LF or a NUL\r\n");
// RFC 3463 §3.2: bad destination mailbox address.
pub(super) const NO_SUCH_USER: Reply = Reply::new("550 5.1.1 No such recipient here\r\n");
// RFC 3463 §3.8: delivery not authorized.
pub(super) const NO_RELAY: Reply = Reply::new("550 5.7.1 Relay access denied\r\n");
// RFC 3463 §3.8: delivery not authorized; RFC 6409 §6.1.
pub(super) const NOT_YOUR_AUTHOR: Reply =
    Reply::new("550 5.7.1 The From field names an address you may not send as\r\n");
pub(super) const TOO_BIG: Reply = Reply::new("552 5.3.4 Message too big\r\n");
pub(super) const NEEDS_SMTPUTF8: Reply =
    Reply::new("553 5.6.7 Non-ASCII address without SMTPUTF8\r\n");
pub(super) const NOT_YOUR_SENDER: Reply =
    Reply::new("553 5.7.1 You may not send as this address\r\n");
pub(super) const EARLY_TALKER: Reply =
    Reply::new("554 5.5.0 Wait for the reply before sending more\r\n");
pub(super) const NO_RECIPIENTS: Reply = Reply::new("554 5.5.1 No valid recipients\r\n");
pub(super) const LONG_CONTENT_LINE: Reply =
    Reply::new("554 5.6.0 Message has a line that is too long\r\n");
pub(super) const MAIL_LOOP: Reply = Reply::new("554 5.4.6 Too many Received fields, mail loop\r\n");
pub(super) const UNKNOWN_PARAMETER: Reply = Reply::new("555 5.5.4 Parameter not recognized\r\n");
// RFC 5321 §4.5.3.1.10: out of room for recipients is 452, not the 552 of RFC 821, so that the
// client keeps the remaining recipients and tries again.
pub(super) const TOO_MANY_RECIPIENTS: Reply = Reply::new("452 4.5.3 Too many recipients\r\n");

pub(super) const TLS_BUSY: Reply =
    Reply::new("454 4.7.0 TLS not available now, try again later\r\n");

pub(super) const AUTH_UNAVAILABLE: Reply =
    Reply::new("454 4.7.0 Temporary authentication failure\r\n");

const LOG_FAILED: Reply = Reply::new("451 4.3.0 Message store unavailable, try again later\r\n");
const TIMEOUT: Reply =
    Reply::new("451 4.3.0 Storing the message took too long, try again later\r\n");
const DISK_FULL: Reply = Reply::new("452 4.3.1 Insufficient disk space, try again later\r\n");
const OVERLOADED: Reply = Reply::new("451 4.3.2 Overloaded, try again later\r\n");
const OVERLOADED_LOW: Reply =
    Reply::new("452 4.3.2 Overloaded, low-priority mail deferred, try again later\r\n");
const MEMORY_FULL: Reply = Reply::new("452 4.3.1 Insufficient memory, try again later\r\n");

/// Why the driver does not take a message. Our trouble, so always 4yz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 451 4.3.0: a write or a sync failed.
    LogFailed,
    /// 452 4.3.1: too little free space.
    DiskFull,
    /// 452 4.3.1: memory budget spent.
    MemoryFull,
    /// 451 4.3.0: the commit took longer than [`super::Limits::commit_wait`].
    Timeout,
    /// 451 4.3.2: overload.
    Overloaded,
    /// 452 4.3.2: overload, for mail of low priority.
    OverloadedLow,
}

impl Refusal {
    pub(super) const fn reply(self) -> Reply {
        match self {
            Self::LogFailed => LOG_FAILED,
            Self::DiskFull => DISK_FULL,
            Self::MemoryFull => MEMORY_FULL,
            Self::Timeout => TIMEOUT,
            Self::Overloaded => OVERLOADED,
            Self::OverloadedLow => OVERLOADED_LOW,
        }
    }

    /// The reply code: 451 or 452.
    pub const fn code(self) -> u16 {
        self.reply().code()
    }

    /// The reason to count it under.
    pub const fn reason(self) -> super::RejectReason {
        match self {
            Self::LogFailed => super::RejectReason::LogError,
            Self::DiskFull => super::RejectReason::DiskFull,
            Self::MemoryFull | Self::Timeout | Self::Overloaded | Self::OverloadedLow => {
                super::RejectReason::Backpressure
            }
        }
    }
}

/// Why a whole message is not taken, as found out by who looked into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// 451 or 550.
    pub code: u16,
    /// Enhanced status code (RFC 3463, RFC 7372).
    pub enhanced: &'static str,
    /// The reply's words. What no reply can have is left out of it, and what is beyond 400 octets.
    pub text: String,
}

impl Rejection {
    /// The words as they are sent: printable ASCII, so that no sender writes a reply of ours.
    pub(super) fn words(&self) -> String {
        let printable = self.text.chars().filter(|c| matches!(c, ' '..='~'));
        printable.take(REJECTION_BYTES_MAX).collect()
    }
}

/// RFC 5321 §4.5.3.1.5 leaves 512 octets to a reply line.
const REJECTION_BYTES_MAX: usize = 400;

/// The final reply to a message, which waits for its record to be synced; with LMTP one reply for
/// each recipient.
#[derive(Debug, Clone, Copy)]
struct Hold {
    ticket: u64,
    /// Place of the replies in `octets`, a line each.
    start: usize,
    end: usize,
    /// How often the reply is there.
    replies: u32,
}

/// What was released, or turned into a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Messages.
    pub holds: usize,
    /// Replies of theirs: with LMTP one for each recipient.
    pub replies: usize,
}

impl Settled {
    fn add(&mut self, replies: usize) {
        self.holds += 1;
        self.replies += replies;
    }
}

/// Rendered replies of one connection, in command order (RFC 2920 §3.2).
///
/// ```text
///   octets:  [ 250 Ok | 250 queued as A | 250 Ok | 250 queued as B | 221 ]
///   holds:              ^ ticket 7                ^ ticket 9
///             ready ----|
/// ```
///
/// Nothing at or after the first hold may be sent. Life cycle: one for each connection; the session
/// pushes, the driver takes, releases and fails.
#[derive(Debug, Default)]
pub struct Replies {
    octets: Vec<u8>,
    /// Invariant: in order of `start`, which is command order.
    holds: Vec<Hold>,
}

/// Capacity an empty queue keeps; what a pipelined burst needed beyond it is given back.
const KEPT_BYTES: usize = 1024;

/// Holds an empty queue keeps room for: as many messages in flight cost no allocation.
const KEPT_HOLDS: usize = 16;

impl Replies {
    /// An empty queue; takes no memory until the first reply.
    pub fn new() -> Self {
        Self::default()
    }

    /// Octets that may be sent now: those before the first hold.
    pub fn ready(&self) -> usize {
        self.holds.first().map_or(self.octets.len(), |hold| hold.start)
    }

    /// Whether it holds memory for replies.
    pub fn has_memory(&self) -> bool {
        self.octets.capacity() > 0
    }

    /// Lends it memory, which replies leave with or [`Replies::give_back`] returns: a session that
    /// says nothing holds none.
    pub fn lend(&mut self, memory: Vec<u8>) {
        assert!(memory.is_empty() && self.octets.is_empty(), "replies are not overwritten");
        self.octets = memory;
    }

    /// Gives its memory back if it holds no reply.
    pub fn give_back(&mut self) -> Option<Vec<u8>> {
        (self.octets.is_empty() && self.has_memory()).then(|| std::mem::take(&mut self.octets))
    }

    /// Moves the octets that may be sent to the end of `into`. If these are all there are and
    /// `into` is empty, the two swap their memory.
    pub fn take_ready(&mut self, into: &mut Vec<u8>) {
        let ready = self.ready();
        if into.is_empty() && self.holds.is_empty() {
            std::mem::swap(&mut self.octets, into);
            self.octets.shrink_to(KEPT_BYTES);
            self.holds.shrink_to(KEPT_HOLDS);
            return;
        }
        if planted(Bug::ReplyOrderBroken)
            && let Some(last) = self.holds.last()
        {
            into.extend(self.octets.drain(last.end..));
        }
        into.extend_from_slice(self.octets.get(..ready).unwrap_or_default());
        self.octets.drain(..ready);
        for hold in &mut self.holds {
            hold.start -= ready;
            hold.end -= ready;
        }
        if self.octets.is_empty() {
            self.octets.shrink_to(KEPT_BYTES);
            self.holds.shrink_to(KEPT_HOLDS);
        }
    }

    /// Ticket of the first hold.
    pub fn first_held(&self) -> Option<u64> {
        self.holds.first().map(|hold| hold.ticket)
    }

    /// Number of holds.
    pub fn held(&self) -> usize {
        self.holds.len()
    }

    /// Releases every hold with a ticket below the high-water mark.
    pub fn release(&mut self, high_water_mark: u64) -> Settled {
        let mut settled = Settled::default();
        self.holds.retain(|hold| {
            let stays = hold.ticket >= high_water_mark;
            if !stays {
                settled.add(hold.replies as usize);
            }
            stays
        });
        settled
    }

    /// Turns every hold with a ticket among `tickets` into the refusal, in its place, once for each
    /// reply it has.
    pub fn fail(&mut self, tickets: Range<u64>, refusal: Refusal) -> Settled {
        let line = refusal.reply().line.as_bytes();
        let mut failed = Settled::default();
        let mut at = 0;
        while let Some(hold) = self.holds.get(at).copied() {
            if !tickets.contains(&hold.ticket) {
                at += 1;
                continue;
            }
            let replies = hold.replies as usize;
            let refusals = line.repeat(replies);
            if planted(Bug::AcceptAfterTimeout) && refusal == Refusal::Timeout {
                self.octets.splice(hold.start..hold.start, refusals.iter().copied());
                self.holds.remove(at);
                for later in self.holds.iter_mut().skip(at) {
                    later.start += refusals.len();
                    later.end += refusals.len();
                }
                failed.add(replies);
                continue;
            }
            let (was, is) = (hold.end - hold.start, refusals.len());
            self.octets.splice(hold.start..hold.end, refusals);
            self.holds.remove(at);
            for later in self.holds.iter_mut().skip(at) {
                later.start = later.start - was + is;
                later.end = later.end - was + is;
            }
            failed.add(replies);
        }
        failed
    }

    /// Octets not yet taken, held ones included.
    pub fn unsent(&self) -> usize {
        self.octets.len()
    }

    /// Whether nothing is left to send or to hold.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    pub(super) fn push(&mut self, reply: Reply) {
        self.octets.extend_from_slice(reply.line.as_bytes());
    }

    /// The place to render a reply that is not fixed.
    pub(super) fn open(&mut self) -> &mut Vec<u8> {
        &mut self.octets
    }

    /// Renders the final 250 of a message, `replies` times, and holds it under `ticket`.
    pub(super) fn push_held(&mut self, ticket: u64, id: &dyn Display, replies: usize) {
        let start = self.octets.len();
        // Writing into a Vec fails only if the id's own Display does.
        let _ = write!(self.octets, "250 2.0.0 Ok: queued as {id}\r\n");
        let first = start..self.octets.len();
        for _ in 1..replies {
            self.octets.extend_from_within(first.clone());
        }
        let end = self.octets.len();
        debug_assert!(
            self.holds.last().is_none_or(|last| last.ticket < ticket),
            "tickets are record offsets, which grow"
        );
        // At most as many as a message has recipients.
        let replies = u32::try_from(replies).unwrap_or(u32::MAX);
        self.holds.push(Hold { ticket, start, end, replies });
    }
}
