//! An orderly end (D16): no new connections, transactions in progress may finish, all others get
//! 421.

use super::{
    Key, LINGER, Services, Submission,
    connection::{Connection, Phase},
};
use crate::{
    metrics::{CloseReason, RefuseReason, ShardState},
    shard::flight::Kind,
    stage,
};

impl Services {
    /// Begins the drain, where it is wanted.
    pub(super) fn drain_if_wanted(&mut self) {
        if self.draining.is_some() || !self.shared.drain_wanted() {
            return;
        }
        self.draining = Some(self.now);
        self.record(Kind::Draining, 0, 0, 0);
        self.shared.published.set_state(ShardState::Draining);
        if self.shared.hands_over() {
            // The sockets stay open in this process for the next one.
            self.stop_accepting();
            return;
        }
        for listener in 0..self.listeners.len() as u32 {
            self.submit(Submission::CloseListener { listener });
        }
    }

    /// Whether transactions in progress are waited for no longer.
    pub(super) fn drain_is_over(&self) -> bool {
        let waited = self.draining.map(|since| self.now.saturating_sub(since));
        waited.is_some_and(|waited| waited >= self.tuning.drain() || self.shared.hurry_wanted())
    }

    /// Ends the session of a connection, unless it brings mail right now; `over`: even then. Mail
    /// that is to be acknowledged is waited for always.
    pub(super) fn drain_one(&mut self, key: Key, connection: &mut Connection, over: bool) {
        let Connection { link, dialogue, .. } = connection;
        let ends = link.phase == Phase::Open
            && (over || !dialogue.session.is_in_mail_data())
            && (dialogue.replies.held() == 0 || stage::planted(stage::Bug::DrainForgets));
        if !ends {
            return;
        }
        if dialogue.awaits_header() || dialogue.wait.is_some() {
            self.counters.refused(dialogue.place(), RefuseReason::Draining);
        }
        if !dialogue.awaits_header() {
            self.with_session(dialogue, |session, context| session.handle_drain(context));
        }
        self.commit.discard(&mut dialogue.mail);
        link.close(CloseReason::Draining);
        self.outgoing.touch(key, link);
    }

    /// Whether the drain has come to its end: every session is over and every record synced, or the
    /// time allowed is used up.
    pub(super) fn is_drained(&self) -> bool {
        let Some(since) = self.draining else { return false };
        if stage::planted(stage::Bug::DrainForgets) {
            return true;
        }
        let late = self.now.saturating_sub(since) >= self.tuning.drain() + LINGER;
        self.commit.is_idle() && (self.gatekeeper.open() == 0 || late)
    }
}
