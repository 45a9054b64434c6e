//! The loop between a shard and its ring: it starts what the shard submits and hands it the
//! completions.
//!
//! A turn: wait on the ring (at most 5 ms, 25 ms where nothing is under way), hand over every completion, let the shard end its turn,
//! start what it submits. Then other tasks of the executor run (heartbeat, segment preparation).

use std::{
    cell::Cell,
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    ring::{self, Ring},
    segments::{self, Segments},
    sockets::{Sockets, has_octets, peer_of},
};
use crate::{
    log::{Op, unix_micros},
    metrics::ShardState,
    policy::Advisor,
    shard::{
        SharedState,
        core::{
            AcceptError, Arrival, Completion, Finished, IDLE, Key, Now, ReceiveError, Shard,
            Submission, TICK,
        },
    },
};

/// A task of the executor is under way whose answer is waited for: so long is slept at most.
const BUSY: Duration = Duration::from_millis(1);

/// What a token says of its operation.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Accept = 1,
    Receive,
    Send,
    Cancel,
    Write,
    Sync,
    Watch,
    Event,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Accept,
        Self::Receive,
        Self::Send,
        Self::Cancel,
        Self::Write,
        Self::Sync,
        Self::Watch,
        Self::Event,
    ];
}

const KIND_SHIFT: u32 = 56;
const GENERATION_MASK: u32 = 0x00ff_ffff;

fn token(kind: Kind, key: Key) -> u64 {
    (kind as u64) << KIND_SHIFT | u64::from(key.generation) << 32 | u64::from(key.index)
}

fn log_token(kind: Kind, op: u64) -> u64 {
    assert!(op >> KIND_SHIFT == 0, "operation numbers stay below 2^56");
    (kind as u64) << KIND_SHIFT | op
}

fn listener_token(listener: u32) -> u64 {
    token(Kind::Accept, Key { index: listener, generation: 0 })
}

/// What a pump is made with.
pub(super) struct Parts {
    pub(super) shard: Shard,
    pub(super) ring: Ring,
    /// Sockets that listen, in the order of the shard's listeners.
    pub(super) listeners: Vec<OwnedFd>,
    pub(super) segments: Segments,
    pub(super) shared: Arc<SharedState>,
    pub(super) advisor: Arc<dyn Advisor>,
}

/// See the module's page.
pub(super) struct Pump {
    parts: Parts,
    sockets: Sockets,
    started: Instant,
    ended: Vec<ring::Completion>,
    /// Operations of the log under way, and since when.
    log_ops: Vec<(u64, Duration)>,
    /// How often the shard is to be woken whatever happens.
    pace: Rc<Cell<Duration>>,
    /// Wakes the shard: see [`event`].
    event: OwnedFd,
}

impl Pump {
    /// # Errors
    /// Where there is no descriptor left.
    pub(super) fn new(mut parts: Parts, pace: Rc<Cell<Duration>>) -> io::Result<Self> {
        let event = event()?;
        parts.shared.answers.wake_by(event.try_clone()?.into());
        parts.ring.watch_event(event.as_raw_fd(), event_token());
        Ok(Self {
            parts,
            sockets: Sockets::default(),
            started: Instant::now(),
            ended: Vec::new(),
            log_ops: Vec::new(),
            pace,
            event,
        })
    }

    /// What it runs.
    pub(super) fn shard(&mut self) -> &mut Shard {
        &mut self.parts.shard
    }

    fn now(&self) -> Now {
        Now { elapsed: self.started.elapsed(), unix_micros: unix_micros() }
    }

    /// One turn. Returns whether there was anything to do.
    ///
    /// # Errors
    /// The ring's own failure, which ends the process.
    pub(super) fn turn(&mut self) -> io::Result<bool> {
        let patience = self.parts.shard.patience();
        if patience.answers > 0 {
            self.parts.ring.wait_for(patience.answers, patience.at_most)?;
        } else {
            let busy = self.parts.segments.busy();
            let wait = if busy { patience.at_most.min(BUSY) } else { patience.at_most };
            self.parts.ring.wait(wait, patience.idle && !busy)?;
            self.pace.set(if patience.at_most == IDLE { IDLE } else { TICK });
        }
        let now = self.now();
        let mut ended = mem::take(&mut self.ended);
        self.parts.ring.reap(&mut ended);
        let worked = !ended.is_empty();
        for completion in ended.drain(..) {
            if let Some(completion) = self.told(completion) {
                self.parts.shard.handle_completion(now, completion);
            }
        }
        self.ended = ended;
        while let Some(completion) = self.parts.segments.poll() {
            self.parts.shard.handle_completion(now, completion);
        }
        self.parts.shard.handle_tick(now);
        self.begin_all();
        if worked {
            let took = self.started.elapsed().saturating_sub(now.elapsed);
            self.parts.shard.note_turn(took);
        }
        Ok(worked)
    }

    /// Lets the background come to its end: a segment that is being made is taken as it is.
    pub(super) async fn settle(&self) {
        self.parts.segments.hurry();
        segments::settle_pool().await;
    }

    /// Closes the log; the shard's last act.
    pub(super) fn finish(self) {
        let Parts { shard, mut segments, shared, .. } = self.parts;
        if let Finished::AtRest(seal) = shard.finish() {
            segments.finish(seal);
        }
        shared.published.set_state(ShardState::Stopped);
        shared.finished();
    }

    /// Begins what the shard has submitted.
    pub(super) fn begin_all(&mut self) {
        while let Some(submission) = self.parts.shard.poll_submission() {
            self.begin(submission);
        }
    }

    fn begin(&mut self, submission: Submission) {
        let Parts { ring, segments, advisor, .. } = &mut self.parts;
        match submission {
            Submission::Accept { listener } => {
                if let Some(descriptor) = self.listener(listener) {
                    self.parts.ring.accept(descriptor, listener_token(listener));
                }
            }
            Submission::StopAccepting { listener } => self.cancel(listener_token(listener)),
            Submission::CloseListener { listener } => {
                if let Some(descriptor) = self.listener(listener) {
                    // The socket itself stops listening: a connection that nobody will accept would
                    // wait for its greeting as long as the drain takes.
                    // SAFETY: a descriptor of ours.
                    unsafe { libc::shutdown(descriptor, libc::SHUT_RDWR) };
                }
                self.cancel(listener_token(listener));
            }
            Submission::Receive { key, socket } => {
                ring.receive(self.sockets.descriptor(socket), token(Kind::Receive, key));
            }
            Submission::StopReceiving { key } => self.cancel(token(Kind::Receive, key)),
            Submission::Watch { key, socket } => {
                ring.hang_up(self.sockets.descriptor(socket), token(Kind::Watch, key));
            }
            Submission::StopWatching { key } => self.cancel(token(Kind::Watch, key)),
            Submission::Send { key, socket, octets } => {
                let socket = self.sockets.descriptor(socket);
                ring.send(socket, octets, key.index, token(Kind::Send, key));
            }
            Submission::Shut { socket, side } => self.sockets.shut(socket, side),
            Submission::Close { socket } => self.sockets.close(socket),
            Submission::Log(Op::Write { op, segment, position, buffer, then_sync }) => {
                let since = self.started.elapsed();
                self.log_ops.push((op, since));
                self.log_ops.extend(then_sync.map(|sync| (sync, since)));
                let then_sync = then_sync.map(|sync| log_token(Kind::Sync, sync));
                let file = segments.file(segment);
                ring.write(file, position, buffer, log_token(Kind::Write, op), then_sync);
            }
            Submission::Log(Op::Sync { op, segment }) => {
                self.log_ops.push((op, self.started.elapsed()));
                ring.sync(segments.file(segment), log_token(Kind::Sync, op));
            }
            Submission::Prepare { number, bytes } => segments.prepare(number, bytes),
            Submission::Hurry => segments.hurry(),
            Submission::Seal(seal) => segments.sealed(*seal),
            Submission::Index(entry) => segments.index(entry),
            Submission::DiskLow(bytes) => segments.set_disk_low(bytes),
            Submission::Ask(asked) => {
                let (question, ticket) = *asked;
                advisor.ask(question, ticket);
            }
            Submission::Abort => abort(),
        }
    }

    fn listener(&self, listener: u32) -> Option<RawFd> {
        self.parts.listeners.get(listener as usize).map(AsRawFd::as_raw_fd)
    }

    fn cancel(&mut self, target: u64) {
        let nobody = Key { index: 0, generation: 0 };
        self.parts.ring.cancel(target, token(Kind::Cancel, nobody));
    }

    /// A completion in the shard's words; `None`: it is none of the shard's.
    fn told(&mut self, completion: ring::Completion) -> Option<Completion> {
        let kind = (completion.user_data >> KIND_SHIFT) as u8;
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind);
        let key = Key {
            index: completion.user_data as u32,
            generation: (completion.user_data >> 32) as u32 & GENERATION_MASK,
        };
        let op = completion.user_data & ((1 << KIND_SHIFT) - 1);
        let more = completion.more();
        Some(match kind.expect("every token was made here") {
            Kind::Accept => {
                let result = self.accepted(key.index, &completion);
                Completion::Accepted { listener: key.index, more, result }
            }
            Kind::Receive => {
                // Also where nothing was received: the buffer goes back.
                let buffer = completion.buffer();
                let len = completion.outcome().unwrap_or(0);
                let buffer = buffer.map(|buffer| self.parts.ring.lend(buffer, len));
                let result = match completion.outcome() {
                    Ok(_) => Ok(buffer.filter(|buffer| !buffer.is_empty())),
                    Err(error) => Err(match error.raw_os_error() {
                        Some(libc::ENOBUFS) => ReceiveError::NoBuffer,
                        Some(libc::ECANCELED) => ReceiveError::Cancelled,
                        _ => ReceiveError::Broken,
                    }),
                };
                Completion::Received { key, more, result }
            }
            Kind::Send => {
                let octets = self.parts.ring.sent(key.index);
                Completion::Sent { key, octets, result: completion.outcome() }
            }
            Kind::Watch => Completion::HungUp { key, gone: completion.outcome().is_ok() },
            Kind::Cancel => return None,
            Kind::Event => {
                // It never ends by itself; where it cannot be, the shard looks each tick.
                if !more && completion.outcome().is_ok() {
                    self.parts.ring.watch_event(self.event.as_raw_fd(), event_token());
                }
                return None;
            }
            Kind::Write => {
                let buffer = self.parts.ring.written(completion.user_data);
                let buffer = buffer.expect("a write has a buffer");
                let (result, took) = (completion.outcome(), self.took(op));
                Completion::Written { op, buffer, result, took }
            }
            Kind::Sync => {
                let result = completion.outcome().map(|_| ());
                Completion::Synced { op, result, took: self.took(op) }
            }
        })
    }

    /// How long an operation of the log took.
    fn took(&mut self, op: u64) -> Duration {
        let Some(at) = self.log_ops.iter().position(|(name, _)| *name == op) else {
            return Duration::ZERO;
        };
        self.started.elapsed().saturating_sub(self.log_ops.swap_remove(at).1)
    }

    fn accepted(
        &mut self,
        listener: u32,
        completion: &ring::Completion,
    ) -> Result<Arrival, AcceptError> {
        let socket = match completion.outcome() {
            // SAFETY: a fresh descriptor of the kernel's, owned by nobody else.
            Ok(_) => unsafe { OwnedFd::from_raw_fd(completion.result) },
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {
                return Err(AcceptError::Cancelled);
            }
            Err(error) => return Err(AcceptError::Failed(error)),
        };
        let Ok(peer) = peer_of(&socket) else { return Err(AcceptError::Gone) };
        let talks = self.parts.shard.wants_first_look(listener, peer) && has_octets(&socket);
        Ok(Arrival { socket: self.sockets.insert(socket), peer, talks })
    }
}

/// An eventfd(2). Nobody reads it: a write is what counts.
fn event() -> io::Result<OwnedFd> {
    // SAFETY: numbers only; a fresh descriptor is owned by nobody else.
    unsafe {
        match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            event => Ok(OwnedFd::from_raw_fd(event)),
        }
    }
}

fn event_token() -> u64 {
    token(Kind::Event, Key { index: 0, generation: 0 })
}

/// Ends the process; the handler of SIGABRT waits for the last lines of the log.
fn abort() {
    tracing::error!("log.on_io_error = \"abort\": the process ends");
    std::process::abort();
}
