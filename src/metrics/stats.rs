//! What one shard counts.

use super::{
    AuthResult, BackpressureCause, CloseReason, CorruptStage, Distribution, HandshakeResult, LogOp,
    OverloadStep, RefuseReason, RejectClass, RejectReason, Tally,
};
use std::sync::Arc;
use std::time::Duration;

/// Label values that another room owns; each comes with a slice of counters of the same length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Verbs (`ehlo`, `mail`, ... `other`).
    pub commands: &'static [&'static str],
    /// Reply codes (`220`, `250`, ...).
    pub replies: &'static [&'static str],
    /// Reasons of protocol errors (`bare_lf`, `line_too_long`, ...).
    pub protocol_errors: &'static [&'static str],
    /// Ways in which arguments leave the grammar and are taken (`dots`, ...).
    pub lenient: &'static [&'static str],
    /// SASL mechanisms (`plain`, ...).
    pub auth_mechanisms: &'static [&'static str],
}

/// Everything one shard counts, as plain integers.
///
/// Life cycle: made when the shard starts, filled by it alone (shard plane), copied to the scraper
/// through [`super::Published`], merged and rendered there. Counters only grow; gauges are set just
/// before a copy is handed out.
#[derive(Clone, Debug)]
pub struct ShardStats {
    /// Number of the shard, from 0.
    pub shard: u32,
    /// One entry for each listener, in the configuration's order.
    pub listeners: Vec<ListenerStats>,
    /// Label values of the next three fields.
    pub names: Names,
    /// Commands by verb, parallel to `names.commands`.
    pub commands: Vec<u64>,
    /// Replies sent by code, parallel to `names.replies`.
    pub replies: Vec<u64>,
    /// Protocol errors by reason, parallel to `names.protocol_errors`.
    pub protocol_errors: Vec<u64>,
    /// Arguments taken outside the grammar by way, parallel to `names.lenient`.
    pub lenient: Vec<u64>,
    /// AUTH commands by mechanism, parallel to `names.auth_mechanisms`.
    pub auth: Vec<Tally<AuthResult>>,
    /// Size of each acknowledged message, in bytes.
    pub message_size: Distribution,
    /// Recipients of each acknowledged message.
    pub message_recipients: Distribution,
    /// Gauge: message bytes received and not yet durable.
    pub inflight_bytes: u64,
    /// Gauge: this shard's share of `limits.inflight_bytes`.
    pub inflight_limit_bytes: u64,
    /// Time reading was paused, in microseconds.
    pub backpressure_us: Tally<BackpressureCause>,
    /// Time spent at each step of the overload ladder, in microseconds.
    pub overload_us: Tally<OverloadStep>,
    /// Records appended to the log.
    pub log_appended_records: u64,
    /// Bytes appended to the log.
    pub log_appended_bytes: u64,
    /// Duration of each write of a group.
    pub log_append_duration: Distribution,
    /// Duration of each sync.
    pub log_sync_duration: Distribution,
    /// Records made durable by each sync.
    pub log_batch_records: Distribution,
    /// Gauge: next offset to be assigned.
    pub log_end_offset: u64,
    /// Gauge: first offset not yet synced.
    pub log_high_water_mark: u64,
    /// Failed log operations.
    pub log_errors: Tally<LogOp>,
    /// Damaged records found.
    pub log_corrupt_records: Tally<CorruptStage>,
    /// Bytes of torn tails dropped at start.
    pub log_truncated_bytes: u64,
    /// Time spent running tasks, in microseconds.
    pub busy_us: u64,
    /// Loop turns over 10 ms.
    pub stalls: u64,
    /// Heartbeats of the shard.
    pub heartbeats: u64,
}

impl ShardStats {
    /// All zero, for `shard` and these listeners.
    pub fn new(shard: u32, listeners: &[&str], names: Names) -> Self {
        Self {
            shard,
            listeners: listeners.iter().map(|name| ListenerStats::new(name)).collect(),
            names,
            commands: vec![0; names.commands.len()],
            replies: vec![0; names.replies.len()],
            protocol_errors: vec![0; names.protocol_errors.len()],
            lenient: vec![0; names.lenient.len()],
            auth: vec![Tally::default(); names.auth_mechanisms.len()],
            message_size: Distribution::of_sizes(),
            message_recipients: Distribution::of_counts(),
            inflight_bytes: 0,
            inflight_limit_bytes: 0,
            backpressure_us: Tally::default(),
            overload_us: Tally::default(),
            log_appended_records: 0,
            log_appended_bytes: 0,
            log_append_duration: Distribution::of_durations(),
            log_sync_duration: Distribution::of_durations(),
            log_batch_records: Distribution::of_counts(),
            log_end_offset: 0,
            log_high_water_mark: 0,
            log_errors: Tally::default(),
            log_corrupt_records: Tally::default(),
            log_truncated_bytes: 0,
            busy_us: 0,
            stalls: 0,
            heartbeats: 0,
        }
    }

    /// Open sessions of all listeners.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.listeners.iter().map(|listener| listener.sessions_active).sum()
    }

    /// Messages acknowledged by all listeners.
    #[must_use]
    pub fn messages_received(&self) -> u64 {
        self.listeners.iter().map(|listener| listener.messages_received).sum()
    }

    /// Adds time spent running tasks; a turn over 10 ms counts as a stall.
    #[inline]
    pub fn record_turn(&mut self, duration: Duration) {
        self.busy_us += u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.stalls += u64::from(duration > Duration::from_millis(10));
    }

    /// Adds another shard's counters and gauges.
    ///
    /// Offsets are summed like everything else: differences of the sums are still counts.
    ///
    /// # Panics
    ///
    /// If the two were not made with the same listeners and names.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.names, other.names, "all shards of a process count under the same names");
        assert_eq!(self.listeners.len(), other.listeners.len(), "all shards listen alike");
        for (mine, theirs) in self.listeners.iter_mut().zip(&other.listeners) {
            mine.merge(theirs);
        }
        add_all(&mut self.commands, &other.commands);
        add_all(&mut self.replies, &other.replies);
        add_all(&mut self.protocol_errors, &other.protocol_errors);
        add_all(&mut self.lenient, &other.lenient);
        for (mine, theirs) in self.auth.iter_mut().zip(&other.auth) {
            mine.merge(theirs);
        }
        self.message_size.merge(&other.message_size);
        self.message_recipients.merge(&other.message_recipients);
        self.inflight_bytes += other.inflight_bytes;
        self.inflight_limit_bytes += other.inflight_limit_bytes;
        self.backpressure_us.merge(&other.backpressure_us);
        self.overload_us.merge(&other.overload_us);
        self.log_appended_records += other.log_appended_records;
        self.log_appended_bytes += other.log_appended_bytes;
        self.log_append_duration.merge(&other.log_append_duration);
        self.log_sync_duration.merge(&other.log_sync_duration);
        self.log_batch_records.merge(&other.log_batch_records);
        self.log_end_offset += other.log_end_offset;
        self.log_high_water_mark += other.log_high_water_mark;
        self.log_errors.merge(&other.log_errors);
        self.log_corrupt_records.merge(&other.log_corrupt_records);
        self.log_truncated_bytes += other.log_truncated_bytes;
        self.busy_us += other.busy_us;
        self.stalls += other.stalls;
        self.heartbeats += other.heartbeats;
    }
}

/// What one listener of one shard counts.
#[derive(Clone, Debug)]
pub struct ListenerStats {
    /// Name of the listener: the `listener` label.
    pub name: Arc<str>,
    /// Connections accepted.
    pub connections: u64,
    /// Connections refused at the greeting.
    pub refused: Tally<RefuseReason>,
    /// Gauge: open sessions.
    pub sessions_active: u64,
    /// Sessions ended.
    pub closed: Tally<CloseReason>,
    /// Duration of each ended session.
    pub session_duration: Distribution,
    /// Whether it has TLS: only then the next fields mean anything.
    pub tls: bool,
    /// TLS handshakes ended.
    pub handshakes: Tally<HandshakeResult>,
    /// Duration of each established handshake.
    pub handshake_duration: Distribution,
    /// Sessions under TLS whose stream ended without a close_notify.
    pub truncated: u64,
    /// Clients that asked for a server name (SNI) that is none.
    pub malformed_names: u64,
    /// Gauge: when its certificate ends, in seconds since 1970.
    pub certificate_not_after: i64,
    /// Messages acknowledged with 250.
    pub messages_received: u64,
    /// Bytes of the messages acknowledged with 250.
    pub received_bytes: u64,
    /// Records whose peer was gone before its 250 could be sent (RFC 1047).
    pub replies_undelivered: u64,
    /// Messages refused with 4yz.
    pub rejected_transient: Tally<RejectReason>,
    /// Messages refused with 5yz.
    pub rejected_permanent: Tally<RejectReason>,
    /// Last byte of the message received to its 250 written.
    pub ack_duration: Distribution,
    /// MAIL to the final reply.
    pub transaction_duration: Distribution,
}

impl ListenerStats {
    /// All zero.
    pub fn new(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            connections: 0,
            refused: Tally::default(),
            sessions_active: 0,
            closed: Tally::default(),
            session_duration: Distribution::of_durations(),
            tls: false,
            handshakes: Tally::default(),
            handshake_duration: Distribution::of_durations(),
            truncated: 0,
            malformed_names: 0,
            certificate_not_after: 0,
            messages_received: 0,
            received_bytes: 0,
            replies_undelivered: 0,
            rejected_transient: Tally::default(),
            rejected_permanent: Tally::default(),
            ack_duration: Distribution::of_durations(),
            transaction_duration: Distribution::of_durations(),
        }
    }

    /// Counts one refused message.
    #[inline]
    pub fn record_rejected(&mut self, class: RejectClass, reason: RejectReason) {
        match class {
            RejectClass::Transient => self.rejected_transient.increment(reason),
            RejectClass::Permanent => self.rejected_permanent.increment(reason),
        }
    }

    fn merge(&mut self, other: &Self) {
        assert_eq!(self.name, other.name, "all shards listen alike");
        self.connections += other.connections;
        self.refused.merge(&other.refused);
        self.sessions_active += other.sessions_active;
        self.closed.merge(&other.closed);
        self.session_duration.merge(&other.session_duration);
        self.tls |= other.tls;
        self.handshakes.merge(&other.handshakes);
        self.handshake_duration.merge(&other.handshake_duration);
        self.truncated += other.truncated;
        self.malformed_names += other.malformed_names;
        // The same for all shards but for a moment.
        self.certificate_not_after = other.certificate_not_after;
        self.messages_received += other.messages_received;
        self.received_bytes += other.received_bytes;
        self.replies_undelivered += other.replies_undelivered;
        self.rejected_transient.merge(&other.rejected_transient);
        self.rejected_permanent.merge(&other.rejected_permanent);
        self.ack_duration.merge(&other.ack_duration);
        self.transaction_duration.merge(&other.transaction_duration);
    }
}

fn add_all(mine: &mut [u64], theirs: &[u64]) {
    assert_eq!(mine.len(), theirs.len(), "counters run parallel to their names");
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine += theirs;
    }
}
