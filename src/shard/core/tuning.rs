//! Limits as configured, as in force, and what overload makes of them.

use std::{sync::Arc, time::Duration};

use super::{
    Key, Listener, Services, Submission, TICK,
    connection::{Connection, Dialogue},
    overload::{Ladder, Load, Step},
};
use crate::{
    metrics::OverloadStep,
    shard::{Limits, Options, Settings, flight::Kind},
    smtp::{self, Admission, Entry},
};

/// How long replies wait once the ladder says so.
pub(super) const SLOW: Duration = Duration::from_millis(100);

/// See the module's page.
pub(super) struct Tuning {
    /// As configured.
    configured: Limits,
    /// What is left of them under stress.
    limits: Limits,
    /// The settings of each listener's sessions when there is no stress.
    calm: Vec<Arc<smtp::Config>>,
    ladder: Ladder,
    /// Whose reading is stopped.
    pub(super) paused: Vec<Key>,
    /// Some of them because memory is full or the log does not keep up.
    pub(super) held_up: bool,
    shard: u16,
    abort_on_io_error: bool,
    drain: Duration,
}

impl Tuning {
    pub(super) fn new(options: &Options, listeners: &[Listener]) -> Self {
        Self {
            configured: options.limits.clone(),
            limits: options.limits.clone(),
            calm: listeners.iter().map(|listener| listener.smtp.clone()).collect(),
            ladder: Ladder::default(),
            paused: Vec::new(),
            held_up: false,
            shard: options.shard,
            abort_on_io_error: options.abort_on_io_error,
            drain: options.drain,
        }
    }

    /// The limits in force.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The number of the shard.
    pub(super) fn shard(&self) -> u16 {
        self.shard
    }

    /// How long a drain waits for transactions in progress.
    pub(super) fn drain(&self) -> Duration {
        self.drain
    }

    /// A failed write or sync ends the process (D5).
    pub(super) fn aborts_on_io_error(&self) -> bool {
        self.abort_on_io_error
    }

    /// No connection is accepted for overload.
    /// Whether reading is stopped for some, or overload is not over: each tick looks whether it may go
    /// on.
    pub(super) fn holds_any(&self) -> bool {
        self.held_up || !self.paused.is_empty() || self.ladder.step() > Step::Calm
    }

    pub(super) fn stops_accepting(&self) -> bool {
        self.ladder.step() == Step::StopAccepting
    }

    /// What overload makes of new mail.
    pub(super) fn admission(&self) -> Admission {
        match self.ladder.step() {
            Step::Calm | Step::Stress | Step::Slow => Admission::Open,
            Step::RefuseLow => Admission::OverloadedLow,
            Step::Refuse | Step::CloseNew | Step::StopAccepting => Admission::Overloaded,
        }
    }

    /// What overload makes of new clients.
    pub(super) fn entry(&self) -> Entry {
        match self.ladder.step() >= Step::CloseNew {
            true => Entry::Overloaded,
            false => Entry::Open,
        }
    }
}

/// Whether the limits of sessions have changed.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Retuned {
    No,
    Yes,
}

impl Services {
    /// Takes settings that were given, once a tick.
    pub(super) fn take_settings(&mut self) -> Retuned {
        let Some(settings) = self.shared.take_settings() else { return Retuned::No };
        let Settings { listeners, limits } = &*settings;
        for (at, (smtp, gate)) in listeners.iter().enumerate() {
            let calm = self.tuning.calm.get_mut(at);
            if let (Some(listener), Some(calm)) = (self.listeners.get_mut(at), calm) {
                *calm = smtp.clone();
                listener.gate = gate.clone();
            }
        }
        self.tuning.configured = limits.clone();
        self.submit(Submission::DiskLow(limits.disk_low));
        self.apply_limits();
        Retuned::Yes
    }

    /// Puts the limits of the present step in force.
    pub(super) fn apply_limits(&mut self) {
        let Tuning { configured, limits, calm, ladder, .. } = &mut self.tuning;
        let stress = ladder.step() >= Step::Stress;
        for (listener, calm) in self.listeners.iter_mut().zip(&*calm) {
            listener.smtp = if stress { Arc::new(calm.stressed()) } else { calm.clone() };
        }
        *limits = if stress { configured.stressed() } else { configured.clone() };
        self.gatekeeper.set_limits(limits);
    }

    /// A session keeps deadlines of its own, which hang on the limits.
    pub(super) fn refresh(&mut self, key: Key, connection: &mut Connection) {
        let dialogue = &mut connection.dialogue;
        dialogue.session.refresh(&self.listeners[dialogue.place()].smtp);
        self.arm(key, connection);
    }

    /// Looks how hard it is pressed, once a tick, and goes up or down the ladder.
    pub(super) fn weigh(&mut self, since_last: Duration) -> Retuned {
        let percent = |part: u64, whole: u64| {
            u32::try_from(part.saturating_mul(100) / whole.max(1)).unwrap_or(u32::MAX)
        };
        let limits = &self.tuning.limits;
        let load = Load {
            memory: percent(self.commit.memory(), limits.inflight_bytes),
            commit_wait: self.commit.wait_of_half(self.now),
            sessions: percent(self.gatekeeper.open() as u64, limits.connections_max as u64),
        };
        let was = self.tuning.ladder.step();
        if let Some(at) = label(was) {
            self.counters.overloaded(since_last, at);
        }
        let Some(step) = self.tuning.ladder.weigh(load, self.now) else { return Retuned::No };
        let shard = self.tuning.shard;
        self.record(Kind::Overload, 0, step as u16, 0);
        if step > was {
            tracing::warn!(shard, %load, "overload: {}", step.name());
        } else {
            tracing::info!(shard, %load, "less overload: {}", step.name());
        }
        let stress_changes = (was >= Step::Stress) != (step >= Step::Stress);
        if stress_changes {
            self.apply_limits();
        }
        if was == Step::StopAccepting && self.draining.is_none() {
            (0..self.listeners.len() as u32).for_each(|listener| self.accept(listener));
        } else if step == Step::StopAccepting {
            self.stop_accepting();
            self.acceptor.stop();
        }
        if stress_changes { Retuned::Yes } else { Retuned::No }
    }

    /// How long replies to this client wait.
    pub(super) fn slowness(&self, dialogue: &Dialogue) -> Duration {
        let slow = self.tuning.ladder.step() >= Step::Slow && !dialogue.session.is_exempt();
        let ours = if slow { SLOW } else { Duration::ZERO };
        ours.max(dialogue.session.penalty())
    }
}

fn label(step: Step) -> Option<OverloadStep> {
    Some(match step {
        Step::Calm => return None,
        Step::Stress => OverloadStep::Stress,
        Step::Slow => OverloadStep::Slow,
        Step::RefuseLow => OverloadStep::RefuseLow,
        Step::Refuse => OverloadStep::Refuse,
        Step::CloseNew => OverloadStep::CloseNew,
        Step::StopAccepting => OverloadStep::StopAccepting,
    })
}

const _: () = assert!(TICK.as_millis() < SLOW.as_millis(), "the ladder turns with each tick");
