//! Received octets: each one that is not processed yet is in an [`Intake`], or in a record that TLS
//! does not have completely.

use std::{collections::VecDeque, time::Duration};

use super::{
    Key, ReceiveBuffer, ReceiveError, Services, Submission,
    connection::{Connection, Dialogue, Link, Phase},
};
use crate::{metrics::CloseReason, stage};

/// Of what piled up while reading was stopped so much is taken at a time, each with a look at the
/// room: as much as a receive brings.
const STEP_BYTES: usize = 16 * 1024;

/// Receives that are started again in a turn for connections that found no buffer: half of the ring's
/// buffers, the other half is for connections that only now have something.
const RETRIES_A_TURN: usize = 64;

/// Connections that had octets when no receive buffer was left, the longest waiting first.
///
/// If all of them were started again at once, those that come last would find no buffer again, turn
/// after turn, however long they have waited: a flood of new connections would keep an old one silent.
#[derive(Default)]
pub(super) struct Starved(VecDeque<Key>);

impl Starved {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose turn it is.
    pub(super) fn take_turn(&mut self) -> Vec<Key> {
        let some = self.0.len().min(RETRIES_A_TURN);
        self.0.drain(..some).collect()
    }
}

/// What a link holds back.
#[derive(Default)]
pub(super) struct Intake {
    /// Receive buffers that came while the log had no room, as they came: not given back to the
    /// kernel, which stops by itself when it has none left.
    pub(super) buffers: Vec<ReceiveBuffer>,
    /// Decrypted, and not yet taken by the session: an incomplete command line, or what had arrived
    /// when reading was stopped. Before the session, what came of a PROXY header.
    pub(super) unread: Vec<u8>,
    /// Reading was stopped then: too many unsent replies, too little memory or a slow log.
    paused: Option<Duration>,
}

impl Intake {
    /// Whether reading is stopped.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Reading goes on; says since when it was stopped.
    pub(super) fn unpause(&mut self) -> Option<Duration> {
        self.paused.take()
    }

    /// Since when reading is stopped.
    pub(super) fn paused_since(&self) -> Option<Duration> {
        self.paused
    }

    /// The octets that the session has not taken are nobody's.
    pub(super) fn forget(&mut self) {
        self.unread = Vec::new();
    }
}

/// Whether the session has begun TLS with what it was given.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Upgrade {
    No,
    Begins,
}

impl Services {
    pub(super) fn received(
        &mut self,
        key: Key,
        connection: &mut Connection,
        more: bool,
        result: Result<Option<ReceiveBuffer>, ReceiveError>,
    ) {
        connection.link.receiving = more;
        match result {
            Ok(Some(mut buffer)) if self.keeps(&connection.link) => {
                if stage::planted(stage::Bug::BufferReused) {
                    buffer.fill(b'#');
                }
                connection.link.intake.buffers.push(buffer);
                self.tuning.held_up = true;
                self.pause(key, &mut connection.link);
            }
            // What outlives the buffer is copied.
            Ok(Some(mut buffer)) => self.take_in(key, connection, &mut buffer),
            Ok(None) => {
                self.note_truncation(connection);
                connection.link.ended = true;
                // What came before it may still wait.
                self.end_if_read(connection);
            }
            // Every buffer is kept: `resume` arms it again.
            Err(ReceiveError::NoBuffer) if self.log_full() => {
                self.pause(key, &mut connection.link);
            }
            // Out of buffers for a moment.
            Err(ReceiveError::NoBuffer) => {
                self.starved.0.push_back(key);
                return;
            }
            // Stopped on purpose.
            Err(ReceiveError::Cancelled) => {}
            Err(ReceiveError::Broken) => self.broken(connection, CloseReason::ClientGone),
        }
        self.receive_again(key, &mut connection.link);
        self.arm(key, connection);
        self.outgoing.touch(key, &mut connection.link);
    }

    /// Whether what is received for it stays in its buffer: while the log has no room, all is kept
    /// so, and memory stays bounded by the ring. Another reason to stop concerns few, who must not
    /// hold the buffers of all.
    fn keeps(&self, link: &Link) -> bool {
        link.phase == Phase::Open && (self.log_full() || !link.intake.buffers.is_empty())
    }

    pub(super) fn receive_again(&mut self, key: Key, link: &mut Link) {
        let reads = !link.intake.is_paused() && !link.ended && link.phase != Phase::Dead;
        if reads && !link.receiving {
            if link.watching {
                self.submit(Submission::StopWatching { key });
            }
            link.receiving = true;
            self.submit(Submission::Receive { key, socket: link.socket });
        }
    }

    /// Octets came in from the socket.
    pub(super) fn take_in(&mut self, key: Key, connection: &mut Connection, octets: &mut [u8]) {
        if connection.dialogue.awaits_header() {
            self.take_header(key, connection, octets);
        } else if connection.tls.is_some() {
            self.decrypt(key, connection, octets);
        } else {
            self.take_plain(key, connection, octets);
        }
    }

    /// Octets for the session came in, or it may go on with those that wait (`octets` is empty).
    pub(super) fn take_plain(&mut self, key: Key, connection: &mut Connection, octets: &[u8]) {
        let Connection { link, dialogue, .. } = connection;
        if self.octets(key, link, dialogue, octets) == Upgrade::Begins {
            self.begin_tls(connection, true);
            // RFC 3207 §4: octets in the clear behind STARTTLS are nobody's, and end the connection.
            // The session refuses those it sees; these waited while nothing was read.
            if !connection.link.intake.unread.is_empty() {
                connection.link.intake.forget();
                self.broken(connection, CloseReason::ErrorLimit);
            }
        }
    }

    /// As [`Services::take_plain`], without the TLS that may begin.
    pub(super) fn octets(
        &mut self,
        key: Key,
        link: &mut Link,
        dialogue: &mut Dialogue,
        octets: &[u8],
    ) -> Upgrade {
        if link.phase != Phase::Open || dialogue.awaits_header() {
            return Upgrade::No;
        }
        if self.holds_up(dialogue) {
            self.tuning.held_up = true;
            self.pause(key, link);
        }
        if dialogue.session.is_waiting_for_answer() && !octets.is_empty() {
            // Who does not wait for the reply is not read: what it may leave here is bounded.
            self.pause(key, link);
        }
        if link.intake.is_paused() {
            link.intake.unread.extend_from_slice(octets);
            return Upgrade::No;
        }
        let upgrade = if link.intake.unread.is_empty() {
            let served = self.serve(key, link, dialogue, octets);
            if let Some(rest) = octets.get(served.taken..).filter(|rest| !rest.is_empty()) {
                link.intake.unread.extend_from_slice(rest);
            }
            served.upgrade
        } else {
            let mut unread = std::mem::take(&mut link.intake.unread);
            unread.extend_from_slice(octets);
            let (taken, upgrade) = self.in_steps(key, link, dialogue, &unread);
            if link.phase == Phase::Open {
                unread.drain(..taken);
                link.intake.unread = unread;
            }
            upgrade
        };
        self.bound_early_talk(key, link, dialogue);
        upgrade
    }

    /// Serves what piled up; returns how much was taken.
    fn in_steps(
        &mut self,
        key: Key,
        link: &mut Link,
        dialogue: &mut Dialogue,
        unread: &[u8],
    ) -> (usize, Upgrade) {
        let mut at = 0;
        loop {
            let step = &unread[at..unread.len().min(at + STEP_BYTES)];
            let served = self.serve(key, link, dialogue, step);
            at += served.taken;
            if served.upgrade == Upgrade::Begins {
                return (at, Upgrade::Begins);
            }
            let stops = served.taken == 0 || at == unread.len() || link.intake.is_paused();
            if stops || link.phase != Phase::Open {
                return (at, Upgrade::No);
            }
            if self.holds_up(dialogue) {
                self.tuning.held_up = true;
                self.pause(key, link);
                return (at, Upgrade::No);
            }
        }
    }

    /// The end of the stream, where all that came before it is processed.
    pub(super) fn end_if_read(&mut self, connection: &mut Connection) {
        let Connection { link, dialogue, .. } = connection;
        if link.ended && !dialogue.reads_later(&link.intake) {
            self.end_of_stream(connection);
        }
    }

    /// Stops reading from a connection; `resume` looks at it again with each tick.
    pub(super) fn pause(&mut self, key: Key, link: &mut Link) {
        if link.intake.paused.is_none() {
            link.intake.paused = Some(self.now);
            self.tuning.paused.push(key);
            if !self.log_full() {
                self.stop_receiving(key, link);
            }
        }
    }

    fn stop_receiving(&mut self, key: Key, link: &mut Link) {
        if link.receiving {
            self.submit(Submission::StopReceiving { key });
        }
        // A peer that is gone must not hold memory as long as we are patient.
        if !link.watching && link.phase != Phase::Dead {
            link.watching = true;
            self.submit(Submission::Watch { key, socket: link.socket });
        }
    }

    /// Serves what was held back, as far as nothing holds it up again, and receives on.
    fn serve_kept(&mut self, key: Key, connection: &mut Connection) {
        self.take_plain(key, connection, &[]);
        let mut kept = std::mem::take(&mut connection.link.intake.buffers).into_iter();
        while !connection.link.intake.is_paused()
            && let Some(mut buffer) = kept.next()
        {
            self.take_in(key, connection, &mut buffer);
        }
        connection.link.intake.buffers = kept.collect();
        self.end_if_read(connection);
        self.receive_again(key, &mut connection.link);
    }

    /// Whether what this connection sends has to wait: for memory only a message, for the log all.
    pub(super) fn holds_up(&self, dialogue: &Dialogue) -> bool {
        self.log_full() || self.memory_full() && dialogue.session.is_in_mail_data()
    }

    /// Resumes reading where the reason to stop is gone; ends the connection if it lasts too long.
    pub(super) fn resume(&mut self, key: Key, connection: &mut Connection) {
        let Connection { link, dialogue, .. } = connection;
        let since = link.intake.paused_since().unwrap_or(self.now);
        let limits = &self.listeners[dialogue.place()].smtp.limits;
        // A peer that does not take its replies is dealt with by the deadline of its send, one
        // that talked before its greeting by the end of its wait.
        let unsent =
            dialogue.replies.unsent() > limits.unsent_replies_bytes / 2 || dialogue.wait.is_some();
        let patience = limits.commit_wait.min(limits.data_time);
        let ours = self.holds_up(dialogue);
        if link.phase != Phase::Open {
            link.intake.unpause();
            self.serve_kept(key, connection);
        } else if ours && self.now >= since + patience {
            if !dialogue.awaits_header() {
                self.with_session(dialogue, |session, context| session.handle_overload(context));
            }
            self.commit.discard(&mut dialogue.mail);
            link.intake.forget();
            link.intake.unpause();
            link.close(CloseReason::Timeout);
            self.serve_kept(key, connection);
        } else if unsent || ours || dialogue.session.is_waiting_for_answer() {
            self.tuning.held_up |= ours;
            if link.receiving && !self.log_full() {
                self.stop_receiving(key, link);
            }
            self.tuning.paused.push(key);
        } else {
            link.intake.unpause();
            dialogue.session.postpone(self.now.saturating_sub(since));
            self.serve_kept(key, connection);
        }
        self.outgoing.touch(key, &mut connection.link);
    }
}
