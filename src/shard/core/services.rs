//! What the connections of a shard share, and the operations on one of them.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use super::{
    Entropy, Key, Listener, Side, Submission,
    acceptor::Acceptor,
    commit::Commit,
    connection::{Connection, Dialogue, Link, Phase},
    counters::Counters,
    deadlines::Deadlines,
    events::Throttle,
    gatekeeper::Gatekeeper,
    intake::Starved,
    outgoing::Outgoing,
    tls::Handshakes,
    tuning::Tuning,
};
use crate::{
    metrics::CloseReason,
    policy::Advisor,
    shard::{SharedState, trace::Tracer},
    smtp::{Admission, Context, Ending, Entry, Session},
    stage,
};

/// Octets that one receive can add to the log: a fragment of a large message that was collected
/// before, and 64 KiB of the smallest messages, which grow sixfold by their envelopes.
const TURN_BYTES: u64 = 1 << 20;

/// See the module's page. Each field is an owner with methods of its own; what needs several of
/// them is a method here.
pub(super) struct Services {
    /// The time of this call.
    pub(super) now: Duration,
    pub(super) submissions: VecDeque<Submission>,
    pub(super) listeners: Vec<Listener>,
    pub(super) shared: Arc<SharedState>,
    pub(super) advisor: Arc<dyn Advisor>,
    pub(super) entropy: Entropy,
    pub(super) acceptor: Acceptor,
    pub(super) gatekeeper: Gatekeeper,
    pub(super) starved: Starved,
    pub(super) outgoing: Outgoing,
    pub(super) commit: Commit,
    pub(super) deadlines: Deadlines,
    pub(super) tuning: Tuning,
    pub(super) handshakes: Handshakes,
    pub(super) counters: Counters,
    pub(super) events: Throttle,
    pub(super) tracer: Tracer,
    /// Sessions that want to know something.
    pub(super) asking: Vec<Key>,
    /// Since when the shard drains.
    pub(super) draining: Option<Duration>,
}

impl Services {
    pub(super) fn submit(&mut self, submission: Submission) {
        self.submissions.push_back(submission);
    }

    /// Lends a session what it needs for one call.
    pub(super) fn with_session<T>(
        &mut self,
        dialogue: &mut Dialogue,
        call: impl FnOnce(&mut Session, &mut Context<'_>) -> T,
    ) -> T {
        let admission = self.admission();
        self.with_admission(dialogue, admission, call)
    }

    /// As [`Services::with_session`], where it is known what new work is allowed.
    pub(super) fn with_admission<T>(
        &mut self,
        dialogue: &mut Dialogue,
        admission: Admission,
        call: impl FnOnce(&mut Session, &mut Context<'_>) -> T,
    ) -> T {
        let place = dialogue.place();
        if !dialogue.replies.has_memory() {
            dialogue.replies.lend(self.outgoing.lend());
        }
        let binds = dialogue.tls.as_ref().is_some_and(|tls| tls.channel_binding().is_some());
        let Dialogue { session, replies, .. } = dialogue;
        let mut context = Context {
            now: self.now,
            config: &self.listeners[place].smtp,
            replies,
            stats: &mut self.counters.smtp[place],
            admission,
            room_bytes: self.commit.room(),
            handshakes_full: self.handshakes.are_full(self.tuning.limits()),
            binds_channel: binds,
            notes: self.events.notes(self.tracer.is_on()),
        };
        let result = call(session, &mut context);
        let notes = context.notes;
        if let Some(octets) = replies.give_back() {
            self.outgoing.give_back(octets);
        }
        if let Some(refusals) = dialogue.session.take_refusals() {
            self.tell_refusals(dialogue, &refusals);
        }
        self.events.left_out(notes);
        result
    }

    /// Whether new mail is taken at this moment.
    pub(super) fn admission(&self) -> Admission {
        if self.draining.is_some() {
            Admission::Draining
        } else if self.commit.is_read_only() {
            Admission::LogFailed
        } else if self.commit.is_disk_full() {
            Admission::DiskFull
        } else if self.memory_full() {
            Admission::MemoryFull
        } else {
            self.tuning.admission()
        }
    }

    /// Whether any client is admitted at this moment.
    pub(super) fn entry(&self) -> Entry {
        match self.admission() {
            Admission::Draining => Entry::Draining,
            Admission::LogFailed => Entry::LogFailed,
            Admission::MemoryFull => Entry::MemoryFull,
            // Space may be there by the time of its MAIL.
            Admission::DiskFull => Entry::Open,
            Admission::Open | Admission::OverloadedLow | Admission::Overloaded => {
                self.tuning.entry()
            }
        }
    }

    /// Octets received and not yet durable use up their budget.
    pub(super) fn memory_full(&self) -> bool {
        self.commit.memory() > self.tuning.limits().inflight_bytes
    }

    /// The disk does not keep up: nothing more is read until it has. What was read before still
    /// finds room. Where there will be no room, mail is read and refused.
    pub(super) fn log_full(&self) -> bool {
        self.commit.is_behind(TURN_BYTES)
    }

    /// The stream is dead: nothing more is read or sent; records in the log stay.
    pub(super) fn broken(&mut self, connection: &mut Connection, reason: CloseReason) {
        self.break_off(&mut connection.link, &mut connection.dialogue, reason);
    }

    /// See [`Services::broken`].
    pub(super) fn break_off(
        &mut self,
        link: &mut Link,
        dialogue: &mut Dialogue,
        reason: CloseReason,
    ) {
        if link.phase == Phase::Dead {
            return;
        }
        self.commit.discard(&mut dialogue.mail);
        link.reason = reason;
        self.shut(link);
    }

    /// Nothing more is read or sent; what is under way ends.
    pub(super) fn shut(&mut self, link: &mut Link) {
        link.phase = Phase::Dead;
        self.submit(Submission::Shut { socket: link.socket, side: Side::Both });
    }

    pub(super) fn hung_up(&mut self, connection: &mut Connection, gone: bool) {
        connection.link.watching = false;
        if gone {
            self.broken(connection, CloseReason::ClientGone);
        }
    }

    /// The peer has said all, and all of it is processed.
    pub(super) fn end_of_stream(&mut self, connection: &mut Connection) {
        let Connection { link, dialogue, .. } = connection;
        match link.phase {
            Phase::Open => {
                let planted = stage::planted(stage::Bug::EndOfStreamCompletes);
                if planted && dialogue.session.is_in_mail_data() {
                    let nobody = Key { index: u32::MAX, generation: 0 };
                    self.end_of_mail(nobody, dialogue, &[], &mut super::mail::Spans::default());
                }
                self.with_session(dialogue, |session, context| session.handle_eof(context));
                self.commit.discard(&mut dialogue.mail);
                // Half a close: what was complete is still answered, held replies included.
                link.close(CloseReason::ClientGone);
            }
            Phase::Lingering => link.phase = Phase::Dead,
            Phase::Closing | Phase::Dead => {}
        }
    }

    /// Nothing holds this connection any more: what it had is given back, and it is counted.
    pub(super) fn bury(&mut self, mut connection: Box<Connection>) {
        assert!(connection.is_over(), "nothing is under way at a connection that goes");
        self.commit.forget(&mut connection.dialogue.mail);
        self.end_tls(&mut connection);
        self.tell_session(&connection);
        self.session_closed(&connection);
        let Connection { link, mut dialogue, .. } = *connection;
        let lasted = self.now.saturating_sub(dialogue.session.opened());
        self.counters.closed(dialogue.place(), link.reason, lasted);
        self.uncount(&mut dialogue);
        self.gatekeeper.left();
        let none = self.gatekeeper.open() == 0;
        assert!(!none || self.commit.collects_nothing(), "what is counted is given back");
        self.submit(Submission::Close { socket: link.socket });
    }

    /// Its address counts it no longer.
    pub(super) fn uncount(&mut self, dialogue: &mut Dialogue) {
        if mem::take(&mut dialogue.counted) {
            self.gatekeeper.uncount(dialogue.peer.ip());
        }
    }
}

/// The label of a session's end.
pub(super) fn reason_of(ending: Ending) -> CloseReason {
    match ending {
        Ending::Quit => CloseReason::Quit,
        Ending::Refused => CloseReason::ErrorLimit,
        Ending::Timeout => CloseReason::Timeout,
        Ending::ClientGone => CloseReason::ClientGone,
        Ending::Draining => CloseReason::Draining,
    }
}
