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
    policy::{Accept, Advisors, Judgement, MessageAdvisor, MessageQuestion, Ticket},
    smtp::Rejection,
    verdict::{
        Decision, Gate, GateQuestion, GateRules, Judge, ListenerRules, OwnDomains, Plane,
        PlaneOptions, RejectCause,
    },
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
    judging: Option<Judging>,
    plane: Option<Plane>,
}

/// What judges, once a listener verifies.
struct Judging {
    judge: Arc<Judge>,
    metrics: VerdictMetrics,
    receiver: String,
    /// For listeners that judge before they accept.
    gate: Option<Arc<Judged>>,
}

impl Verdicts {
    /// Nothing runs yet.
    ///
    /// # Errors
    /// Too many shards.
    pub(super) fn new(
        config: &Config,
        dir: &Path,
        marks: Arc<HighWaterMarks>,
        dns: DnsMetrics,
    ) -> io::Result<Self> {
        let shards = u16::try_from(config.server.shards).map_err(io::Error::other)?;
        Ok(Self {
            dir: dir.to_owned(),
            shards,
            marks,
            visible: Arc::default(),
            recovered: Vec::new(),
            dns,
            judging: None,
            plane: None,
        })
    }

    /// How far verdicts are, for exporters.
    pub(super) fn visible(&self) -> Arc<VerdictMarks> {
        self.visible.clone()
    }

    /// Ends of the shards' logs before they take mail.
    pub(super) fn recovered(&mut self, ends: Vec<u64>) {
        self.recovered = ends;
    }

    /// Has sessions wait for a verdict as this configuration says: ahead of any that may.
    ///
    /// # Errors
    /// No thread.
    pub(super) fn set_gate(
        &mut self,
        config: &Config,
        accept: &Accepts,
        advisors: &Advisors,
    ) -> io::Result<()> {
        let listeners = rules(config, accept);
        if listeners.is_empty() && self.judging.is_none() {
            return Ok(());
        }
        let rules = gate_rules(config, &listeners);
        let judging = match &mut self.judging {
            Some(judging) => judging,
            none => none.insert(Judging::start(config, &self.dns, !rules.is_empty())?),
        };
        judging.set_gate(rules, advisors)
    }

    /// Has mail judged as this configuration says. Once started, plane and gate stay: without rules
    /// the plane only follows the log, and the gate accepts all.
    ///
    /// # Errors
    /// A journal that cannot be opened, or no thread.
    pub(super) fn set(
        &mut self,
        config: &Config,
        accept: &Accepts,
        advisors: &Advisors,
    ) -> io::Result<()> {
        self.set_gate(config, accept, advisors)?;
        let rules = rules(config, accept);
        match (&self.plane, &self.judging) {
            (Some(plane), _) => plane.set_rules(rules),
            (None, None) => {}
            (None, Some(judging)) => {
                self.plane = Some(Plane::start(PlaneOptions {
                    log: Log::open(&self.dir)?,
                    shards: self.shards,
                    marks: self.marks.clone(),
                    begin: self.recovered.clone(),
                    visible: self.visible.clone(),
                    judge: judging.judge.clone(),
                    receiver: judging.receiver.clone(),
                    queue_max: config.limits.verify_queue,
                    metrics: judging.metrics.clone(),
                    rules,
                })?);
            }
        }
        // What came until now was not to be judged.
        self.recovered.clear();
        Ok(())
    }
}

impl Judging {
    /// DNS gets the priority of what waits for it at the start.
    fn start(config: &Config, dns: &DnsMetrics, sessions_wait: bool) -> io::Result<Self> {
        let servers = servers(&config.server.dns_servers);
        let options = DnsOptions { low_priority: !sessions_wait, ..DnsOptions::new(servers) };
        let judge = Arc::new(Judge::new(Dns::start(&options, dns.clone())?)?);
        let (metrics, receiver) = (
            VerdictMetrics::new(dns, &RejectCause::ALL.map(RejectCause::name)),
            config.server.hostname.clone(),
        );
        Ok(Self { judge, metrics, receiver, gate: None })
    }

    fn set_gate(
        &mut self,
        rules: HashMap<String, GateRules>,
        advisors: &Advisors,
    ) -> io::Result<()> {
        match &self.gate {
            Some(gate) => gate.0.set_rules(rules),
            None if rules.is_empty() => {}
            None => {
                let (judge, metrics) = (self.judge.clone(), self.metrics.clone());
                let gate = Gate::start(judge, self.receiver.clone(), metrics, rules)?;
                let gate = Arc::new(Judged(gate));
                advisors.set_messages(gate.clone());
                self.gate = Some(gate);
            }
        }
        Ok(())
    }
}

/// The gate, as shards ask it.
#[derive(Debug)]
struct Judged(Gate);

impl MessageAdvisor for Judged {
    fn ask(&self, question: Box<MessageQuestion>, ticket: Ticket) {
        let MessageQuestion { number, listener, client, helo, mail_from, octets } = *question;
        let question = GateQuestion { listener, client, helo, mail_from, octets };
        let answer = move |decision| MessageQuestion::answer(number, ticket, judgement(decision));
        self.0.ask(question, Box::new(answer));
    }
}

fn judgement(decision: Decision) -> Judgement {
    match decision {
        Decision::Accept => Judgement::Accept,
        Decision::Reject(rejected) => Judgement::Reject(Rejection {
            code: 550,
            enhanced: rejected.enhanced,
            text: rejected.to_string(),
        }),
        Decision::TryAgain => Judgement::Reject(Rejection {
            code: 451,
            enhanced: "4.7.0",
            text: "The sender could not be verified in time, try again later".to_owned(),
        }),
    }
}

/// Of the listeners that judge before they accept.
fn gate_rules(
    config: &Config,
    rules: &HashMap<String, ListenerRules>,
) -> HashMap<String, GateRules> {
    let judging = config.listeners.iter().filter_map(|listener| {
        let reject = listener.reject.as_ref()?;
        let rules = GateRules {
            listener: rules.get(&listener.name)?.clone(),
            reject: reject.rules.clone(),
            deadline: reject.deadline,
            tempfail: reject.tempfail,
        };
        Some((listener.name.clone(), rules))
    });
    judging.collect()
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
