//! The orderly end, in three steps: `/readyz` fails, the ports close, what is open is finished.
//!
//! ```text
//!   SIGTERM, POST /v1/drain --> lead: mail is taken, balancers look elsewhere
//!        --> drain (D16): no new session; messages in progress have 30 s --> end of the process
//!   POST /v1/drain?stay=1 --> lead, drain, and then the exporters go on until a signal, or POST
//!        /v1/drain --> end of the process
//! ```
//!
//! Each signal after the first ends the wait under way: the lead, then that for messages in
//! progress.

use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};

use super::signals::Signals;
use crate::{admin, shard::SharedState};

/// How often it looks around.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How often it does where minutes pass.
const LOOK_SELDOM: Duration = Duration::from_millis(50);

/// See the module's page.
pub(super) struct Drain<'a> {
    pub(super) stop: &'a Signals,
    pub(super) shards: &'a [Arc<SharedState>],
    /// Those who ask by the admin API.
    pub(super) asking: admin::DrainRequests,
    /// What was last asked for: whether the server stays and exports.
    pub(super) stay: Cell<Option<bool>>,
}

impl Drain<'_> {
    /// Answers those who ask for a drain with how long the ports stay open; says whether any does.
    pub(super) fn asked(&self, left: Duration) -> bool {
        let mut any = false;
        while let Ok(asking) = self.asking.try_recv() {
            let stops = self.stop.count() > 0 || self.stay.get() == Some(false);
            let answer = (!asking.stay || !stops).then_some(left);
            if answer.is_some() {
                self.stay.set(Some(asking.stay));
            }
            // The client may be gone; its wish stands.
            let _ = asking.answer.send(answer);
            any = true;
        }
        any
    }

    /// Waits while the ports are still open. A second signal ends the wait, and so does the end of
    /// a shard. Returns after how many signals messages in progress are not waited for.
    pub(super) fn lead(&self, lead: Duration, mut meanwhile: impl FnMut()) -> usize {
        let until = Instant::now() + lead;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.asked(left);
            let failed = self.shards.iter().any(|shard| shard.is_finished());
            if left.is_zero() || failed {
                return 2;
            }
            if self.stop.count() >= 2 {
                return 3;
            }
            meanwhile();
            std::thread::sleep(LOOK_EVERY.min(left));
        }
    }

    /// The server stays once its shards have ended.
    pub(super) fn stays(&self) -> bool {
        self.stay.get() == Some(true) && self.stop.count() == 0
    }

    /// Waits for as long as the server stays.
    pub(super) fn hold(&self, mut meanwhile: impl FnMut()) {
        while self.stays() {
            self.asked(Duration::ZERO);
            meanwhile();
            std::thread::sleep(LOOK_SELDOM);
        }
    }

    /// Has every shard drain, and waits for it; for messages in progress until there were `enough`
    /// signals. A drain that the API began had none yet: the SIGTERM of a service manager may
    /// follow, and counts as the first.
    pub(super) fn finish(&self, enough: usize) {
        self.shards.iter().for_each(|shard| shard.ask_to_drain());
        while !self.shards.iter().all(|shard| shard.is_finished()) {
            self.asked(Duration::ZERO);
            if self.stop.count() >= enough {
                self.shards.iter().for_each(|shard| shard.ask_to_hurry());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
