//! Sending replies.

use std::{collections::VecDeque, io, mem, time::Duration};

use super::{
    Key, LINGER, Services, Side, Submission,
    connection::{Connection, Link, Phase, Waits},
    tuning::SLOW,
};
use crate::metrics::CloseReason;

/// Longest that replies to commands ahead of a message's end wait for its commit, so that one send
/// carries them all. RFC 2920 §3.2 wants the replies to a group sent when its last command has been
/// handled; we own this deviation, bounded.
const DEFERRED: Duration = Duration::from_millis(5);

/// Spare memory for replies: so much is kept, in vectors of this size at most.
const SPARES_MAX: usize = 1024;
const SPARE_BYTES_MAX: usize = 4096;

/// Who has replies to send, who waits and for what, and memory for the next.
#[derive(Default)]
pub(super) struct Outgoing {
    /// To be flushed at the end of this turn.
    dirty: Vec<Key>,
    /// Queues in the order of their times, for each knows one delay only.
    deferred: VecDeque<(Duration, Key)>,
    penalties: VecDeque<(Duration, Key)>,
    slowed: VecDeque<(Duration, Key)>,
    spares: Vec<Vec<u8>>,
}

impl Outgoing {
    /// There may be something to send: it is looked at at the end of this turn.
    pub(super) fn touch(&mut self, key: Key, link: &mut Link) {
        if !mem::replace(&mut link.dirty, true) {
            self.dirty.push(key);
        }
    }

    /// Whether the end of a turn is due.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether replies wait for a commit a moment longer than a turn.
    pub(super) fn defers(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Who was touched in this turn; [`Outgoing::flushed`] takes the memory back.
    pub(super) fn take_dirty(&mut self) -> Vec<Key> {
        mem::take(&mut self.dirty)
    }

    pub(super) fn flushed(&mut self, mut dirty: Vec<Key>) {
        dirty.clear();
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// Whose replies have waited long enough.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<Key> {
        let queues = [&mut self.deferred, &mut self.slowed, &mut self.penalties];
        let mut due = queues.into_iter().filter_map(|q| q.pop_front_if(|(at, _)| *at <= now));
        due.next().map(|(_, key)| key)
    }

    /// Memory for replies.
    pub(super) fn lend(&mut self) -> Vec<u8> {
        self.spares.pop().unwrap_or_default()
    }

    /// Takes memory back that [`Outgoing::lend`] gave.
    pub(super) fn give_back(&mut self, octets: Vec<u8>) {
        self.spares.push(octets);
    }

    /// Takes the memory of what was sent.
    fn recycle(&mut self, mut octets: Vec<u8>) {
        if octets.capacity() <= SPARE_BYTES_MAX && self.spares.len() < SPARES_MAX {
            octets.clear();
            self.spares.push(octets);
        }
    }
}

impl Services {
    /// The end of a turn for a connection that was touched: its replies go, or wait.
    pub(super) fn flush_touched(&mut self, key: Key, connection: &mut Connection) {
        let Connection { link, dialogue, .. } = connection;
        link.dirty = false;
        let released = mem::take(&mut link.released);
        let open = link.phase == Phase::Open;
        let ready = dialogue.replies.ready() > 0;
        let penalty = self.slowness(dialogue);
        if open && link.waits == Waits::Penalty {
            // Goes out when its time has come.
        } else if open && ready && !penalty.is_zero() {
            link.waits = Waits::Penalty;
            let Outgoing { penalties, slowed, .. } = &mut self.outgoing;
            let queue = if penalty > SLOW { penalties } else { slowed };
            queue.push_back((self.now + penalty, key));
        } else if open && ready && !released && dialogue.replies.held() > 0 && !link.send_under_way
        {
            if link.waits == Waits::Nothing {
                link.waits = Waits::Commit;
                self.outgoing.deferred.push_back((self.now + DEFERRED, key));
            }
        } else {
            self.flush(key, connection);
        }
    }

    /// Replies of a connection have waited long enough.
    pub(super) fn flush_due(&mut self, key: Key, connection: &mut Connection) {
        connection.link.waits = Waits::Nothing;
        self.flush(key, connection);
    }

    fn flush(&mut self, key: Key, connection: &mut Connection) {
        if connection.link.send_under_way || connection.link.phase == Phase::Dead {
            return;
        }
        if self.fill(connection) {
            let link = &mut connection.link;
            link.send_under_way = true;
            link.sent_at = self.now;
            let octets = mem::take(&mut link.sending);
            self.submit(Submission::Send { key, socket: link.socket, octets });
            return;
        }
        if connection.link.phase == Phase::Closing && connection.dialogue.replies.is_empty() {
            self.end_tls(connection);
            let link = &mut connection.link;
            if link.ended || link.reason == CloseReason::Quit {
                self.shut(link);
            } else {
                link.phase = Phase::Lingering;
                link.sent_at = self.now;
                self.submit(Submission::Shut { socket: link.socket, side: Side::Sending });
                self.deadlines.enter(key, link, self.now + LINGER);
            }
        }
    }

    /// Puts what may go into `sending`; says whether there is any.
    fn fill(&mut self, connection: &mut Connection) -> bool {
        if connection.tls.as_ref().is_some_and(|state| !state.in_clear) {
            return self.fill_tls(connection);
        }
        let Connection { link, tls, dialogue } = connection;
        let replies = &mut dialogue.replies;
        if replies.ready() == 0 {
            return false;
        }
        // Where all of them go, their memory goes along and nothing is copied.
        let some = replies.ready() < replies.unsent();
        if some && link.sending.capacity() == 0 {
            link.sending = self.outgoing.lend();
        }
        link.sending.clear();
        replies.take_ready(&mut link.sending);
        if let Some(state) = tls
            && replies.is_empty()
        {
            state.in_clear = false;
        }
        true
    }

    pub(super) fn sent(
        &mut self,
        key: Key,
        connection: &mut Connection,
        octets: Vec<u8>,
        result: io::Result<usize>,
    ) {
        connection.link.send_under_way = false;
        match result {
            Ok(len) if len == octets.len() => {
                self.outgoing.recycle(octets);
                self.flush(key, connection);
            }
            _ => self.broken(connection, CloseReason::ClientGone),
        }
    }
}
