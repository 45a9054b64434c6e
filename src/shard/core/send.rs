//! Replies on their way out.

use std::{io, mem, time::Duration};

use super::{
    Key, LINGER, Shard, Side, Submission,
    connection::{Connection, Phase, Waits},
    settings::SLOW,
};
use crate::metrics::CloseReason;

/// Longest that replies to commands ahead of a message's end wait for its commit, so that one send
/// carries them all. RFC 2920 §3.2 wants the replies to a group sent when its last command has been
/// handled; we own this deviation, bounded.
const DEFERRED: Duration = Duration::from_millis(5);

impl Shard {
    pub(super) fn flush_dirty(&mut self) {
        let mut dirty = mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            let Some(mut connection) = self.take(key) else { continue };
            connection.dirty = false;
            let released = mem::take(&mut connection.released);
            let open = connection.phase == Phase::Open;
            let ready = connection.replies.ready() > 0;
            let penalty = self.slowness(&connection);
            if open && connection.waits == Waits::Penalty {
                // Goes out when its time has come.
            } else if open && ready && !penalty.is_zero() {
                connection.waits = Waits::Penalty;
                // Each queue is in the order of its times, for each knows one delay only.
                let queue = if penalty > SLOW { &mut self.penalties } else { &mut self.slowed };
                queue.push_back((self.now + penalty, key));
            } else if open
                && ready
                && !released
                && connection.replies.held() > 0
                && !connection.send_under_way
            {
                if connection.waits == Waits::Nothing {
                    connection.waits = Waits::Commit;
                    self.deferred.push_back((self.now + DEFERRED, key));
                }
            } else {
                self.flush(key, &mut connection);
            }
            self.put(key, connection);
        }
        mem::swap(&mut self.dirty, &mut dirty);
    }

    /// Sends what has waited long enough.
    pub(super) fn flush_waiting(&mut self) {
        loop {
            let due = self
                .deferred
                .pop_front_if(|(at, _)| *at <= self.now)
                .or_else(|| self.slowed.pop_front_if(|(at, _)| *at <= self.now))
                .or_else(|| self.penalties.pop_front_if(|(at, _)| *at <= self.now));
            let Some((_, key)) = due else { break };
            let Some(mut connection) = self.take(key) else { continue };
            connection.waits = Waits::Nothing;
            self.flush(key, &mut connection);
            self.put(key, connection);
        }
    }

    pub(super) fn flush(&mut self, key: Key, connection: &mut Connection) {
        if connection.send_under_way || connection.phase == Phase::Dead {
            return;
        }
        if self.fill(connection) {
            connection.send_under_way = true;
            connection.sent_at = self.now;
            let octets = mem::take(&mut connection.sending);
            self.submit(Submission::Send { key, socket: connection.socket, octets });
            return;
        }
        if connection.phase == Phase::Closing && connection.replies.is_empty() {
            self.end_tls(connection);
            if connection.ended || connection.reason == CloseReason::Quit {
                self.shut(connection);
            } else {
                connection.phase = Phase::Lingering;
                connection.sent_at = self.now;
                self.submit(Submission::Shut { socket: connection.socket, side: Side::Sending });
                self.enter(key, connection, self.now + LINGER);
            }
        }
    }

    /// Puts what may go into `sending`; says whether there is any.
    fn fill(&mut self, connection: &mut Connection) -> bool {
        if connection.tls.as_ref().is_some_and(|state| !state.in_clear) {
            return self.fill_tls(connection);
        }
        if connection.replies.ready() == 0 {
            return false;
        }
        // Where all of them go, their memory goes along and nothing is copied.
        let some = connection.replies.ready() < connection.replies.unsent();
        if some && connection.sending.capacity() == 0 {
            connection.sending = self.spare_vecs.pop().unwrap_or_default();
        }
        connection.sending.clear();
        connection.replies.take_ready(&mut connection.sending);
        if let Some(state) = &mut connection.tls
            && connection.replies.is_empty()
        {
            state.in_clear = false;
        }
        true
    }

    pub(super) fn sent(&mut self, key: Key, mut octets: Vec<u8>, result: io::Result<usize>) {
        let Some(mut connection) = self.take(key) else { return };
        connection.send_under_way = false;
        match result {
            Ok(len) if len == octets.len() => {
                octets.clear();
                if octets.capacity() <= 4096 && self.spare_vecs.len() < 1024 {
                    self.spare_vecs.push(octets);
                }
                self.flush(key, &mut connection);
            }
            _ => self.broken(&mut connection, CloseReason::ClientGone),
        }
        self.put(key, connection);
    }
}
