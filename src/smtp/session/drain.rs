//! The server is about to stop.

use super::super::stats::RejectReason;
use super::{Context, Ending, Session, State};

impl Session {
    /// Whether mail data is on its way, so that a drain waits for its end.
    pub fn is_in_mail_data(&self) -> bool {
        matches!(self.state, State::Data | State::Chunk(_) | State::Verdict { .. })
    }

    /// Ends the session because we could not read on for too long: 421, and the driver closes.
    pub fn handle_overload(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.state, State::Closed(_)) {
            cx.stats.count_rejected(421, RejectReason::Backpressure);
            cx.push_421("4.3.2", "Out of resources, try again later");
            self.state = State::Closed(Ending::Refused);
        }
    }

    /// Ends the session from our side: 421, and the driver closes (RFC 5321 §3.8).
    pub fn handle_drain(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.state, State::Closed(_)) {
            cx.push_421("4.3.2", "Shutting down, try again later");
            self.state = State::Closed(Ending::Draining);
        }
    }
}
