//! What is counted while the run goes on.

use std::{ops::Range, sync::Arc};

use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2Serializer},
};
use mailrace_smtp::client::Line;
use serde::{Deserialize, Serialize};

use super::{
    consumer::Ack,
    dialogue::{Fault, Nanos, Observer, Phase, Ticket},
    ledger::Ledger,
    mail::Mail,
};

/// Nanoseconds of the longest latency that is told apart: ten minutes, the longest a client waits
/// for the final reply (RFC 5321 §4.5.3.2.6).
const LATENCY_MAX: u64 = 600_000_000_000;

const SECOND: Nanos = 1_000_000_000;

/// Different refusals whose text is kept.
const SAMPLES_MAX: usize = 32;
/// Characters of such a text.
const SAMPLE_CHARS_MAX: usize = 200;

/// Latencies in nanoseconds, to three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("the bounds are in order")
}

/// Failures by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) connect: u64,
    pub(super) closed: u64,
    pub(super) socket: u64,
    pub(super) timeout: u64,
    pub(super) protocol: u64,
    pub(super) certificate: u64,
    pub(super) handshake: u64,
    pub(super) handshake_timeout: u64,
    pub(super) starttls: u64,
    pub(super) auth: u64,
    pub(super) rejected: u64,
}

impl Faults {
    fn add(&mut self, other: &Self) {
        self.connect += other.connect;
        self.closed += other.closed;
        self.socket += other.socket;
        self.timeout += other.timeout;
        self.protocol += other.protocol;
        self.certificate += other.certificate;
        self.handshake += other.handshake;
        self.handshake_timeout += other.handshake_timeout;
        self.starttls += other.starttls;
        self.auth += other.auth;
        self.rejected += other.rejected;
    }

    fn count(&mut self, fault: Fault) {
        let counter = match fault {
            Fault::Connect => &mut self.connect,
            Fault::Closed => &mut self.closed,
            Fault::Socket => &mut self.socket,
            Fault::Timeout => &mut self.timeout,
            Fault::Protocol => &mut self.protocol,
            Fault::Certificate => &mut self.certificate,
            Fault::Handshake => &mut self.handshake,
            Fault::HandshakeTimeout => &mut self.handshake_timeout,
            Fault::Starttls(_) => &mut self.starttls,
            Fault::Auth(_) => &mut self.auth,
            Fault::Rejected(_) => &mut self.rejected,
        };
        *counter += 1;
    }

    /// TLS handshakes that did not come to their end.
    pub(super) fn handshakes(&self) -> u64 {
        self.certificate + self.handshake + self.handshake_timeout
    }

    pub(super) fn total(&self) -> u64 {
        self.named().iter().map(|(_, count)| count).sum()
    }

    pub(super) fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("connect", self.connect),
            ("closed", self.closed),
            ("socket", self.socket),
            ("timeout", self.timeout),
            ("protocol", self.protocol),
            ("certificate", self.certificate),
            ("handshake", self.handshake),
            ("handshake_timeout", self.handshake_timeout),
            ("starttls", self.starttls),
            ("auth", self.auth),
            ("rejected", self.rejected),
        ]
    }
}

/// TLS handshakes by kind; those that failed are among [`Faults`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Handshakes {
    pub(super) full: u64,
    /// By a ticket of an earlier connection.
    pub(super) resumed: u64,
}

impl Handshakes {
    pub(super) fn count(&mut self, resumed: bool) {
        *(if resumed { &mut self.resumed } else { &mut self.full }) += 1;
    }
}

/// One second of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Interval {
    /// Of its start, from the start of the measured window.
    pub(super) seconds: f64,
    pub(super) length: f64,
    pub(super) acked: u64,
    pub(super) failed: u64,
    pub(super) late_skipped: u64,
    pub(super) bytes: u64,
    /// Response time, seconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    /// From the 250 to a consumer, seconds; none where it was not asked for.
    #[serde(default)]
    pub(super) e2e_p50: Option<f64>,
    #[serde(default)]
    pub(super) e2e_p99: Option<f64>,
    #[serde(default)]
    pub(super) e2e_max: Option<f64>,
}

impl Interval {
    fn add(&mut self, other: &Self) {
        self.acked += other.acked;
        self.failed += other.failed;
        self.late_skipped += other.late_skipped;
        self.bytes += other.bytes;
    }

    /// Takes the quantiles over.
    fn tell(&mut self, response: &Histogram<u64>) {
        self.p50 = response.value_at_quantile(0.5) as f64 / 1e9;
        self.p99 = response.value_at_quantile(0.99) as f64 / 1e9;
        self.max = response.max() as f64 / 1e9;
    }
}

/// What a view shows of a run that goes on.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) acked: u64,
    pub(super) failed: u64,
    pub(super) late_skipped: u64,
    pub(super) bytes: u64,
    pub(super) connections: u64,
    pub(super) connection_errors: u64,
    pub(super) response: Histogram<u64>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            acked: 0,
            failed: 0,
            late_skipped: 0,
            bytes: 0,
            connections: 0,
            connection_errors: 0,
            response: histogram(),
        }
    }
}

impl Snapshot {
    /// Adds another thread's.
    pub(super) fn add(&mut self, other: &Self) {
        self.acked += other.acked;
        self.failed += other.failed;
        self.late_skipped += other.late_skipped;
        self.bytes += other.bytes;
        self.connections += other.connections;
        self.connection_errors += other.connection_errors;
        self.response.add(&other.response).expect("both have the same bounds");
    }
}

/// Counters and histograms of a run. Only messages scheduled within the window count; phases of a
/// connection always do.
#[derive(Debug)]
pub(super) struct Measure {
    mail: Arc<Mail>,
    pub(super) window: Range<Nanos>,
    /// From the scheduled time to the final reply.
    pub(super) response: Histogram<u64>,
    /// From the send of MAIL to the final reply.
    pub(super) service: Histogram<u64>,
    pub(super) phases: [Histogram<u64>; Phase::ALL.len()],
    /// From the scheduled time to the time at which the generator noticed.
    pub(super) lag: Histogram<u64>,
    pub(super) acked: u64,
    pub(super) failed: u64,
    pub(super) late_skipped: u64,
    pub(super) bytes: u64,
    /// Also of warm-up and connections.
    pub(super) connections: u64,
    /// TLS handshakes that stood.
    pub(super) handshakes: Handshakes,
    /// Of messages.
    pub(super) faults: Faults,
    /// Of connections, whether they carried a message or not.
    pub(super) connection_faults: Faults,
    replies: Vec<u64>,
    pub(super) samples: Vec<(u16, String)>,
    pub(super) intervals: Vec<Interval>,
    /// Response times in HdrHistogram's V2 form, one an interval.
    pub(super) interval_histograms: Vec<Vec<u8>>,
    interval: Interval,
    interval_start: Nanos,
    interval_response: Histogram<u64>,
    pub(super) last_ack: Nanos,
    pub(super) ledger: Option<Ledger>,
    pub(super) keeps_ack_times: bool,
    /// Of messages that count.
    pub(super) ack_times: Vec<Ack>,
}

impl Measure {
    pub(super) fn new(mail: Arc<Mail>, ledger: Option<Ledger>) -> Self {
        Self {
            mail,
            window: Nanos::MAX..Nanos::MAX,
            response: histogram(),
            service: histogram(),
            phases: std::array::from_fn(|_| histogram()),
            lag: histogram(),
            acked: 0,
            failed: 0,
            late_skipped: 0,
            bytes: 0,
            connections: 0,
            handshakes: Handshakes::default(),
            faults: Faults::default(),
            connection_faults: Faults::default(),
            replies: vec![0; 400],
            samples: Vec::new(),
            intervals: Vec::new(),
            interval_histograms: Vec::new(),
            interval: Interval::default(),
            interval_start: Nanos::MAX,
            interval_response: histogram(),
            last_ack: 0,
            ledger,
            keeps_ack_times: false,
            ack_times: Vec::new(),
        }
    }

    /// Says which messages count, by their scheduled times.
    pub(super) fn open(&mut self, window: Range<Nanos>) {
        self.interval_start = window.start;
        self.window = window;
    }

    /// Adds what another thread measured; both are finished at the same time.
    pub(super) fn absorb(&mut self, other: Self) {
        let add = |into: &mut Histogram<u64>, from: &Histogram<u64>| {
            into.add(from).expect("both have the same bounds");
        };
        add(&mut self.response, &other.response);
        add(&mut self.service, &other.service);
        add(&mut self.lag, &other.lag);
        for (phase, other) in self.phases.iter_mut().zip(&other.phases) {
            add(phase, other);
        }
        self.acked += other.acked;
        self.failed += other.failed;
        self.late_skipped += other.late_skipped;
        self.bytes += other.bytes;
        self.connections += other.connections;
        self.handshakes.full += other.handshakes.full;
        self.handshakes.resumed += other.handshakes.resumed;
        self.faults.add(&other.faults);
        self.connection_faults.add(&other.connection_faults);
        self.last_ack = self.last_ack.max(other.last_ack);
        for (count, other) in self.replies.iter_mut().zip(&other.replies) {
            *count += other;
        }
        for (code, text) in other.samples {
            self.sample(code, || text);
        }
        if let (Some(ledger), Some(other)) = (&mut self.ledger, &other.ledger) {
            ledger.absorb(other);
        }
        self.ack_times.extend(other.ack_times);
        let others = other.intervals.into_iter().zip(other.interval_histograms);
        for (at, (interval, times)) in others.enumerate() {
            match (self.intervals.get_mut(at), self.interval_histograms.get_mut(at)) {
                (Some(own), Some(own_times)) => {
                    let mut both = unpack(own_times);
                    add(&mut both, &unpack(&times));
                    *own_times = pack(&both);
                    own.add(&interval);
                    own.tell(&both);
                }
                _ => {
                    self.intervals.push(interval);
                    self.interval_histograms.push(times);
                }
            }
        }
    }

    /// Copies what a view shows.
    pub(super) fn snapshot(&self, into: &mut Snapshot) {
        into.acked = self.acked;
        into.failed = self.failed;
        into.late_skipped = self.late_skipped;
        into.bytes = self.bytes;
        into.connections = self.connections;
        into.connection_errors = self.connection_faults.total();
        into.response.clone_from(&self.response);
    }

    /// Reply codes and how often each came.
    pub(super) fn replies(&self) -> impl Iterator<Item = (u16, u64)> {
        let counted = self.replies.iter().enumerate();
        counted.filter(|(_, count)| **count > 0).map(|(at, count)| (at as u16 + 200, *count))
    }

    /// A message that waited for a free connection until it was of no use any more.
    pub(super) fn skip(&mut self, ticket: Ticket, now: Nanos) {
        if self.window.contains(&ticket.scheduled) {
            self.late_skipped += 1;
            self.roll(now);
            self.interval.late_skipped += 1;
        }
    }

    /// The generator took a message off the schedule.
    pub(super) fn took(&mut self, scheduled: Nanos, now: Nanos) {
        if self.window.contains(&scheduled) {
            self.lag.saturating_record(now - scheduled);
        }
    }

    /// The first words that came with a code.
    pub(super) fn words(&self, code: u16) -> Option<&str> {
        let mut samples = self.samples.iter();
        samples.find(|(known, _)| *known == code).map(|(_, text)| text.as_str())
    }

    /// A connection failed.
    pub(super) fn connection_failed(&mut self, fault: Fault) {
        self.connection_faults.count(fault);
    }

    /// Closes the intervals that end before `now`. What comes behind the window counts in its last.
    pub(super) fn roll(&mut self, now: Nanos) {
        loop {
            let end = self.interval_start.saturating_add(SECOND);
            if now < end || end >= self.window.end {
                return;
            }
            self.close_interval(SECOND);
        }
    }

    /// Closes the last interval.
    pub(super) fn finish(&mut self, now: Nanos) {
        self.roll(now);
        if now > self.interval_start {
            self.close_interval(now - self.interval_start);
        }
    }

    /// Keeps the first text of each code.
    fn sample(&mut self, code: u16, text: impl FnOnce() -> String) {
        let is_new = self.samples.iter().all(|(known, _)| *known != code);
        if is_new && self.samples.len() < SAMPLES_MAX {
            self.samples.push((code, text()));
        }
    }

    fn close_interval(&mut self, length: Nanos) {
        let histogram = &mut self.interval_response;
        self.interval.seconds = (self.interval_start - self.window.start) as f64 / 1e9;
        self.interval.length = length as f64 / 1e9;
        self.interval.tell(histogram);
        // Quantiles of a second cannot be added up, its histograms can.
        self.interval_histograms.push(pack(histogram));
        histogram.reset();
        self.intervals.push(self.interval);
        self.interval = Interval::default();
        self.interval_start += length;
    }
}

/// What a server said, fit for a terminal: no control character gets through.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out = String::new();
    for character in text.chars().take(SAMPLE_CHARS_MAX) {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// HdrHistogram's V2 form: a few octets for each different latency.
fn pack(histogram: &Histogram<u64>) -> Vec<u8> {
    let mut octets = Vec::new();
    V2Serializer::new()
        .serialize(histogram, &mut octets)
        .expect("a histogram of our bounds fits its form, and memory takes it");
    octets
}

/// The way back from [`Measure::interval_histograms`].
pub(super) fn unpack(octets: &[u8]) -> Histogram<u64> {
    let mut octets = octets;
    Deserializer::new().deserialize(&mut octets).expect("we packed it ourselves")
}

impl Observer for Measure {
    fn reply(&mut self, line: Line<'_>) {
        self.replies[usize::from(line.code) - 200] += 1;
        if line.code >= 400 {
            self.sample(line.code, || printable(line.text));
        }
    }

    fn phase(&mut self, phase: Phase, since: Nanos, took: Nanos) {
        if phase.is_of_connection() || self.window.contains(&since) {
            self.phases[phase as usize].saturating_record(took);
        }
    }

    fn acked(&mut self, ticket: Ticket, sent: Nanos, now: Nanos) {
        if let Some(ledger) = &mut self.ledger {
            ledger.acked(ticket.sequence);
        }
        if !self.window.contains(&ticket.scheduled) {
            return;
        }
        let bytes = self.mail.bytes(ticket.sequence) as u64;
        self.acked += 1;
        self.bytes += bytes;
        self.last_ack = now;
        if self.keeps_ack_times {
            self.ack_times.push((ticket.sequence, now));
        }
        self.response.saturating_record(now - ticket.scheduled);
        self.service.saturating_record(now - sent);
        self.roll(now);
        self.interval.acked += 1;
        self.interval.bytes += bytes;
        self.interval_response.saturating_record(now - ticket.scheduled);
    }

    fn failed(&mut self, ticket: Ticket, fault: Fault, now: Nanos) {
        if let Some(ledger) = &mut self.ledger {
            ledger.failed(ticket.sequence);
        }
        self.faults.count(fault);
        if self.window.contains(&ticket.scheduled) {
            self.failed += 1;
            self.roll(now);
            self.interval.failed += 1;
        }
    }
}
