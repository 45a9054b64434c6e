//! A new configuration for a running server: built completely first, then applied everywhere.
//!
//! ```text
//!   SIGHUP, POST /v1/reload --> load and check --> make settings of listeners (files are read)
//!        --> exporters: those that differ stop and start --> retention --> every shard, at its tick
//! ```
//!
//! A failure before the exporters leaves everything as it was. Sessions, and messages in progress,
//! continue under the new settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    listeners::{Bound, Place, advise, limits, listener_settings, reload_certificates},
    recipients::AcceptFiles,
    refusals::RefusalLog,
    retention::Keeper,
    room::DiskRule,
    standing::Standing,
    start::{accepts, exports},
    users,
    verdicts::Verdicts,
};
use crate::{
    admin::{Awaited, Readiness},
    config::{Config, ConfigErrors},
    export,
    log::unix_micros,
    metrics::{DnsMetrics, ExportMetrics, WatchedFiles},
    policy::{Accept, Advisors},
    shard::{Gate, Settings, SharedState, UnixSocket},
    smtp,
};

/// How long shards may take to come to their tick.
const TAKEN: Duration = Duration::from_secs(2);

/// Whose mail each listener takes.
pub(super) type Accepts = Vec<Option<Arc<Accept>>>;

/// See the module's page.
pub(super) struct Reloader {
    /// What the server was started with: keys that need a restart still mean this.
    pub(super) started: Config,
    /// What was last taken up.
    pub(super) current: Config,
    /// The same, where it needs a restart as at the start: what the server goes by.
    pub(super) in_force: Config,
    pub(super) listeners: Vec<Bound>,
    pub(super) shards: Vec<Arc<SharedState>>,
    pub(super) plane: export::Plane,
    pub(super) keeper: Keeper,
    pub(super) disk_rule: DiskRule,
    pub(super) admin: Option<SocketAddr>,
    pub(super) metrics: ExportMetrics,
    pub(super) advisors: Arc<Advisors>,
    pub(super) dns: DnsMetrics,
    pub(super) accept_files: AcceptFiles,
    pub(super) unusable: Unusable,
    /// Of each listener in force, as the configuration orders them.
    pub(super) accept: Accepts,
    pub(super) verdicts: Verdicts,
    pub(super) refusals: RefusalLog,
    pub(super) standing: Standing,
    pub(super) ready: Arc<Readiness>,
}

/// Files that changed and cannot be used: what was read before is in force.
pub(super) type Unusable = BTreeMap<WatchedFiles, BTreeSet<PathBuf>>;

/// Of each listener, in the order of the start.
type ListenerSettings = Vec<(Arc<smtp::Config>, Arc<Gate>)>;

/// Where a listener of the start stands in a configuration.
fn place_of(config: &Config, bound: &Bound) -> usize {
    let at = config.listeners.iter().position(|listener| listener.name == bound.name);
    at.expect("each listener of the start is kept")
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
                tracing::error!("keeping the previous configuration");
            }
        }
        outcome
    }

    /// Notes that what is in force is what was last read.
    pub(super) fn taken_up(&self) {
        self.ready.set_awaited(Awaited {
            exporters: self.in_force.exports.iter().map(|export| export.name.clone()).collect(),
            every_group: self.in_force.log.retention.require_consumed,
        });
        self.metrics.reload_ok.set(1);
        self.metrics.reloaded.set(unix_micros() as f64 / 1e6);
    }

    /// Loads files of domains and recipients that have changed. Where one cannot be used, what was
    /// loaded before stays in force.
    pub(super) fn look_at_recipients(&mut self) {
        if !self.accept_files.have_changed(&self.current) {
            return;
        }
        match self.listener_settings(&self.in_force) {
            Ok((listeners, accept)) => {
                self.unusable.remove(&WatchedFiles::Recipients);
                let config = self.in_force.clone();
                self.verify(&config, &accept);
                self.give(listeners, &config);
                self.accept = accept;
                self.look_at_standing();
                tracing::info!("files of domains and recipients changed and were loaded");
            }
            Err(errors) => {
                for error in &errors.0 {
                    tracing::error!("{error}; keeping the previous domains and recipients");
                }
                let files = errors.0.into_iter().filter_map(|error| error.file).collect();
                self.unusable.insert(WatchedFiles::Recipients, files);
            }
        }
        self.show_unusable();
    }

    /// Loads certificates and users whose files have changed.
    pub(super) fn look_at_files(&mut self) {
        self.listeners.iter().for_each(reload_certificates);
        users::look(&self.advisors, self.unusable.entry(WatchedFiles::Users).or_default());
        let tls = self.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        // Listeners share files, and places of one listener share its TLS.
        let certificates = tls.flat_map(|tls| tls.unusable()).map(|files| files.cert_file);
        self.unusable.insert(WatchedFiles::Certificates, certificates.collect());
        self.show_unusable();
    }

    fn show_unusable(&self) {
        for kind in WatchedFiles::ALL {
            let count = self.unusable.get(&kind).map_or(0, BTreeSet::len);
            self.metrics.files_unusable(kind, count);
        }
    }

    /// What sessions of each listener go by, in the order of `self.listeners`.
    fn listener_settings(
        &self,
        taken: &Config,
    ) -> Result<(ListenerSettings, Accepts), ConfigErrors> {
        let accept = taken.load_accept()?;
        let senders = taken.load_senders()?;
        let settings = self.listeners.iter().map(|bound| {
            let at = place_of(taken, bound);
            let (listener, accept) = (&taken.listeners[at], accept[at].clone());
            listener_settings(taken, listener, accept, senders[at].clone(), bound.tls.is_some())
        });
        Ok((settings.collect(), accept))
    }

    /// Has the shards go by these settings, and waits until they do.
    fn give(&self, listeners: ListenerSettings, taken: &Config) {
        let settings = Arc::new(Settings { listeners, limits: limits(taken) });
        for shard in &self.shards {
            shard.give_settings(settings.clone());
        }
        let until = Instant::now() + TAKEN;
        while !self.shards.iter().all(|shard| shard.has_taken_settings() || shard.is_finished()) {
            if Instant::now() >= until {
                tracing::warn!("a shard has not applied the new configuration yet");
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn take_up(&mut self, new: Config) -> Result<Vec<String>, String> {
        let taken = new.as_taken_by(&self.started);
        taken.check_running().map_err(|errors| errors.to_string())?;
        let accept_files = AcceptFiles::new(&taken);
        let (listeners, accept) =
            self.listener_settings(&taken).map_err(|errors| errors.to_string())?;
        let mut certificates = Vec::new();
        for bound in &self.listeners {
            let listener = &taken.listeners[place_of(&taken, bound)];
            let files = taken.certificates(listener);
            if let Some(tls) = bound.tls.as_ref().filter(|_| !files.is_empty()) {
                let prepared = tls.prepare(&files);
                let prepared =
                    prepared.map_err(|error| format!("listener {}: {error}", listener.name))?;
                certificates.push((tls.clone(), prepared));
            }
        }
        let users = taken.open_users().map_err(|errors| errors.to_string())?;
        let users = users::serve(users)?;
        advise(&self.advisors, &taken, &self.dns).map_err(|error| format!("dns: {error}"))?;
        let exporters = match self.plane.replace(exports(&taken, self.admin)) {
            Ok(exporters) => exporters,
            Err(error) => {
                advise(&self.advisors, &self.in_force, &self.dns)
                    .unwrap_or_else(|error| tracing::error!("dns: {error}"));
                return Err(error.to_string());
            }
        };
        self.advisors.set_users(users);
        let told = taken.exports.iter().map(|export| export.name.clone()).collect();
        self.keeper.change(taken.log.retention, told);
        self.disk_rule.set(&taken);
        for (tls, prepared) in certificates {
            tls.install(prepared);
        }
        // Ahead of the sessions that will ask.
        self.verify(&taken, &accept);
        self.give(listeners, &taken);
        self.accept_files = accept_files;
        // All of them were read, and could be.
        self.unusable.clear();
        self.show_unusable();
        let told = self.tell(&new, &exporters);
        self.current = new;
        self.in_force = taken;
        self.accept = accept;
        self.look_at_standing();
        Ok(told)
    }

    /// Begins to look for what makes all mail refused.
    pub(super) fn accepts_at_start(&mut self) {
        self.accept = accepts(&self.current, &self.listeners);
        self.look_at_standing();
    }

    /// Has mail judged as a configuration says.
    fn verify(&mut self, config: &Config, accept: &Accepts) {
        if let Err(error) = self.verdicts.set(config, accept, &self.advisors) {
            tracing::error!(%error, "mail is not judged");
        }
    }

    /// Looks for what makes all mail refused.
    pub(super) fn look_at_standing(&mut self) {
        self.standing.look(&self.in_force, &self.accept, self.advisors.users().as_deref());
    }

    /// What differs, a line for each key.
    fn tell(&self, new: &Config, exporters: &[String]) -> Vec<String> {
        let mut told = Vec::new();
        for change in self.current.changes(new).iter().filter(|change| !change.restart) {
            told.push(format!("{} changed", change.key));
        }
        for change in self.started.changes(new).iter().filter(|change| change.restart) {
            told.push(format!("{} takes effect with the next restart", change.key));
        }
        for bound in &self.listeners {
            let taken = new.listeners.iter().find(|listener| listener.name == bound.name);
            let wants = taken.is_some_and(|listener| !new.certificates(listener).is_empty());
            if wants != bound.tls.is_some() {
                told.push(format!(
                    "TLS of listener {} takes effect with the next restart",
                    bound.name
                ));
            }
        }
        for name in exporters {
            told.push(format!("exporter {name} started, restarted or stopped"));
        }
        if told.is_empty() {
            told.push("no key changed; the files named by keys were read again".to_owned());
        }
        told
    }

    /// Ends what it reloads. Returns the unix sockets that listen.
    pub(super) fn shut_down(self) -> Vec<UnixSocket> {
        // First: what it finds is exported.
        drop(self.verdicts);
        drop(self.refusals);
        self.plane.shut_down();
        drop(self.keeper);
        let places = self.listeners.into_iter().map(|bound| bound.place);
        places.filter_map(Place::into_unix).collect()
    }
}
