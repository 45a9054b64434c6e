//! The orderly end, in three steps: `/readyz` fails, the ports close, what is open is finished.
//!
//! ```text
//!   SIGTERM, POST /v1/drain --> lead: mail is taken, balancers look elsewhere
//!        --> drain (D16): no new session; messages in progress have 30 s --> end of the process
//! ```
//!
//! Each signal after the first ends the wait under way: the lead, then that for messages in
//! progress.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Signals;
use crate::{admin, shard::SharedState};

/// How often it looks around.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// See the module's page.
pub(super) struct Drain<'a> {
    pub(super) stop: &'a Signals,
    pub(super) shards: &'a [Arc<SharedState>],
    /// Those who ask by the admin API.
    pub(super) asking: admin::DrainRequests,
}

impl Drain<'_> {
    /// Answers those who ask for a drain with how long the ports stay open; says whether any does.
    pub(super) fn asked(&self, left: Duration) -> bool {
        let mut any = false;
        while let Ok(asking) = self.asking.try_recv() {
            // The client may be gone; its wish stands.
            let _ = asking.send(left);
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
