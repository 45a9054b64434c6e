//! The verdict plane: started once a listener verifies, and given its rules again at each reload.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::reload::Accepts;
use crate::{
    config::Config,
    dns::{Dns, DnsOptions, servers},
    log::{HighWaterMarks, Log, VerdictMarks},
    metrics::{DnsMetrics, VerdictMetrics},
    policy::Accept,
    verdict::{Judge, ListenerRules, OwnDomains, Plane, PlaneOptions},
};

/// See the module's page.
pub(super) struct Verdicts {
    dir: PathBuf,
    shards: u16,
    marks: Arc<HighWaterMarks>,
    visible: Arc<VerdictMarks>,
    /// Ends of the logs before any mail was taken, for a plane that starts with the server.
    recovered: Vec<u64>,
    dns: DnsMetrics,
    plane: Option<Plane>,
}

impl Verdicts {
    /// None run yet; `recovered` are the ends of the shards' logs before they take mail.
    ///
    /// # Errors
    /// Too many shards.
    pub(super) fn new(
        config: &Config,
        dir: &Path,
        marks: Arc<HighWaterMarks>,
        recovered: Vec<u64>,
        dns: DnsMetrics,
    ) -> io::Result<Self> {
        let shards = u16::try_from(config.server.shards).map_err(io::Error::other)?;
        let visible = Arc::default();
        Ok(Self { dir: dir.to_owned(), shards, marks, visible, recovered, dns, plane: None })
    }

    /// How far verdicts are, for exporters.
    pub(super) fn visible(&self) -> Arc<VerdictMarks> {
        self.visible.clone()
    }

    /// Has mail judged as this configuration says. Once started, the plane stays: without rules it
    /// judges nothing and only follows the log.
    ///
    /// # Errors
    /// A journal that cannot be opened, or no thread.
    pub(super) fn set(&mut self, config: &Config, accept: &Accepts) -> io::Result<()> {
        let rules = rules(config, accept);
        match &self.plane {
            Some(plane) => plane.set_rules(rules),
            None if rules.is_empty() => {}
            None => self.plane = Some(self.start(config, rules)?),
        }
        // What came until now was not to be judged.
        self.recovered.clear();
        Ok(())
    }

    fn start(&self, config: &Config, rules: HashMap<String, ListenerRules>) -> io::Result<Plane> {
        let servers = servers(&config.server.dns_servers);
        let dns = DnsOptions { low_priority: true, ..DnsOptions::new(servers) };
        let judge = Judge::new(Dns::start(&dns, self.dns.clone())?)?;
        Plane::start(PlaneOptions {
            log: Log::open(&self.dir)?,
            shards: self.shards,
            marks: self.marks.clone(),
            begin: self.recovered.clone(),
            visible: self.visible.clone(),
            judge,
            receiver: config.server.hostname.clone(),
            queue_max: config.limits.verify_queue,
            metrics: VerdictMetrics::new(&self.dns),
            rules,
        })
    }
}

/// Of the listeners that verify. A domain is ours wherever a listener takes its mail.
fn rules(config: &Config, accept: &Accepts) -> HashMap<String, ListenerRules> {
    let accepts: Arc<[Arc<Accept>]> = accept.iter().flatten().cloned().collect();
    let own = OwnDomains(Arc::new(move |domain: &str| {
        accepts.iter().any(|accept| accept.names_domain(domain))
    }));
    let verifying = config.listeners.iter().filter_map(|listener| {
        let rules = ListenerRules { methods: listener.verify?, own: own.clone() };
        Some((listener.name.clone(), rules))
    });
    verifying.collect()
}
