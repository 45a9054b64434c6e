//! Settings given while the shard runs, and what overload makes of them.

use std::{mem, sync::Arc, time::Duration};

use super::{
    Key, Shard, Submission, TICK,
    addresses::Bounds,
    connection::Connection,
    overload::{Load, Step},
};
use crate::{metrics::OverloadStep, shard::Settings};

/// How long replies wait once the ladder says so.
pub(super) const SLOW: Duration = Duration::from_millis(100);

impl Shard {
    /// Takes what was given, once a tick.
    pub(super) fn take_settings(&mut self) {
        let Some(settings) = self.shared.take_settings() else { return };
        let Settings { listeners, limits } = &*settings;
        for (at, (smtp, gate)) in listeners.iter().enumerate() {
            if let (Some(listener), Some(calm)) =
                (self.listeners.get_mut(at), self.calm.get_mut(at))
            {
                *calm = smtp.clone();
                listener.gate = gate.clone();
            }
        }
        self.options.limits = limits.clone();
        self.submit(Submission::DiskLow(limits.disk_low));
        self.apply_limits();
        self.refresh_sessions();
    }

    /// Puts the limits of the present step in force.
    pub(super) fn apply_limits(&mut self) {
        let stress = self.ladder.step() >= Step::Stress;
        for (listener, calm) in self.listeners.iter_mut().zip(&self.calm) {
            listener.smtp = if stress { Arc::new(calm.stressed()) } else { calm.clone() };
        }
        self.limits =
            if stress { self.options.limits.stressed() } else { self.options.limits.clone() };
        let limits = &self.limits;
        self.bounds = Bounds::of_shard(
            limits.sessions_per_address,
            limits.session_rate_per_address,
            limits.shards,
        );
    }

    /// Sessions keep deadlines of their own, which hang on the limits.
    fn refresh_sessions(&mut self) {
        for index in 0..self.connections.len() {
            let Some(connection) = &self.connections[index] else { continue };
            let key = Key { index: index as u32, generation: connection.generation };
            let Some(mut connection) = self.take(key) else { continue };
            let listener = usize::from(connection.listener);
            connection.session.refresh(&self.listeners[listener].smtp);
            self.arm(key, &mut connection);
            self.put(key, connection);
        }
    }

    /// Looks how hard it is pressed, once a tick, and goes up or down the ladder.
    pub(super) fn weigh(&mut self, since_last: Duration) {
        let memory = self.collected_bytes + self.appender.unsynced_bytes() as u64;
        let percent = |part: u64, whole: u64| {
            u32::try_from(part.saturating_mul(100) / whole.max(1)).unwrap_or(u32::MAX)
        };
        let waiting = self.waiting.get(self.waiting.len() / 2);
        let load = Load {
            memory: percent(memory, self.limits.inflight_bytes),
            commit_wait: waiting.map_or(Duration::ZERO, |w| self.now.saturating_sub(w.ended)),
            sessions: percent(self.open as u64, self.limits.connections_max as u64),
        };
        let was = self.ladder.step();
        if let Some(at) = label(was) {
            self.counters.overloaded(since_last, at);
        }
        let Some(step) = self.ladder.weigh(load, self.now) else { return };
        let shard = self.options.shard;
        if step > was {
            tracing::warn!(shard, %load, "overload: {}", step.name());
        } else {
            tracing::info!(shard, %load, "less overload: {}", step.name());
        }
        if (was >= Step::Stress) != (step >= Step::Stress) {
            self.apply_limits();
            self.refresh_sessions();
        }
        if was == Step::StopAccepting && self.draining.is_none() {
            for listener in 0..self.listeners.len() {
                self.accept(listener as u32);
            }
        } else if step == Step::StopAccepting {
            self.stop_accepting();
        }
    }

    fn stop_accepting(&mut self) {
        for listener in 0..self.listeners.len() as u32 {
            self.submit(Submission::StopAccepting { listener });
        }
        mem::take(&mut self.accept_again);
    }

    /// How long replies to this connection wait.
    pub(super) fn slowness(&self, connection: &Connection) -> Duration {
        let ours = match self.ladder.step() >= Step::Slow && !connection.session.is_exempt() {
            true => SLOW,
            false => Duration::ZERO,
        };
        ours.max(connection.session.penalty())
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
