//! A new configuration for a server that runs: made whole first, then taken up everywhere.
//!
//! ```text
//!   SIGHUP, POST /v1/reload --> load and check --> make settings of listeners (files are read)
//!        --> exporters: those that differ stop and start --> retention --> every shard, at its tick
//! ```
//!
//! Whatever fails before the exporters leaves all as it was. Sessions, and messages in progress, go
//! on under the new settings.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    exports,
    listeners::{Bound, advise, limits, listener_settings},
    retention, users,
};
use crate::{
    config::{Config, DiskLow},
    export,
    log::unix_micros,
    metrics::{DnsMetrics, ExportMetrics},
    policy::Advisors,
    shard::{Settings, SharedState},
};

/// How long shards may take to come to their tick.
const TAKEN: Duration = Duration::from_secs(2);

/// `log.disk.low`, for those who ask for it at each look.
#[derive(Clone)]
pub(super) struct DiskRule(Arc<Mutex<DiskLow>>);

impl DiskRule {
    pub(super) fn new(low: DiskLow) -> Self {
        Self(Arc::new(Mutex::new(low)))
    }

    pub(super) fn get(&self) -> DiskLow {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, low: DiskLow) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = low;
    }
}

/// See the module's page.
pub(super) struct Reloader {
    /// What the server was started with: keys that need a restart still mean this.
    pub(super) started: Config,
    /// What was last taken up.
    pub(super) current: Config,
    pub(super) listeners: Vec<Bound>,
    pub(super) shards: Vec<Arc<SharedState>>,
    pub(super) plane: export::Plane,
    pub(super) keeper: export::Keeper,
    pub(super) disk_rule: DiskRule,
    pub(super) admin: Option<SocketAddr>,
    pub(super) metrics: ExportMetrics,
    pub(super) advisors: Arc<Advisors>,
    pub(super) dns: DnsMetrics,
}

impl Reloader {
    /// Loads the configuration anew and takes it up. What it changed, or why it could not, a line
    /// each; both are logged.
    pub(super) fn reload(&mut self) -> Result<Vec<String>, Vec<String>> {
        let outcome = match self.current.load_again() {
            Ok(new) => self.take_up(new).map_err(|error| vec![error]),
            Err(errors) => Err(errors.0.iter().map(ToString::to_string).collect()),
        };
        match &outcome {
            Ok(told) => {
                self.taken_up();
                tracing::info!("configuration reloaded: {}", told.join("; "));
            }
            Err(errors) => {
                self.metrics.reload_ok.set(0);
                for error in errors {
                    tracing::error!("reload: {error}");
                }
                tracing::error!("the configuration so far stays in force");
            }
        }
        outcome
    }

    /// Notes that what is in force is what was last read.
    pub(super) fn taken_up(&self) {
        self.metrics.reload_ok.set(1);
        self.metrics.reloaded.set(unix_micros() as f64 / 1e6);
    }

    fn take_up(&mut self, new: Config) -> Result<Vec<String>, String> {
        let taken = new.as_taken_by(&self.started);
        let accept = taken.load_accept().map_err(|errors| errors.to_string())?;
        let mut listeners = Vec::new();
        let mut certificates = Vec::new();
        for bound in &self.listeners {
            let at = taken.listeners.iter().position(|listener| listener.name == bound.name);
            let at = at.expect("each listener of the start is kept");
            let (listener, accept) = (&taken.listeners[at], accept[at].clone());
            let files = taken.certificates(listener);
            if let Some(tls) = bound.tls.as_ref().filter(|_| !files.is_empty()) {
                let prepared = tls.prepare(&files);
                let prepared =
                    prepared.map_err(|error| format!("listener {}: {error}", listener.name))?;
                certificates.push((tls.clone(), prepared));
            }
            listeners.push(listener_settings(&taken, listener, accept, bound.tls.is_some()));
        }
        let settings = Arc::new(Settings { listeners, limits: limits(&taken) });
        let users = users::load(&taken)?;
        advise(&self.advisors, &taken, &self.dns).map_err(|error| format!("dns: {error}"))?;
        let exporters = match self.plane.replace(exports(&taken, self.admin)) {
            Ok(exporters) => exporters,
            Err(error) => {
                let before = self.current.as_taken_by(&self.started);
                advise(&self.advisors, &before, &self.dns)
                    .unwrap_or_else(|error| tracing::error!("dns: {error}"));
                return Err(error.to_string());
            }
        };
        self.advisors.set_users(users);
        let told = taken.exports.iter().map(|export| export.name.clone()).collect();
        self.keeper.change(retention(&taken), told);
        self.disk_rule.set(taken.log.disk_low);
        for (tls, prepared) in certificates {
            tls.install(prepared);
        }
        for shard in &self.shards {
            shard.give_settings(settings.clone());
        }
        let until = Instant::now() + TAKEN;
        while !self.shards.iter().all(|shard| shard.has_taken_settings() || shard.is_finished()) {
            if Instant::now() >= until {
                tracing::warn!("a shard has not come to its tick yet");
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let told = self.tell(&new, &exporters);
        self.current = new;
        Ok(told)
    }

    /// What differs, a line for each key.
    fn tell(&self, new: &Config, exporters: &[String]) -> Vec<String> {
        let mut told = Vec::new();
        for change in self.current.changes(new).iter().filter(|change| !change.restart) {
            told.push(format!("{} changed", change.key));
        }
        for change in self.started.changes(new).iter().filter(|change| change.restart) {
            told.push(format!("{} waits for a restart", change.key));
        }
        for bound in &self.listeners {
            let taken = new.listeners.iter().find(|listener| listener.name == bound.name);
            let wants = taken.is_some_and(|listener| !new.certificates(listener).is_empty());
            if wants != bound.tls.is_some() {
                told.push(format!("whether listener {} has TLS waits for a restart", bound.name));
            }
        }
        for name in exporters {
            told.push(format!("exporter {name} started anew, or stopped"));
        }
        if told.is_empty() {
            told.push("no key changed; files were read anew".to_owned());
        }
        told
    }

    /// Ends what it holds.
    pub(super) fn shut_down(self) {
        self.plane.shut_down();
        drop(self.keeper);
    }
}
