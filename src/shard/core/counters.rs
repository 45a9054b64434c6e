//! What a shard counts, and the copy of it that a scrape gets.

use std::{sync::OnceLock, time::Duration};

use crate::{
    log::Appender,
    metrics::{
        BackpressureCause, CloseReason, CorruptStage, HandshakeResult, Hitters, ListenerStats,
        LogOp, Names, OverloadStep, RefuseReason, ShardStats, Tally,
    },
    smtp::{AuthResult, Lenient, Mechanism, ProtocolError, REPLY_CODES, RejectReason, Stats, Verb},
};

/// See the module's page. Plain integers of one shard.
pub(super) struct Counters {
    /// Of the protocol core, one for each place that is listened at.
    pub(super) smtp: Vec<Stats>,
    /// Of the shard. The driver's gauges are set by [`Counters::snapshot`].
    pub(super) stats: ShardStats,
    /// Who sends the most.
    pub(super) hitters: Hitters,
    /// Of each place that is listened at, its listener's entry in `stats`: a listener has one set
    /// of series, however many addresses and sockets it has.
    entries: Vec<usize>,
}

fn names() -> Names {
    static NAMES: OnceLock<Names> = OnceLock::new();
    *NAMES.get_or_init(|| {
        let leak = |names: Vec<&'static str>| -> &'static [&'static str] { names.leak() };
        let codes = REPLY_CODES.iter().map(|code| -> &'static str { code.to_string().leak() });
        Names {
            commands: leak(Verb::ALL.iter().map(|verb| verb.name()).collect()),
            replies: leak(codes.chain(["other"]).collect()),
            protocol_errors: leak(ProtocolError::ALL.iter().map(|error| error.name()).collect()),
            lenient: leak(Lenient::ALL.iter().map(|way| way.name()).collect()),
            auth_mechanisms: leak(
                Mechanism::ALL
                    .iter()
                    .map(|known| -> &'static str { known.name().to_ascii_lowercase().leak() })
                    .collect(),
            ),
        }
    })
}

impl Counters {
    /// `places` are the listeners' names, one for each address and socket.
    pub(super) fn new(shard: u16, places: &[&str]) -> Self {
        let mut listeners: Vec<&str> = Vec::new();
        let mut entries = Vec::new();
        for place in places {
            let known = listeners.iter().position(|name| name == place);
            entries.push(known.unwrap_or(listeners.len()));
            if known.is_none() {
                listeners.push(place);
            }
        }
        Self {
            smtp: places.iter().map(|_| Stats::default()).collect(),
            stats: ShardStats::new(u32::from(shard), &listeners, names()),
            hitters: Hitters::default(),
            entries,
        }
    }

    /// The counters of the listener that a place belongs to: what is one more is counted where it
    /// happens.
    pub(super) fn listener(&mut self, place: usize) -> &mut ListenerStats {
        &mut self.stats.listeners[self.entries[place]]
    }

    /// What recovery found at the start.
    pub(super) fn recovered(&mut self, truncated_bytes: u64, lost_records: u64) {
        self.stats.log_truncated_bytes = truncated_bytes;
        self.stats.log_corrupt_records.add(CorruptStage::Recovery, lost_records);
    }

    pub(super) fn turn(&mut self, duration: Duration) {
        self.stats.record_turn(duration);
    }

    pub(super) fn connection(&mut self, listener: usize) {
        let listener = self.listener(listener);
        listener.connections += 1;
        listener.sessions_active += 1;
    }

    pub(super) fn refused(&mut self, listener: usize, reason: RefuseReason) {
        self.listener(listener).refused.increment(reason);
    }

    /// When the certificate of a listener with TLS ends.
    pub(super) fn certificate(&mut self, listener: usize, not_after: i64) {
        let listener = self.listener(listener);
        listener.tls = true;
        listener.certificate_not_after = not_after;
    }

    pub(super) fn handshake(&mut self, listener: usize, result: HandshakeResult, took: Duration) {
        let listener = self.listener(listener);
        listener.handshakes.increment(result);
        if let HandshakeResult::Ok = result {
            listener.handshake_duration.record_duration(took);
        }
    }

    pub(super) fn closed(&mut self, listener: usize, reason: CloseReason, after: Duration) {
        let listener = self.listener(listener);
        listener.sessions_active -= 1;
        listener.closed.increment(reason);
        listener.session_duration.record_duration(after);
    }

    pub(super) fn received(
        &mut self,
        listener: usize,
        bytes: u64,
        recipients: u64,
        ack: Duration,
        transaction: Duration,
    ) {
        let counters = self.listener(listener);
        counters.messages_received += 1;
        counters.received_bytes += bytes;
        counters.ack_duration.record_duration(ack);
        counters.transaction_duration.record_duration(transaction);
        self.stats.message_size.record(bytes);
        self.stats.message_recipients.record(recipients);
    }

    pub(super) fn written(&mut self, bytes: u64, took: Duration, good: bool) {
        self.stats.log_append_duration.record_duration(took);
        if good {
            self.stats.log_appended_bytes += bytes;
        } else {
            self.stats.log_errors.increment(LogOp::Write);
        }
    }

    pub(super) fn synced(&mut self, took: Duration, good: bool) {
        self.stats.log_sync_duration.record_duration(took);
        if !good {
            self.stats.log_errors.increment(LogOp::Sync);
        }
    }

    pub(super) fn batch(&mut self, records: u64) {
        self.stats.log_batch_records.record(records);
        self.stats.log_appended_records += records;
    }

    pub(super) fn paused(&mut self, time: Duration, log: bool) {
        let cause = if log { BackpressureCause::Log } else { BackpressureCause::Memory };
        self.stats.backpressure_us.add(cause, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Time at a step of the overload ladder.
    pub(super) fn overloaded(&mut self, time: Duration, step: OverloadStep) {
        self.stats.overload_us.add(step, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// A copy for the scraper, gauges set.
    pub(super) fn snapshot(
        &mut self,
        appender: &Appender,
        collected: u64,
        limit: u64,
        heartbeats: u64,
    ) -> Box<ShardStats> {
        let stats = &mut self.stats;
        let mut all = Stats::default();
        for listener in &mut stats.listeners {
            listener.rejected_transient = Tally::default();
            listener.rejected_permanent = Tally::default();
        }
        for (entry, smtp) in self.entries.iter().zip(&self.smtp) {
            all.merge(smtp);
            let listener = &mut stats.listeners[*entry];
            listener.rejected_transient.merge(&rejected(&smtp.rejected_4yz));
            listener.rejected_permanent.merge(&rejected(&smtp.rejected_5yz));
        }
        stats.commands.copy_from_slice(&all.commands);
        stats.replies.copy_from_slice(&all.replies);
        stats.protocol_errors.copy_from_slice(&all.protocol_errors);
        stats.lenient.copy_from_slice(&all.lenient);
        for (tally, counts) in stats.auth.iter_mut().zip(&all.auth) {
            *tally = auth(counts);
        }
        stats.inflight_bytes = collected + appender.unsynced_bytes() as u64;
        stats.inflight_limit_bytes = limit;
        stats.log_end_offset = appender.log_end_offset().get();
        stats.log_high_water_mark = appender.high_water_mark().get();
        stats.heartbeats = heartbeats;
        Box::new(self.stats.clone())
    }
}

fn auth(counts: &[u64]) -> Tally<crate::metrics::AuthResult> {
    use crate::metrics::AuthResult as Label;
    let mut tally = Tally::default();
    for (result, count) in AuthResult::ALL.iter().zip(counts) {
        let label = match result {
            AuthResult::Ok => Label::Ok,
            AuthResult::Failed => Label::Failed,
            AuthResult::Aborted => Label::Aborted,
            AuthResult::Unavailable => Label::Unavailable,
        };
        tally.add(label, *count);
    }
    tally
}

fn rejected(counts: &[u64]) -> Tally<crate::metrics::RejectReason> {
    use crate::metrics::RejectReason as Label;
    let mut tally = Tally::default();
    for (reason, count) in RejectReason::ALL.iter().zip(counts) {
        let label = match reason {
            RejectReason::Size => Label::Size,
            RejectReason::Recipients => Label::Recipients,
            RejectReason::Policy => Label::Policy,
            RejectReason::Auth => Label::Auth,
            RejectReason::Backpressure => Label::Backpressure,
            RejectReason::DiskFull => Label::DiskFull,
            RejectReason::LogError => Label::LogError,
            RejectReason::Content => Label::Content,
            RejectReason::Verdict => Label::Verdict,
        };
        tally.add(label, *count);
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener on two addresses had two series of one name each, of which Prometheus keeps one.
    #[test]
    fn places_of_one_listener_count_together() {
        let mut counters = Counters::new(0, &["mx", "in", "mx"]);
        for place in [0, 1, 2, 2] {
            counters.connection(place);
            counters.smtp[place].count_rejected(550, RejectReason::Policy);
        }
        counters.closed(2, CloseReason::Quit, Duration::from_secs(1));
        counters.received(0, 10, 1, Duration::ZERO, Duration::ZERO);
        let identity = crate::log::Identity { node: [0; 6], shard: 0 };
        let options = crate::log::Options::default();
        let appender = Appender::new(identity, options, crate::log::Offset::new(0));
        // Taken twice: nothing is added up again.
        counters.snapshot(&appender, 0, 0, 1);
        let copy = counters.snapshot(&appender, 0, 0, 7);
        let seen: Vec<_> = copy
            .listeners
            .iter()
            .map(|listener| {
                let refused =
                    listener.rejected_permanent.count(crate::metrics::RejectReason::Policy);
                (&*listener.name, listener.connections, listener.sessions_active, refused)
            })
            .collect();
        assert_eq!(seen, [("mx", 3, 2, 3), ("in", 1, 1, 1)]);
        assert_eq!(copy.listeners[0].messages_received, 1);
        assert_eq!(copy.heartbeats, 7);
    }

    /// Prometheus keeps each series of each server: 1,500 are what a large machine may have.
    #[test]
    fn a_page_of_32_shards_keeps_to_its_budget_of_series() {
        use crate::metrics::{
            DiskFacts, DnsMetrics, ExportMetrics, Extra, Format, KeptLog, LogFacts, ProcessFacts,
            render,
        };
        let mut shards = Vec::new();
        let mut log = LogFacts::default();
        for shard in 0..32 {
            let mut stats = Counters::new(shard, &["mx", "submission"]).stats;
            stats.listeners.iter_mut().for_each(|listener| listener.tls = true);
            log.kept.push(KeptLog { shard: u32::from(shard), ..KeptLog::default() });
            shards.push(stats);
        }
        let (export, dns) = (ExportMetrics::new(), DnsMetrics::new());
        // As many as errors of exporters have.
        let classes = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        for name in ["kafka", "nats", "s3", "webhook"] {
            let _ = (export.exporter(name, &classes), export.group(name));
        }
        let extra = Extra {
            disk: Some(DiskFacts::default()),
            recovery: Some(Duration::ZERO),
            process: ProcessFacts::read(),
            more: [export.families(false), dns.families(false)].concat(),
            log,
            ..Extra::default()
        };
        let page = String::from_utf8(render(&shards, &extra, Format::Text)).expect("text");
        let series = page.lines().filter(|line| !line.starts_with('#')).count();
        assert!((800..=1_500).contains(&series), "{series} series");
    }
}
