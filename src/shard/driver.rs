//! The driver of a shard: one task that submits, reaps and serves every connection of its core.
//!
//! A turn: wait on the ring (5 ms at most), serve every completion, put gathered groups under way,
//! send every reply that may go, tick. Then other tasks of the executor run (heartbeat, segment
//! preparation). All state lives here, on one thread: no locks, no atomics on the path of a
//! message.

use std::{
    collections::VecDeque,
    io, mem,
    net::TcpListener,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    SharedState,
    connection::{Collected, Connection, Key, Phase},
    counters::Counters,
    ring::{Completion, Ring},
    segments::Segments,
    timer::Wheel,
};
use crate::{
    log::{AppendError, Appender, LogEvent, Mail, Offset, Op},
    metrics::{CloseReason, ShardState},
    smtp::{self, Admission, Context, Event, MailFlags, Refusal, Replies, Session, Verb},
};

/// Longest sleep of an idle shard, and the width of its tick.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// Longest that replies to commands ahead of a message's end wait for its commit, so that one send
/// carries them all. RFC 2920 §3.2 wants the replies to a group sent when its last command has been
/// handled; we own this deviation, bounded.
const DEFERRED: Duration = Duration::from_millis(5);

/// Octets of one message kept on the heap before the rest streams into the log as fragments.
const HEAP_MAIL_BYTES: usize = 256 * 1024;

/// How long a connection that was closed on our side may keep sending.
const LINGER: Duration = Duration::from_secs(2);

/// A peer that takes nothing of what it is owed for this long is gone.
const SEND_WAIT: Duration = Duration::from_secs(60);

const ACCEPT: u64 = 1;
const RECEIVE: u64 = 2;
const SEND: u64 = 3;
const CANCEL: u64 = 4;
const LOG_WRITE: u64 = 5;
const LOG_SYNC: u64 = 6;
const KIND_SHIFT: u32 = 56;
const GENERATION_MASK: u32 = 0x00ff_ffff;

fn token(kind: u64, key: Key) -> u64 {
    kind << KIND_SHIFT | u64::from(key.generation) << 32 | u64::from(key.index)
}

fn log_token(kind: u64, op: u64) -> u64 {
    assert!(op >> KIND_SHIFT == 0, "operation numbers stay below 2^56");
    kind << KIND_SHIFT | op
}

/// What a shard is made with.
pub(super) struct Parts {
    pub(super) ring: Ring,
    pub(super) smtp: Arc<smtp::Config>,
    pub(super) listeners: Vec<(String, TcpListener)>,
    pub(super) appender: Appender,
    pub(super) segments: Segments,
    pub(super) shared: Arc<SharedState>,
    pub(super) options: super::Options,
    pub(super) started: Instant,
}

/// A message in the log whose 250 is held until its offset lies below the high-water mark.
struct Waiting {
    offset: Offset,
    key: Key,
    ended: Duration,
    began: Duration,
    bytes: u64,
    recipients: u64,
    failed: bool,
}

/// See the module's page.
pub(super) struct Driver {
    ring: Ring,
    smtp: Arc<smtp::Config>,
    listeners: Vec<(String, TcpListener)>,
    appender: Appender,
    segments: Segments,
    shared: Arc<SharedState>,
    options: super::Options,
    started: Instant,

    now: Duration,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<u32>,
    open: usize,
    generation: u32,
    waiting: VecDeque<Waiting>,
    wheel: Wheel<Key>,
    dirty: Vec<Key>,
    deferred: VecDeque<(Duration, Key)>,
    paused: Vec<Key>,
    collected_bytes: u64,
    completions: Vec<Completion>,
    due: Vec<Key>,
    packed: String,
    spare_vecs: Vec<Vec<u8>>,
    accept_again: Vec<u32>,
    counters: Counters,
    last_tick: Duration,
    draining: Option<Duration>,
}

/// What became of one step of a session.
enum Stepped {
    More,
    Wait,
    Over(CloseReason),
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { ring, smtp, listeners, appender, segments, shared, options, started } = parts;
        let counters = Counters::new(
            options.shard,
            &listeners.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        );
        Self {
            ring,
            smtp,
            listeners,
            appender,
            segments,
            shared,
            options,
            started,
            now: started.elapsed(),
            connections: Vec::new(),
            free: Vec::new(),
            open: 0,
            generation: 0,
            waiting: VecDeque::new(),
            wheel: Wheel::new(),
            dirty: Vec::new(),
            deferred: VecDeque::new(),
            paused: Vec::new(),
            collected_bytes: 0,
            completions: Vec::new(),
            due: Vec::new(),
            packed: String::new(),
            spare_vecs: Vec::new(),
            accept_again: Vec::new(),
            counters,
            last_tick: Duration::ZERO,
            draining: None,
        }
    }

    fn accept(&mut self, listener: u32) {
        let Some((_, socket)) = self.listeners.get(listener as usize) else { return };
        self.ring.accept(socket.as_raw_fd(), token(ACCEPT, Key { index: listener, generation: 0 }));
    }

    /// One turn. Returns whether there was anything to do.
    ///
    /// # Errors
    /// The ring's own failure, which ends the process.
    pub(super) fn turn(&mut self) -> io::Result<bool> {
        let idle = self.dirty.is_empty();
        let wait = if !idle {
            Duration::ZERO
        } else if self.deferred.is_empty() && !self.segments.busy() {
            TICK
        } else {
            Duration::from_millis(1)
        };
        self.ring.wait(wait)?;
        let woke = self.started.elapsed();
        self.now = woke;
        let mut completions = mem::take(&mut self.completions);
        self.ring.reap(&mut completions);
        let worked = !completions.is_empty();
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
        self.serve_log();
        if self.now.saturating_sub(self.last_tick) >= TICK {
            self.tick();
        }
        self.flush_deferred();
        self.flush_dirty();
        if worked {
            let end = self.started.elapsed();
            self.counters.turn(end.saturating_sub(woke));
        }
        Ok(worked)
    }

    fn complete(&mut self, completion: Completion) {
        let kind = completion.user_data >> KIND_SHIFT;
        let key = Key {
            index: completion.user_data as u32,
            generation: (completion.user_data >> 32) as u32 & GENERATION_MASK,
        };
        let op = completion.user_data & ((1 << KIND_SHIFT) - 1);
        match kind {
            ACCEPT => self.accepted(key.index, completion),
            RECEIVE => self.received(key, completion),
            SEND => self.sent(key, completion),
            CANCEL => {}
            LOG_WRITE => {
                let result = completion.outcome();
                self.counters.written(op, self.started.elapsed(), result.is_ok());
                self.appender.handle_write(op, result, self.now);
            }
            LOG_SYNC => {
                let result = completion.outcome().map(|_| ());
                self.counters.synced(op, self.started.elapsed(), result.is_ok());
                self.appender.handle_sync(op, result, self.now);
            }
            other => unreachable!("no operation is submitted with kind {other}"),
        }
    }

    // --- connections -------------------------------------------------------------------------

    fn accepted(&mut self, listener: u32, completion: Completion) {
        if !completion.more() {
            self.accept_again.push(listener);
        }
        let socket = match completion.outcome() {
            // SAFETY: a fresh descriptor of the kernel's, owned by nobody else.
            Ok(_) => unsafe { OwnedFd::from_raw_fd(completion.result) },
            Err(error) => {
                // Descriptors or memory are short: the tick arms the listener again.
                if error.raw_os_error() != Some(libc::ECANCELED) && self.draining.is_none() {
                    tracing::warn!(%error, "accept failed");
                }
                return;
            }
        };
        let Ok(peer) = peer_of(&socket) else { return };
        self.counters.connection(listener as usize);
        let refused = self.draining.is_some() || self.open >= self.options.connections_max;
        if refused {
            self.counters.refused(listener as usize, self.draining.is_some());
        }
        self.generation = (self.generation + 1) & GENERATION_MASK;
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            u32::try_from(self.connections.len() - 1).expect("fewer connections than 2^32")
        });
        let key = Key { index, generation: self.generation };
        let exempt = self.options.exempt(peer.ip());
        let mut connection = Box::new(Connection {
            socket,
            peer,
            generation: self.generation,
            listener: listener as u16,
            phase: Phase::Open,
            reason: CloseReason::ClientGone,
            receiving: true,
            paused: false,
            ended: false,
            dirty: false,
            deferred: false,
            released: false,
            session: Session::new(self.now, exempt, &self.smtp),
            replies: Replies::new(),
            sending: Vec::new(),
            send_under_way: false,
            unread: Vec::new(),
            mail: Collected::default(),
            opened: self.now,
            sent_at: self.now,
            due: Duration::MAX,
            mail_began: self.now,
        });
        let admission = if refused { Admission::Draining } else { self.admission() };
        let event = {
            let Connection { session, replies, .. } = &mut *connection;
            session.handle_open(&mut Context {
                now: self.now,
                config: &self.smtp,
                replies,
                stats: &mut self.counters.smtp,
                admission,
            })
        };
        self.ring.receive(connection.socket.as_raw_fd(), token(RECEIVE, key));
        if let Event::Close = event {
            connection.phase = Phase::Closing;
            connection.reason = CloseReason::Draining;
        }
        let due = connection.session.deadline().min(self.now + SEND_WAIT);
        self.enter(key, &mut connection, due);
        self.open += 1;
        self.connections[index as usize] = Some(connection);
        self.touch(key);
    }

    fn take(&mut self, key: Key) -> Option<Box<Connection>> {
        let slot = self.connections.get_mut(key.index as usize)?;
        if slot.as_ref()?.generation != key.generation {
            return None;
        }
        slot.take()
    }

    /// Puts a connection back after its turn, or lets it go when nothing holds it any more.
    fn put(&mut self, key: Key, connection: Box<Connection>) {
        if connection.phase == Phase::Dead && !connection.operations() {
            self.collected_bytes -= memory_of(&connection.mail);
            self.counters.closed(
                usize::from(connection.listener),
                connection.reason,
                self.now.saturating_sub(connection.opened),
            );
            self.open -= 1;
            self.free.push(key.index);
            return;
        }
        self.connections[key.index as usize] = Some(connection);
    }

    fn touch(&mut self, key: Key) {
        let slot = self.connections.get_mut(key.index as usize).and_then(Option::as_mut);
        if let Some(connection) = slot.filter(|c| c.generation == key.generation && !c.dirty) {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    fn received(&mut self, key: Key, completion: Completion) {
        let Some(mut connection) = self.take(key) else {
            if let Some(buffer) = completion.buffer() {
                self.ring.recycle(buffer);
            }
            return;
        };
        connection.receiving = completion.more();
        match (completion.outcome(), completion.buffer()) {
            (Ok(len), Some(buffer)) if len > 0 => {
                let octets = self.ring.octets(buffer, len);
                self.octets(key, &mut connection, octets);
                // The slice is not used behind this line: what outlives it was copied.
                self.ring.recycle(buffer);
            }
            (Ok(_), buffer) => {
                if let Some(buffer) = buffer {
                    self.ring.recycle(buffer);
                }
                connection.ended = true;
                self.end_of_stream(&mut connection);
            }
            (Err(error), _) => match error.raw_os_error() {
                // Out of buffers for a moment, or stopped on purpose.
                Some(libc::ENOBUFS | libc::ECANCELED) => {}
                _ => self.broken(&mut connection, CloseReason::ClientGone),
            },
        }
        self.receive_again(key, &mut connection);
        self.arm(key, &mut connection);
        self.put(key, connection);
        self.touch(key);
    }

    fn receive_again(&mut self, key: Key, connection: &mut Connection) {
        let reads = !connection.paused && !connection.ended && connection.phase != Phase::Dead;
        if reads && !connection.receiving {
            connection.receiving = true;
            self.ring.receive(connection.socket.as_raw_fd(), token(RECEIVE, key));
        }
    }

    /// Octets came in.
    fn octets(&mut self, key: Key, connection: &mut Connection, octets: &[u8]) {
        if connection.phase != Phase::Open {
            return;
        }
        if connection.paused {
            connection.unread.extend_from_slice(octets);
            return;
        }
        if connection.unread.is_empty() {
            let taken = self.serve(key, connection, octets);
            if let Some(rest) = octets.get(taken..).filter(|rest| !rest.is_empty()) {
                connection.unread.extend_from_slice(rest);
            }
        } else {
            let mut unread = mem::take(&mut connection.unread);
            unread.extend_from_slice(octets);
            let taken = self.serve(key, connection, &unread);
            unread.drain(..taken);
            if !unread.is_empty() {
                connection.unread = unread;
            }
        }
    }

    /// Lets the session take what it can of `input`; returns how much that was.
    fn serve(&mut self, key: Key, connection: &mut Connection, input: &[u8]) -> usize {
        let mut head = 0;
        // Ranges of `input` that belong to the message at hand and were not copied yet.
        let mut spans = Spans::default();
        loop {
            let rest = &input[head..];
            let quits = self.counters.smtp.commands[Verb::Quit as usize];
            let admission = self.admission();
            let step = {
                let Connection { session, replies, .. } = &mut *connection;
                let mut context = Context {
                    now: self.now,
                    config: &self.smtp,
                    replies,
                    stats: &mut self.counters.smtp,
                    admission,
                };
                // D17: a panic in one session's code closes that session, nobody else notices. The
                // log is outside of this border.
                catch_unwind(AssertUnwindSafe(|| session.handle_input(&mut context, rest)))
            };
            let Ok(step) = step else {
                tracing::error!(peer = %connection.peer, "a session panicked and was closed");
                connection.mail.clear();
                self.broken(connection, CloseReason::IoError);
                return input.len();
            };
            assert!(step.consumed <= rest.len(), "the session consumes what it was given");
            let at = head;
            head += step.consumed;
            let stepped = match step.event {
                Event::NeedInput => Stepped::Wait,
                Event::MailData(range) => {
                    if connection.mail.bytes == 0 {
                        connection.mail_began = self.now;
                    }
                    connection.mail.bytes += range.len() as u64;
                    if !spans.push(at + range.start, at + range.end) {
                        self.keep(connection, input, &mut spans);
                        spans.push(at + range.start, at + range.end);
                    }
                    Stepped::More
                }
                Event::MailDataStatic(octets) => {
                    self.keep(connection, input, &mut spans);
                    connection.mail.bytes += octets.len() as u64;
                    self.keep_octets(connection, octets);
                    Stepped::More
                }
                Event::EndOfMail => {
                    self.end_of_mail(key, connection, input, &mut spans);
                    Stepped::More
                }
                Event::Discard => {
                    spans.clear();
                    self.discard(connection);
                    Stepped::More
                }
                Event::Close => {
                    let quit = self.counters.smtp.commands[Verb::Quit as usize] > quits;
                    Stepped::Over(if quit { CloseReason::Quit } else { CloseReason::ErrorLimit })
                }
            };
            match stepped {
                Stepped::More => {}
                Stepped::Wait => break,
                Stepped::Over(reason) => {
                    spans.clear();
                    self.discard(connection);
                    connection.phase = Phase::Closing;
                    connection.reason = reason;
                    return input.len();
                }
            }
        }
        // The session stops reading commands itself at this bound.
        if connection.replies.unsent() >= self.smtp.limits.unsent_replies_bytes {
            self.pause(key, connection);
        }
        self.keep(connection, input, &mut spans);
        if connection.mail.bytes > 0 && self.memory_full() {
            self.pause(key, connection);
        }
        head
    }

    fn end_of_stream(&mut self, connection: &mut Connection) {
        if connection.phase != Phase::Open {
            if connection.phase == Phase::Lingering {
                connection.phase = Phase::Dead;
            }
            return;
        }
        let admission = self.admission();
        let Connection { session, replies, .. } = &mut *connection;
        session.handle_eof(&mut Context {
            now: self.now,
            config: &self.smtp,
            replies,
            stats: &mut self.counters.smtp,
            admission,
        });
        self.discard(connection);
        // Half a close: what was complete is still answered, held replies included.
        connection.phase = Phase::Closing;
        connection.reason = CloseReason::ClientGone;
    }

    /// The stream is dead: nothing more is read or sent; records in the log stay.
    fn broken(&mut self, connection: &mut Connection, reason: CloseReason) {
        if connection.phase == Phase::Dead {
            return;
        }
        self.discard(connection);
        connection.reason = reason;
        self.shut(connection);
    }

    fn shut(&mut self, connection: &mut Connection) {
        connection.phase = Phase::Dead;
        // SAFETY: a descriptor of ours; makes the pending receive complete.
        unsafe { libc::shutdown(connection.socket.as_raw_fd(), libc::SHUT_RDWR) };
    }

    fn pause(&mut self, key: Key, connection: &mut Connection) {
        if !connection.paused {
            connection.paused = true;
            self.paused.push(key);
            if connection.receiving {
                self.ring.cancel(token(RECEIVE, key), token(CANCEL, key));
            }
        }
    }

    fn resume(&mut self) {
        let memory_full = self.memory_full();
        for key in mem::take(&mut self.paused) {
            let Some(mut connection) = self.take(key) else { continue };
            let full = connection.replies.unsent() > self.smtp.limits.unsent_replies_bytes / 2;
            let wait = full || memory_full && connection.mail.bytes > 0;
            if wait && connection.phase == Phase::Open {
                self.counters.paused(TICK, memory_full);
                self.paused.push(key);
            } else {
                connection.paused = false;
                self.octets(key, &mut connection, &[]);
                self.receive_again(key, &mut connection);
            }
            self.put(key, connection);
            self.touch(key);
        }
    }

    // --- mail data ---------------------------------------------------------------------------

    /// Copies what must outlive the receive buffer.
    fn keep(&mut self, connection: &mut Connection, input: &[u8], spans: &mut Spans) {
        for &(start, end) in spans.list() {
            self.keep_octets(connection, &input[start..end]);
        }
        spans.clear();
    }

    fn keep_octets(&mut self, connection: &mut Connection, mut octets: &[u8]) {
        let mail = &mut connection.mail;
        let before = memory_of(mail);
        if mail.filling.is_none() && mail.heap.len() + octets.len() <= HEAP_MAIL_BYTES {
            mail.heap.extend_from_slice(octets);
            octets = &[];
        }
        if !octets.is_empty() {
            let heap = mem::take(&mut mail.heap);
            for mut part in [heap.as_slice(), octets] {
                while !part.is_empty() && !mail.failed {
                    let buffer = mail.filling.get_or_insert_with(|| self.appender.new_fragment());
                    let taken = buffer.push(part);
                    part = &part[taken..];
                    if buffer.is_full() {
                        let full = mail.filling.take().expect("it was just filled");
                        match self.appender.append_fragment(full) {
                            Ok(fragment) => mail.fragments.push(fragment),
                            Err(_) => mail.failed = true,
                        }
                    }
                }
            }
        }
        let after = memory_of(&connection.mail);
        self.collected_bytes = self.collected_bytes + after - before;
    }

    fn discard(&mut self, connection: &mut Connection) {
        self.collected_bytes -= memory_of(&connection.mail);
        connection.mail.clear();
        self.collected_bytes += memory_of(&connection.mail);
    }

    /// The message is complete: it becomes a record, its 250 is held.
    fn end_of_mail(
        &mut self,
        key: Key,
        connection: &mut Connection,
        input: &[u8],
        spans: &mut Spans,
    ) {
        if connection.mail.filling.is_some() {
            self.keep(connection, input, spans);
            if let Some(last) = connection.mail.filling.take()
                && !connection.mail.failed
            {
                match self.appender.append_fragment(last) {
                    Ok(fragment) => connection.mail.fragments.push(fragment),
                    Err(_) => connection.mail.failed = true,
                }
            }
        }
        let mut chunks: [&[u8]; Spans::MAX + 1] = [&[]; Spans::MAX + 1];
        chunks[0] = &connection.mail.heap;
        for (chunk, &(start, end)) in chunks[1..].iter_mut().zip(spans.list()) {
            *chunk = &input[start..end];
        }
        let chunks = &chunks[..=spans.list().len()];

        let envelope = connection.session.envelope();
        self.packed.clear();
        for path in envelope.forward_paths() {
            if !self.packed.is_empty() {
                self.packed.push('\n');
            }
            self.packed.push_str(path);
        }
        let mail = Mail {
            mail_from: envelope.mail_from,
            rcpts: &self.packed,
            helo: envelope.helo,
            client: connection.peer,
            received_at: unix_micros(),
            listener: &self.listeners[usize::from(connection.listener)].0,
            esmtp: envelope.esmtp,
            smtputf8: envelope.smtputf8,
            body_type: envelope.body as u8,
            flags: flags_of(&envelope.flags),
            size_declared: envelope.size_declared,
        };
        let recipients = envelope.forward_path_count as u64;
        let bytes = envelope.bytes;
        let appended = if connection.mail.failed {
            Err(AppendError::Failed)
        } else {
            self.appender.append(&mail, chunks, &connection.mail.fragments)
        };
        let Connection { session, replies, .. } = &mut *connection;
        let mut context = Context {
            now: self.now,
            config: &self.smtp,
            replies,
            stats: &mut self.counters.smtp,
            admission: Admission::Open,
        };
        match appended {
            Ok(offset) => {
                let id = self.appender.identity().record_id(offset);
                session.resolve_accepted(&mut context, offset.get(), &id);
                self.waiting.push_back(Waiting {
                    offset,
                    key,
                    ended: self.now,
                    began: connection.mail_began,
                    bytes,
                    recipients,
                    failed: false,
                });
            }
            Err(error) => session.resolve_refused(
                &mut context,
                match error {
                    AppendError::Full => Refusal::MemoryFull,
                    AppendError::NoSegment if self.segments.disk_full() => Refusal::DiskFull,
                    _ => Refusal::LogFailed,
                },
            ),
        }
        spans.clear();
        self.discard(connection);
    }

    fn memory_full(&self) -> bool {
        self.collected_bytes + self.appender.unsynced_bytes() as u64 > self.options.inflight_bytes
    }

    fn admission(&self) -> Admission {
        if self.draining.is_some() {
            Admission::Draining
        } else if self.appender.read_only() {
            Admission::LogFailed
        } else if self.segments.disk_full() {
            Admission::DiskFull
        } else if self.memory_full() {
            Admission::MemoryFull
        } else {
            Admission::Open
        }
    }

    // --- the log -----------------------------------------------------------------------------

    fn serve_log(&mut self) {
        while let Some(spare) = self.segments.poll_spare() {
            self.appender.handle_segment(spare);
        }
        if self.appender.wants_segment() {
            self.segments.want();
        }
        while let Some(op) = self.appender.poll_op() {
            match op {
                Op::Write { op, segment, position, ptr, len, then_sync } => {
                    let file = self.segments.file(segment);
                    let at = self.started.elapsed();
                    self.counters.began(op, at, len as u64);
                    if let Some(sync) = then_sync {
                        self.counters.began(sync, at, 0);
                    }
                    self.segments.written_to(position + len as u64);
                    let len = u32::try_from(len).expect("a group is smaller than 4 GiB");
                    let then_sync = then_sync.map(|sync| log_token(LOG_SYNC, sync));
                    // SAFETY: the appender keeps the buffer until `handle_write`.
                    unsafe {
                        self.ring.write(
                            file,
                            position,
                            ptr,
                            len,
                            log_token(LOG_WRITE, op),
                            then_sync,
                        );
                    }
                }
                Op::Sync { op, segment } => {
                    let file = self.segments.file(segment);
                    self.counters.began(op, self.started.elapsed(), 0);
                    self.ring.sync(file, log_token(LOG_SYNC, op));
                }
            }
        }
        while let Some(event) = self.appender.poll_event() {
            match event {
                LogEvent::Advanced(mark) => self.advanced(mark),
                LogEvent::Failed { from, to } => self.failed(from, to, Refusal::LogFailed),
                LogEvent::Sealed(seal) => self.segments.sealed(seal),
                LogEvent::Indexed(entry) => self.segments.index(entry),
                LogEvent::Poisoned { segment, error } => {
                    tracing::error!(segment, %error, "log segment poisoned, a new one is opened");
                }
            }
        }
    }

    /// The high-water mark moved: every 250 below it may go.
    fn advanced(&mut self, mark: Offset) {
        assert!(mark <= self.appender.log_end_offset(), "high-water mark <= log end offset");
        let mut records = 0;
        while let Some(waiting) = self.waiting.pop_front_if(|w| w.offset < mark) {
            // The promise (D1), at the end where the reply is let go.
            assert!(waiting.offset < self.appender.high_water_mark(), "a 250 is a synced record");
            records += 1;
            if waiting.failed {
                continue;
            }
            let Some(mut connection) = self.take(waiting.key) else {
                // The peer is gone: the record stays (RFC 1047 tells of the duplicate it makes).
                continue;
            };
            connection.replies.release(mark.get());
            connection.released = true;
            self.counters.received(
                usize::from(connection.listener),
                waiting.bytes,
                waiting.recipients,
                self.now.saturating_sub(waiting.ended),
                self.now.saturating_sub(waiting.began),
            );
            self.put(waiting.key, connection);
            self.touch(waiting.key);
        }
        self.counters.batch(records);
    }

    /// Offsets `from..to` will never be acknowledged.
    fn failed(&mut self, from: Offset, to: Offset, refusal: Refusal) {
        for at in 0..self.waiting.len() {
            let waiting = &mut self.waiting[at];
            if waiting.offset < from || waiting.offset >= to || waiting.failed {
                continue;
            }
            waiting.failed = true;
            let key = waiting.key;
            if let Some(mut connection) = self.take(key) {
                for _ in 0..connection.replies.fail(from.get(), refusal) {
                    self.counters.smtp.count_rejected(refusal.code(), refusal.reason());
                }
                connection.released = true;
                self.put(key, connection);
                self.touch(key);
            }
        }
        while self.waiting.pop_front_if(|w| w.failed && w.offset < to).is_some() {}
    }

    // --- sending -----------------------------------------------------------------------------

    fn flush_dirty(&mut self) {
        let mut dirty = mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            let Some(mut connection) = self.take(key) else { continue };
            connection.dirty = false;
            let defer = connection.replies.held() > 0
                && connection.replies.ready() > 0
                && !connection.released
                && !connection.send_under_way
                && connection.phase == Phase::Open;
            connection.released = false;
            if defer {
                if !connection.deferred {
                    connection.deferred = true;
                    self.deferred.push_back((self.now + DEFERRED, key));
                }
            } else {
                self.flush(key, &mut connection);
            }
            self.put(key, connection);
        }
        mem::swap(&mut self.dirty, &mut dirty);
    }

    fn flush_deferred(&mut self) {
        while let Some((_, key)) = self.deferred.pop_front_if(|(at, _)| *at <= self.now) {
            let Some(mut connection) = self.take(key) else { continue };
            connection.deferred = false;
            self.flush(key, &mut connection);
            self.put(key, connection);
        }
    }

    fn flush(&mut self, key: Key, connection: &mut Connection) {
        if connection.send_under_way || connection.phase == Phase::Dead {
            return;
        }
        if connection.replies.ready() > 0 {
            if connection.sending.capacity() == 0 {
                connection.sending = self.spare_vecs.pop().unwrap_or_default();
            }
            connection.sending.clear();
            connection.replies.take_ready(&mut connection.sending);
            connection.send_under_way = true;
            connection.sent_at = self.now;
            // SAFETY: `sending` is not touched until the completion clears `send_under_way`, and
            // the connection stays in the slab until then.
            unsafe {
                self.ring.send(
                    connection.socket.as_raw_fd(),
                    &connection.sending,
                    token(SEND, key),
                );
            }
            return;
        }
        if connection.phase == Phase::Closing && connection.replies.is_empty() {
            if connection.ended || connection.reason == CloseReason::Quit {
                self.shut(connection);
            } else {
                connection.phase = Phase::Lingering;
                connection.sent_at = self.now;
                // SAFETY: a descriptor of ours.
                unsafe { libc::shutdown(connection.socket.as_raw_fd(), libc::SHUT_WR) };
                self.enter(key, connection, self.now + LINGER);
            }
        }
    }

    fn sent(&mut self, key: Key, completion: Completion) {
        let Some(mut connection) = self.take(key) else { return };
        connection.send_under_way = false;
        match completion.outcome() {
            Ok(len) if len == connection.sending.len() => {
                let octets = mem::take(&mut connection.sending);
                if octets.capacity() <= 4096 && self.spare_vecs.len() < 1024 {
                    self.spare_vecs.push(octets);
                }
                self.flush(key, &mut connection);
            }
            _ => self.broken(&mut connection, CloseReason::ClientGone),
        }
        self.put(key, connection);
    }

    // --- time --------------------------------------------------------------------------------

    fn tick(&mut self) {
        self.last_tick = self.now;
        for listener in mem::take(&mut self.accept_again) {
            if self.draining.is_none() {
                self.accept(listener);
            }
        }
        let mut due = mem::take(&mut self.due);
        self.wheel.advance(self.now, &mut due);
        for key in due.drain(..) {
            let Some(mut connection) = self.take(key) else { continue };
            self.deadline(key, &mut connection);
            self.put(key, connection);
            self.touch(key);
        }
        self.due = due;
        // Commit wait: the sender is told to try again long before it gives up by itself.
        let late = self.smtp.limits.commit_wait;
        let overdue = self
            .waiting
            .iter()
            .rev()
            .find(|w| !w.failed && w.ended + late <= self.now)
            .map(|w| w.offset.next());
        if let (Some(to), Some(first)) = (overdue, self.waiting.front().map(|w| w.offset)) {
            self.failed(first, to, Refusal::Timeout);
        }
        if !self.paused.is_empty() {
            self.resume();
        }
        if self.shared.drain_wanted() && self.draining.is_none() {
            self.drain();
        }
        self.publish();
    }

    fn deadline(&mut self, key: Key, connection: &mut Connection) {
        match connection.phase {
            Phase::Dead => return,
            _ if self.now < connection.due => return,
            Phase::Lingering if self.now >= connection.sent_at + LINGER => {
                self.shut(connection);
                return;
            }
            Phase::Lingering => {
                self.enter(key, connection, connection.sent_at + LINGER);
                return;
            }
            Phase::Closing | Phase::Open => {}
        }
        if connection.send_under_way && self.now >= connection.sent_at + SEND_WAIT {
            self.broken(connection, CloseReason::Timeout);
            return;
        }
        if connection.phase == Phase::Open && self.now >= connection.session.deadline() {
            let admission = self.admission();
            let Connection { session, replies, .. } = &mut *connection;
            let event = session.handle_deadline(&mut Context {
                now: self.now,
                config: &self.smtp,
                replies,
                stats: &mut self.counters.smtp,
                admission,
            });
            if let Event::Close = event {
                self.discard(connection);
                connection.phase = Phase::Closing;
                connection.reason = CloseReason::Timeout;
            }
        }
        let next = if connection.phase == Phase::Open {
            connection.session.deadline().min(self.now + SEND_WAIT)
        } else {
            self.now + Duration::from_secs(1)
        };
        self.enter(key, connection, next);
    }

    /// A new command or block may have a nearer deadline than the one before it.
    fn arm(&mut self, key: Key, connection: &mut Connection) {
        let next = connection.session.deadline().min(self.now + SEND_WAIT);
        if connection.phase == Phase::Open && next < connection.due {
            self.enter(key, connection, next);
        }
    }

    fn enter(&mut self, key: Key, connection: &mut Connection, due: Duration) {
        connection.due = due;
        self.wheel.enter(key, due);
    }

    /// D16: no new connections, transactions in progress may finish, the rest gets 421.
    fn drain(&mut self) {
        self.draining = Some(self.now);
        self.shared.published.set_state(ShardState::Draining);
        self.listeners_close();
    }

    fn listeners_close(&mut self) {
        for index in 0..self.listeners.len() {
            // The socket itself stops listening: a connection that nobody will accept would wait
            // for its greeting as long as the drain takes.
            // SAFETY: a descriptor of ours.
            unsafe { libc::shutdown(self.listeners[index].1.as_raw_fd(), libc::SHUT_RDWR) };
            let key = Key { index: index as u32, generation: 0 };
            self.ring.cancel(token(ACCEPT, key), token(CANCEL, key));
        }
    }

    /// Whether a drain has come to its end: every session is over and every record synced, or the
    /// time allowed is used up.
    pub(super) fn drained(&mut self) -> bool {
        let Some(since) = self.draining else { return false };
        let over = self.now.saturating_sub(since) >= self.options.drain;
        for index in 0..self.connections.len() {
            let Some(key) = self.connections[index]
                .as_ref()
                .filter(|c| {
                    c.phase == Phase::Open
                        && (over || !c.session.is_in_mail_data())
                        && c.replies.held() == 0
                })
                .map(|c| Key { index: index as u32, generation: c.generation })
            else {
                continue;
            };
            let Some(mut connection) = self.take(key) else { continue };
            let Connection { session, replies, .. } = &mut *connection;
            session.handle_drain(&mut Context {
                now: self.now,
                config: &self.smtp,
                replies,
                stats: &mut self.counters.smtp,
                admission: Admission::Draining,
            });
            self.discard(&mut connection);
            connection.phase = Phase::Closing;
            connection.reason = CloseReason::Draining;
            self.put(key, connection);
            self.touch(key);
        }
        let idle = self.waiting.is_empty() && self.appender.is_idle();
        idle && (self.open == 0 || self.now.saturating_sub(since) >= self.options.drain + LINGER)
    }

    /// Closes the log behind the last record; the shard's last act.
    pub(super) fn finish(mut self) {
        if let Some(seal) = self.appender.seal() {
            self.segments.seal_now(&seal);
        }
        self.shared.published.set_state(ShardState::Stopped);
        self.shared.finished();
    }

    fn publish(&mut self) {
        self.shared.heartbeat(self.appender.high_water_mark().get());
        let Self { counters, appender, segments, shared, collected_bytes, options, .. } = self;
        shared.published.beat(|| {
            counters.snapshot(appender, segments, *collected_bytes, options.inflight_bytes)
        });
    }

    /// Whether the first segment is at hand.
    pub(super) fn ready(&self) -> bool {
        self.appender.has_segment()
    }

    /// Why the first segment could not be made.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.segments.take_failure()
    }

    /// Begins to take connections.
    pub(super) fn serve_listeners(&mut self) {
        for index in 0..self.listeners.len() {
            self.accept(index as u32);
        }
        self.shared.published.set_state(ShardState::Serving);
    }
}

/// Ranges of the input at hand that belong to one message.
#[derive(Default)]
struct Spans {
    at: [(usize, usize); Spans::MAX],
    len: usize,
}

impl Spans {
    /// A message in one read is one span, or one for each stuffed dot and pipelined chunk.
    const MAX: usize = 8;

    fn push(&mut self, start: usize, end: usize) -> bool {
        if let Some(last) = self.at[..self.len].last_mut()
            && last.1 == start
        {
            last.1 = end;
            return true;
        }
        match self.at.get_mut(self.len) {
            Some(slot) => {
                *slot = (start, end);
                self.len += 1;
                true
            }
            None => false,
        }
    }

    fn list(&self) -> &[(usize, usize)] {
        &self.at[..self.len]
    }

    fn clear(&mut self) {
        self.len = 0;
    }
}

fn memory_of(mail: &Collected) -> u64 {
    let filling = mail.filling.as_ref().map_or(0, |buffer| buffer.capacity());
    (mail.heap.capacity() + filling) as u64
}

fn flags_of(flags: &MailFlags) -> u32 {
    u32::from(flags.eight_bit)
        | u32::from(flags.long_line) << 1
        | u32::from(flags.bare_lf) << 2
        | u32::from(flags.bare_cr) << 3
        | u32::from(flags.nul) << 4
        | u32::from(flags.no_final_crlf) << 5
        | u32::from(flags.chunked) << 6
}

fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn peer_of(socket: &OwnedFd) -> io::Result<std::net::SocketAddr> {
    socket2::SockRef::from(socket)
        .peer_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}
