//! What a shard counts, and the copy of it that a scrape gets.

use std::{sync::OnceLock, time::Duration};

use super::segments::Segments;
use crate::{
    log::Appender,
    metrics::{
        BackpressureCause, CloseReason, CorruptStage, HandshakeResult, LogOp, Names, OverloadStep,
        RefuseReason, ShardStats, Tally,
    },
    smtp::{AuthResult, Mechanism, ProtocolError, REPLY_CODES, RejectReason, Stats, Verb},
};

/// See the module's page. Plain integers of one shard.
pub(super) struct Counters {
    /// Of the protocol core, one for each listener.
    pub(super) smtp: Vec<Stats>,
    stats: ShardStats,
    /// Operations of the log under way: name, start, octets.
    under_way: Vec<(u64, Duration, u64)>,
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
    pub(super) fn new(shard: u16, listeners: &[&str]) -> Self {
        Self {
            smtp: listeners.iter().map(|_| Stats::default()).collect(),
            stats: ShardStats::new(u32::from(shard), listeners, names()),
            under_way: Vec::new(),
        }
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
        self.stats.listeners[listener].connections += 1;
        self.stats.listeners[listener].sessions_active += 1;
    }

    pub(super) fn refused(&mut self, listener: usize, reason: RefuseReason) {
        self.stats.listeners[listener].refused.increment(reason);
    }

    /// When the certificate of a listener with TLS ends.
    pub(super) fn certificate(&mut self, listener: usize, not_after: i64) {
        let listener = &mut self.stats.listeners[listener];
        listener.tls = true;
        listener.certificate_not_after = not_after;
    }

    pub(super) fn handshake(&mut self, listener: usize, result: HandshakeResult, took: Duration) {
        let listener = &mut self.stats.listeners[listener];
        listener.handshakes.increment(result);
        if let HandshakeResult::Ok = result {
            listener.handshake_duration.record_duration(took);
        }
    }

    pub(super) fn truncated(&mut self, listener: usize) {
        self.stats.listeners[listener].truncated += 1;
    }

    pub(super) fn closed(&mut self, listener: usize, reason: CloseReason, after: Duration) {
        let listener = &mut self.stats.listeners[listener];
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
        let counters = &mut self.stats.listeners[listener];
        counters.messages_received += 1;
        counters.received_bytes += bytes;
        counters.ack_duration.record_duration(ack);
        counters.transaction_duration.record_duration(transaction);
        self.stats.message_size.record(bytes);
        self.stats.message_recipients.record(recipients);
    }

    /// A record is in the log and its 250 found nobody.
    pub(super) fn undelivered(&mut self, listener: usize) {
        self.stats.listeners[listener].replies_undelivered += 1;
    }

    pub(super) fn began(&mut self, op: u64, at: Duration, bytes: u64) {
        self.under_way.push((op, at, bytes));
    }

    fn ended(&mut self, op: u64) -> Option<(Duration, u64)> {
        let at = self.under_way.iter().position(|(name, ..)| *name == op)?;
        let (_, began, bytes) = self.under_way.swap_remove(at);
        Some((began, bytes))
    }

    pub(super) fn written(&mut self, op: u64, at: Duration, good: bool) {
        if let Some((began, bytes)) = self.ended(op) {
            self.stats.log_append_duration.record_duration(at.saturating_sub(began));
            self.stats.log_appended_bytes += bytes;
        }
        if !good {
            self.stats.log_errors.increment(LogOp::Write);
        }
    }

    pub(super) fn synced(&mut self, op: u64, at: Duration, good: bool) {
        if let Some((began, _)) = self.ended(op) {
            self.stats.log_sync_duration.record_duration(at.saturating_sub(began));
        }
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
        segments: &Segments,
        collected: u64,
        limit: u64,
    ) -> Box<ShardStats> {
        let stats = &mut self.stats;
        let mut all = Stats::default();
        for (listener, smtp) in stats.listeners.iter_mut().zip(&self.smtp) {
            all.merge(smtp);
            listener.rejected_transient = rejected(&smtp.rejected_4yz);
            listener.rejected_permanent = rejected(&smtp.rejected_5yz);
        }
        stats.commands.copy_from_slice(&all.commands);
        stats.replies.copy_from_slice(&all.replies);
        stats.protocol_errors.copy_from_slice(&all.protocol_errors);
        for (tally, counts) in stats.auth.iter_mut().zip(&all.auth) {
            *tally = auth(counts);
        }
        stats.inflight_bytes = collected + appender.unsynced_bytes() as u64;
        stats.inflight_limit_bytes = limit;
        stats.log_end_offset = appender.log_end_offset().get();
        stats.log_high_water_mark = appender.high_water_mark().get();
        stats.log_segments = segments.count();
        stats.log_size_bytes = segments.bytes();
        stats.heartbeats += 1;
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
        let label = match reason.name() {
            "size" => Label::Size,
            "recipients" => Label::Recipients,
            "auth" => Label::Auth,
            "backpressure" => Label::Backpressure,
            "disk_full" => Label::DiskFull,
            "log_error" => Label::LogError,
            _ => Label::Policy,
        };
        tally.add(label, *count);
    }
    tally
}
