//! Following sessions live: what the shards tell whoever asks for it, through `mailrace trace`.
//!
//! ```text
//!   shard -- events that match --> bounded queue --> admin plane --> `GET /v1/trace`
//!                 | full: dropped and counted
//! ```
//!
//! While nobody follows, a shard looks once a tick whether somebody does, and builds nothing. While
//! somebody does, it builds what matches and hands it over without waiting. Mail data, passwords
//! and the subject are in no event.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::network::Network;

/// How many may follow at once.
pub const WATCHES_MAX: usize = 4;

/// Events that wait for one of them: some megabytes at most.
const EVENTS_MAX: usize = 8_192;

/// Sessions that are remembered by their sender or recipient.
const SESSIONS_MAX: usize = 65_536;

/// Recipients that an event names.
pub const RECIPIENTS_MAX: usize = 10;

/// Whom to follow. What is absent matches everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Network of the client.
    pub client: Option<Network>,
    /// Name of the listener.
    pub listener: Option<String>,
    /// Pattern of the reverse-path; `*` stands for any text.
    pub from: Option<String>,
    /// Pattern of one of the forward-paths.
    pub rcpt: Option<String>,
}

impl Filter {
    /// Whether a session is followed for who it is of, whatever it sends.
    fn takes_session(&self, client: IpAddr, listener: &str) -> bool {
        self.client.is_none_or(|network| network.contains(client))
            && self.listener.as_deref().is_none_or(|name| name == listener)
    }

    /// Whether it depends on the addresses of the mail.
    fn by_address(&self) -> bool {
        self.from.is_some() || self.rcpt.is_some()
    }

    fn takes_mail<'a>(&self, from: &str, rcpts: impl IntoIterator<Item = &'a str>) -> bool {
        self.from.as_deref().is_none_or(|pattern| matches(pattern, from))
            && self
                .rcpt
                .as_deref()
                .is_none_or(|pattern| rcpts.into_iter().any(|rcpt| matches(pattern, rcpt)))
    }
}

/// Whether a text is of a pattern in which `*` stands for any text; the case of letters is ignored.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Something that happened in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// Microseconds since 1970.
    pub at: u64,
    /// The shard.
    pub shard: u16,
    /// Number of the connection in its shard.
    pub session: u64,
    /// The client.
    pub client: SocketAddr,
    /// Name of the listener.
    pub listener: String,
    /// What happened.
    pub what: What,
}

/// See [`TraceEvent`]. Times are in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The connection was accepted.
    Opened,
    /// A TLS handshake is over.
    Handshake {
        /// Version and cipher; empty where it failed.
        tls: String,
        /// Since it began.
        took: u64,
    },
    /// A command or a message was refused.
    Refused {
        /// The command.
        stage: &'static str,
        /// Of the reply.
        code: u16,
        /// Enhanced code and text.
        reason: String,
        /// Reverse-path, where there is a transaction.
        from: Option<String>,
        /// The forward-path that it is about.
        rcpt: Option<String>,
    },
    /// All of a message has arrived.
    Received {
        /// Reverse-path.
        from: String,
        /// The first of the forward-paths.
        rcpts: Vec<String>,
        /// How many there are.
        recipients: u64,
        /// Of the mail data.
        bytes: u64,
        /// Since MAIL.
        took: u64,
    },
    /// It is synced, and its 250 was let go.
    Stored {
        /// Of its record.
        id: String,
        /// Since the end of its mail data.
        commit: u64,
        /// Since MAIL.
        took: u64,
    },
    /// The connection has ended.
    Closed {
        /// Why.
        reason: &'static str,
        /// Messages that it brought.
        messages: u32,
        /// Since it was accepted.
        took: u64,
    },
}

/// One that follows.
#[derive(Debug)]
pub struct Watch {
    filter: Filter,
    events: Sender<TraceEvent>,
    dropped: AtomicU64,
    /// Sessions, by shard and number, that brought mail which matches.
    sessions: Mutex<HashSet<(u16, u64)>>,
}

impl Watch {
    fn send(&self, event: TraceEvent) {
        if self.events.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a session is one of those remembered; unknown where another shard looks just now.
    fn remembers(&self, session: (u16, u64)) -> bool {
        self.sessions.try_lock().is_ok_and(|sessions| sessions.contains(&session))
    }

    fn remember(&self, session: (u16, u64)) {
        if let Ok(mut sessions) = self.sessions.try_lock()
            && sessions.len() < SESSIONS_MAX
        {
            sessions.insert(session);
        }
    }

    fn forget(&self, session: (u16, u64)) {
        if let Ok(mut sessions) = self.sessions.try_lock() {
            sessions.remove(&session);
        }
    }
}

/// Where shards and those who follow meet. Both planes.
#[derive(Debug, Default)]
pub struct Traces {
    watches: Mutex<Vec<Arc<Watch>>>,
    /// Counts their changes.
    version: AtomicU64,
    /// How often a shard has looked who follows, after a change.
    seen: AtomicU64,
    /// Events that were built.
    built: AtomicU64,
}

impl Traces {
    /// Begins to follow; `None` where [`WATCHES_MAX`] do already.
    #[must_use]
    pub fn watch(self: &Arc<Self>, filter: Filter) -> Option<Following> {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if watches.len() >= WATCHES_MAX {
            return None;
        }
        let (sender, events) = bounded(EVENTS_MAX);
        let watch = Arc::new(Watch {
            filter,
            events: sender,
            dropped: AtomicU64::new(0),
            sessions: Mutex::default(),
        });
        watches.push(watch.clone());
        self.version.fetch_add(1, Ordering::Release);
        Some(Following { traces: self.clone(), watch, events })
    }

    /// How often a shard has seen a change of those who follow. Each sees it within a tick.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Events that were built so far.
    #[must_use]
    pub fn built(&self) -> u64 {
        self.built.load(Ordering::Relaxed)
    }
}

/// One that follows, at its end. Dropped, it follows no more.
#[derive(Debug)]
pub struct Following {
    traces: Arc<Traces>,
    watch: Arc<Watch>,
    events: Receiver<TraceEvent>,
}

impl Following {
    /// The next event, if there is one.
    pub fn poll(&self) -> Option<TraceEvent> {
        self.events.try_recv().ok()
    }

    /// Events that found no room since the last call.
    #[must_use]
    pub fn take_dropped(&self) -> u64 {
        self.watch.dropped.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut watches = self.traces.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|watch| !Arc::ptr_eq(watch, &self.watch));
        self.traces.version.fetch_add(1, Ordering::Release);
    }
}

/// A session, as the filters see it.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) shard: u16,
    pub(super) session: u64,
    pub(super) client: SocketAddr,
    pub(super) listener: &'a str,
}

/// A shard's end.
pub(super) struct Tracer {
    traces: Arc<Traces>,
    seen: u64,
    watches: Vec<Arc<Watch>>,
}

impl Tracer {
    pub(super) fn new(traces: Arc<Traces>) -> Self {
        Self { traces, seen: 0, watches: Vec::new() }
    }

    /// With each tick: who follows.
    pub(super) fn renew(&mut self) {
        let version = self.traces.version.load(Ordering::Acquire);
        if version != self.seen {
            let watches = self.traces.watches.lock().unwrap_or_else(PoisonError::into_inner);
            self.watches.clone_from(&watches);
            self.seen = version;
            self.traces.seen.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether anybody follows anything.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        !self.watches.is_empty()
    }

    /// Hands over an event of a session to those that follow it; `what` is called once for each.
    pub(super) fn tell(&self, subject: Subject<'_>, at: u64, what: impl Fn() -> What) {
        let key = (subject.shard, subject.session);
        let ends = self
            .tell_if(subject, at, what, |watch| !watch.filter.by_address() || watch.remembers(key));
        if ends {
            self.watches.iter().for_each(|watch| watch.forget(key));
        }
    }

    /// As [`Tracer::tell`], of mail with these addresses: from now on its session is remembered.
    pub(super) fn tell_mail<'a, I: IntoIterator<Item = &'a str>>(
        &self,
        subject: Subject<'_>,
        at: u64,
        (from, rcpts): (&str, impl Fn() -> I),
        what: impl Fn() -> What,
    ) {
        self.tell_if(subject, at, what, |watch| {
            if !watch.filter.by_address() {
                return true;
            }
            let takes = watch.filter.takes_mail(from, rcpts());
            if takes {
                watch.remember((subject.shard, subject.session));
            }
            takes
        });
    }

    /// Says whether it was the session's last event.
    fn tell_if(
        &self,
        subject: Subject<'_>,
        at: u64,
        what: impl Fn() -> What,
        takes: impl Fn(&Watch) -> bool,
    ) -> bool {
        let mut ends = false;
        for watch in &self.watches {
            let Subject { shard, session, client, listener } = subject;
            if !watch.filter.takes_session(client.ip(), listener) || !takes(watch) {
                continue;
            }
            self.traces.built.fetch_add(1, Ordering::Relaxed);
            let what = what();
            ends |= matches!(what, What::Closed { .. });
            let listener = listener.to_owned();
            watch.send(TraceEvent { at, shard, session, client, listener, what });
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_texts() {
        for (pattern, text, wanted) in [
            ("a@b.test", "A@B.test", true),
            ("a@b.test", "a@b.tests", false),
            ("*@b.test", "a@b.test", true),
            ("*@b.test", "a@c.test", false),
            ("a*", "ab", true),
            ("*b*d*", "abcde", true),
            ("*d*b*", "abcde", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
    }

    fn subject(listener: &str) -> Subject<'_> {
        Subject { shard: 0, session: 7, client: "192.0.2.1:25".parse().unwrap(), listener }
    }

    fn received() -> What {
        let from = "a@b.test".to_owned();
        What::Received { from, rcpts: Vec::new(), recipients: 1, bytes: 3, took: 4 }
    }

    #[test]
    fn a_session_is_followed_from_the_mail_that_matches() {
        let traces = Arc::new(Traces::default());
        let mut tracer = Tracer::new(traces.clone());
        let from = Some("*@b.test".to_owned());
        let following = traces.watch(Filter { from, ..Filter::default() }).unwrap();
        tracer.renew();
        let stored = || What::Stored { id: String::new(), commit: 2, took: 3 };
        let closed = || What::Closed { reason: "quit", messages: 1, took: 9 };
        tracer.tell(subject("mx"), 1, || What::Opened);
        let rcpts = || ["x@y.test"];
        tracer.tell_mail(subject("mx"), 2, ("c@d.test", rcpts), received);
        tracer.tell(subject("mx"), 3, stored);
        assert_eq!((following.poll(), traces.built()), (None, 0));
        tracer.tell_mail(subject("mx"), 4, ("a@b.test", rcpts), received);
        tracer.tell(subject("mx"), 5, stored);
        tracer.tell(subject("mx"), 6, closed);
        // The number is another session's now.
        tracer.tell(subject("mx"), 7, stored);
        let times: Vec<_> = std::iter::from_fn(|| following.poll()).map(|event| event.at).collect();
        assert_eq!(times, [4, 5, 6]);
        drop(following);
        tracer.renew();
        assert!(!tracer.is_on());
    }

    #[test]
    fn what_nobody_takes_in_time_is_dropped_and_counted() {
        let traces = Arc::new(Traces::default());
        let mut tracer = Tracer::new(traces.clone());
        let all: Vec<_> = std::iter::from_fn(|| traces.watch(Filter::default())).collect();
        assert_eq!(all.len(), WATCHES_MAX);
        tracer.renew();
        for at in 0..EVENTS_MAX as u64 + 5 {
            tracer.tell(subject("mx"), at, || What::Opened);
        }
        assert_eq!([all[0].take_dropped(), all[0].take_dropped()], [5, 0]);
        assert_eq!(std::iter::from_fn(|| all[1].poll()).count(), EVENTS_MAX);
    }
}
