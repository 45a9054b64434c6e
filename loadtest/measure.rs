//! What is counted while the run goes on.

use std::{ops::Range, rc::Rc};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{
    dialogue::{Fault, Nanos, Observer, Phase, Ticket},
    ledger::Ledger,
    mail::Mail,
    reply::Line,
};

/// Nanoseconds of the longest latency that is told apart: ten minutes, the longest a client waits
/// for the final reply (RFC 5321 §4.5.3.2.6).
const LATENCY_MAX: u64 = 600_000_000_000;

const SECOND: Nanos = 1_000_000_000;

/// Different refusals whose text is kept.
const SAMPLES_MAX: usize = 10;

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
    pub(super) rejected: u64,
}

impl Faults {
    fn count(&mut self, fault: Fault) {
        let counter = match fault {
            Fault::Connect => &mut self.connect,
            Fault::Closed => &mut self.closed,
            Fault::Socket => &mut self.socket,
            Fault::Timeout => &mut self.timeout,
            Fault::Protocol => &mut self.protocol,
            Fault::Rejected(_) => &mut self.rejected,
        };
        *counter += 1;
    }

    pub(super) fn total(&self) -> u64 {
        self.named().iter().map(|(_, count)| count).sum()
    }

    pub(super) fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("connect", self.connect),
            ("closed", self.closed),
            ("socket", self.socket),
            ("timeout", self.timeout),
            ("protocol", self.protocol),
            ("rejected", self.rejected),
        ]
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
}

/// Counters and histograms of a run. Only messages scheduled within the window count; phases of a
/// connection always do.
#[derive(Debug)]
pub(super) struct Measure {
    mail: Rc<Mail>,
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
    /// Of messages.
    pub(super) faults: Faults,
    /// Of connections, whether they carried a message or not.
    pub(super) connection_faults: Faults,
    replies: Vec<u64>,
    pub(super) samples: Vec<(u16, String)>,
    pub(super) intervals: Vec<Interval>,
    interval: Interval,
    interval_start: Nanos,
    interval_response: Histogram<u64>,
    pub(super) last_ack: Nanos,
    pub(super) ledger: Option<Ledger>,
}

impl Measure {
    pub(super) fn new(mail: Rc<Mail>, ledger: Option<Ledger>) -> Self {
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
            faults: Faults::default(),
            connection_faults: Faults::default(),
            replies: vec![0; 400],
            samples: Vec::new(),
            intervals: Vec::new(),
            interval: Interval::default(),
            interval_start: Nanos::MAX,
            interval_response: histogram(),
            last_ack: 0,
            ledger,
        }
    }

    /// Says which messages count, by their scheduled times.
    pub(super) fn open(&mut self, window: Range<Nanos>) {
        self.interval_start = window.start;
        self.window = window;
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

    /// A connection failed.
    pub(super) fn connection_failed(&mut self, fault: Fault) {
        self.connection_faults.count(fault);
    }

    /// Closes the intervals that end before `now`.
    pub(super) fn roll(&mut self, now: Nanos) {
        while now >= self.interval_start.saturating_add(SECOND) {
            self.close_interval(SECOND);
        }
    }

    /// Closes the last interval.
    pub(super) fn finish(&mut self, now: Nanos) {
        self.roll(now);
        let length = now.saturating_sub(self.interval_start);
        if self.interval.acked + self.interval.failed > 0 {
            self.close_interval(length.max(1));
        }
    }

    fn close_interval(&mut self, length: Nanos) {
        let histogram = &mut self.interval_response;
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        self.interval.seconds = seconds(self.interval_start - self.window.start);
        self.interval.length = seconds(length);
        self.interval.p50 = seconds(histogram.value_at_quantile(0.5));
        self.interval.p99 = seconds(histogram.value_at_quantile(0.99));
        self.interval.max = seconds(histogram.max());
        histogram.reset();
        self.intervals.push(self.interval);
        self.interval = Interval::default();
        self.interval_start += length;
    }
}

impl Observer for Measure {
    fn reply(&mut self, line: Line<'_>) {
        self.replies[usize::from(line.code) - 200] += 1;
        if line.code >= 400
            && self.samples.len() < SAMPLES_MAX
            && self.samples.iter().all(|(code, _)| *code != line.code)
        {
            let text = String::from_utf8_lossy(line.text).into_owned();
            self.samples.push((line.code, text));
        }
    }

    fn phase(&mut self, phase: Phase, since: Nanos, took: Nanos) {
        let of_connection = matches!(phase, Phase::Connect | Phase::Banner | Phase::Helo);
        if of_connection || self.window.contains(&since) {
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
