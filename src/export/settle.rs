//! One batch, from the first attempt until each of its records is delivered or dead.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{ErrorClass, Outcome, Record, RetryOptions, SinkError, exporter::Exporter, sink::all};
use mailrace_log::{DeadLetter, unix_micros};

/// How a batch ended.
#[derive(Debug)]
pub(super) enum Settled {
    /// Each record is delivered, or among these.
    Done(Vec<DeadLetter>),
    /// The exporter was stopped before that.
    Stopped,
}

/// Delivers records until each is settled. Only `stop`, or a sink that is gone for good, ends it
/// earlier.
///
/// # Cancellation
/// Dropped, it leaves records that may have been delivered: they count as not delivered.
pub(super) async fn settle(
    exporter: Arc<Exporter>,
    mut pending: Vec<Record>,
    mut stop: watch::Receiver<bool>,
) -> Settled {
    let began = Instant::now();
    let mut dead = Vec::new();
    let mut attempt = 0_u32;
    while !pending.is_empty() {
        attempt += 1;
        let outcomes = tokio::select! {
            // What was answered counts, also when the stop came meanwhile.
            biased;
            outcomes = try_once(&exporter, &pending) => outcomes,
            () = stopped(&mut stop) => return Settled::Stopped,
        };
        let given_up =
            exporter.options.retry.give_up_after.is_some_and(|after| began.elapsed() >= after);
        let mut again = Vec::new();
        let mut worst: Option<SinkError> = None;
        let mut delivered = 0;
        let mut outcomes = outcomes.into_iter();
        for record in pending {
            // A sink that answers for too few has not taken the rest.
            let short = || Outcome::Retry(SinkError::new(ErrorClass::Other, "no outcome"));
            match outcomes.next().unwrap_or_else(short) {
                Outcome::Delivered => {
                    delivered += 1;
                    exporter.metrics.bytes.inc_by(record.data.len() as u64);
                }
                Outcome::Refused(error) => {
                    exporter.refused(&error);
                    exporter.dead_letter(&record.id, &error);
                    dead.push(letter(&record, &error, attempt));
                }
                Outcome::Retry(error) if error.class == ErrorClass::Gone => {
                    exporter.gone(&error);
                    return Settled::Stopped;
                }
                Outcome::Retry(error) if given_up => {
                    exporter.failed(&error);
                    exporter.dead_letter(&record.id, &error);
                    dead.push(letter(&record, &error, attempt));
                }
                Outcome::Retry(error) => {
                    let later = |worst: &SinkError| worst.retry_after < error.retry_after;
                    if worst.as_ref().is_none_or(later) {
                        worst = Some(error);
                    }
                    again.push(record);
                }
            }
        }
        exporter.metrics.delivered.inc_by(delivered);
        exporter.metrics.retried.inc_by(again.len() as u64);
        if delivered > 0 {
            exporter.succeeded();
        }
        pending = again;
        if let Some(error) = worst {
            exporter.failed(&error);
            let wait = backoff(&exporter.options.retry, attempt, jitter())
                .max(error.retry_after.unwrap_or_default());
            tokio::select! {
                biased;
                () = time::sleep(wait) => {}
                () = stopped(&mut stop) => return Settled::Stopped,
            }
        }
    }
    exporter.metrics.dead_lettered.inc_by(dead.len() as u64);
    Settled::Done(dead)
}

/// One attempt. A sink that was not reached last time is asked first whether it is there.
async fn try_once(exporter: &Exporter, records: &[Record]) -> Vec<Outcome> {
    if let Err(error) = exporter.ready().await {
        return all(records, &Outcome::Retry(error));
    }
    let began = Instant::now();
    // Sinks bound each request; this bounds a sink that does not.
    let most = exporter.options.timeout * u32::try_from(records.len() + 1).unwrap_or(u32::MAX);
    let outcomes = match time::timeout(most, exporter.sink.deliver(records)).await {
        Ok(outcomes) => outcomes,
        Err(_) => {
            let error = SinkError::new(
                ErrorClass::Timeout,
                format!("no answer for {} s", most.as_secs_f64()),
            );
            all(records, &Outcome::Retry(error))
        }
    };
    exporter.metrics.requests.observe(began.elapsed().as_secs_f64());
    let lost = |outcome: &Outcome| match outcome {
        Outcome::Retry(error) => matches!(
            error.class,
            ErrorClass::Connect | ErrorClass::Auth | ErrorClass::Missing | ErrorClass::Timeout
        ),
        _ => false,
    };
    if outcomes.iter().any(lost) {
        exporter.unready();
    }
    outcomes
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the plane is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn letter(record: &Record, error: &SinkError, attempts: u32) -> DeadLetter {
    DeadLetter {
        offset: record.id.offset.get(),
        at: unix_micros(),
        class: error.class.name().to_owned(),
        text: error.text.clone(),
        attempts,
        rcpt: None,
    }
}

/// Wait before the attempt after `attempt`: doubled each time, then between half of that and all of
/// it, so that lanes do not come back in step.
fn backoff(retry: &RetryOptions, attempt: u32, jitter: f64) -> Duration {
    let doubled = retry.initial.saturating_mul(1 << (attempt - 1).min(20));
    doubled.min(retry.max).mul_f64(0.5 + jitter / 2.0)
}

/// From 0 to 1; the address space's and the clock's noise is enough.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let noise = mailrace_stage::random().unwrap_or_else(|| RandomState::new().hash_one(0_u8));
    (noise >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = RetryOptions {
            initial: Duration::from_millis(500),
            max: Duration::from_secs(300),
            give_up_after: None,
        };
        let waits: Vec<_> = (1..=12).map(|attempt| backoff(&retry, attempt, 1.0)).collect();
        assert_eq!(waits[0], Duration::from_millis(500));
        assert_eq!(waits[3], Duration::from_secs(4));
        assert_eq!(waits[11], Duration::from_secs(300));
        assert_eq!(backoff(&retry, 2, 0.0), Duration::from_millis(500));
        assert_eq!(backoff(&retry, u32::MAX, 0.5), Duration::from_secs(225));
        assert!((0..100).all(|_| (0.0..=1.0).contains(&jitter())));
    }
}
