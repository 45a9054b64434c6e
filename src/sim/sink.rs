//! A scripted sink: it takes records, and loses answers, is late, takes a part, refuses one, or is
//! away.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{ledger::Checked, plan::SinkFault, random::Random};
use crate::export::{ErrorClass, Outcome, Record, Sink, SinkError, SinkFuture, all, staged::rest};

/// What the sink did since somebody looked.
#[derive(Debug)]
pub(super) enum Told {
    /// It has this record: offset, mail data.
    Taken(u64, bytes::Bytes),
    /// And says so.
    Answered(u64),
    /// It refused it.
    Refused(u64),
}

/// The sink's own state, which outlives the server.
#[derive(Debug)]
pub(super) struct Script {
    random: Random,
    faults: BTreeMap<u64, SinkFault>,
    /// First and last delivery of each time it is away.
    outages: Vec<(u64, u64)>,
    deliveries: u64,
    latency: u64,
    /// Records must come in the order of their offsets, replays aside.
    ordered: bool,
    first: u64,
    told: Vec<Told>,
    broken: Option<String>,
    calm: bool,
}

/// Shared between the runs of a server.
#[derive(Clone, Debug)]
pub(super) struct Scripted(pub(super) Arc<Mutex<Script>>);

impl Scripted {
    pub(super) fn new(
        seed: u64,
        faults: BTreeMap<u64, SinkFault>,
        outages: Vec<(u64, u64)>,
        ordered: bool,
        calm: bool,
    ) -> Self {
        let mut random = Random::new(seed, 5);
        let latency = random.skewed(50, 50_000);
        Self(Arc::new(Mutex::new(Script {
            random,
            faults,
            outages,
            deliveries: 0,
            latency,
            ordered,
            first: 0,
            told: Vec::new(),
            broken: None,
            calm,
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it did since the last call.
    pub(super) fn take(&self) -> Checked<Vec<Told>> {
        self.with(|script| match script.broken.take() {
            Some(broken) => Err(broken),
            None => Ok(std::mem::take(&mut script.told)),
        })
    }

    /// No fault from now on.
    pub(super) fn be_calm(&self) {
        self.with(|script| {
            script.faults.clear();
            script.outages.clear();
        });
    }

    /// A server begins: what it delivers may begin further back.
    pub(super) fn restart(&self) {
        self.with(|script| script.first = 0);
    }
}

impl Script {
    fn is_away(&self) -> bool {
        let next = self.deliveries;
        self.outages.iter().any(|(from, to)| (*from..*to).contains(&next))
    }

    /// Takes the first `count` of them.
    fn take(&mut self, records: &[Record], count: usize) {
        for record in &records[..count] {
            let offset = record.id.offset.get();
            self.told.push(Told::Taken(offset, record.data.clone()));
        }
    }

    fn check_order(&mut self, records: &[Record]) {
        let mut last = None;
        for record in records {
            let offset = record.id.offset.get();
            if last.is_some_and(|last| last >= offset) {
                self.broken = Some(format!("D13: record {offset} comes behind a later one"));
            }
            last = Some(offset);
        }
        if self.ordered
            && let Some(first) = records.first()
        {
            let offset = first.id.offset.get();
            if offset < self.first && self.calm {
                self.broken = Some(format!("D13: record {offset} comes again, or late"));
            }
        }
        self.first = self.first.max(last.map_or(0, |last| last + 1));
    }
}

fn lost() -> Outcome {
    Outcome::Retry(SinkError::new(ErrorClass::Connect, "the connection broke"))
}

impl Sink for Scripted {
    fn check(&self) -> SinkFuture<'_, Result<(), SinkError>> {
        let away = self.with(|script| {
            let away = script.is_away();
            // Time passes for it by the tries.
            script.deliveries += u64::from(away);
            away
        });
        Box::pin(async move {
            match away {
                true => Err(SinkError::new(ErrorClass::Connect, "nobody is there")),
                false => Ok(()),
            }
        })
    }

    fn deliver<'a>(&'a self, records: &'a [Record]) -> SinkFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let (fault, away, before, behind) = self.with(|script| {
                script.check_order(records);
                let away = script.is_away();
                script.deliveries += 1;
                let latency = script.latency;
                let wait = |random: &mut Random| Duration::from_micros(random.between(1, latency));
                let fault = script.faults.remove(&script.deliveries);
                (fault, away, wait(&mut script.random), wait(&mut script.random))
            });
            rest(before).await;
            if away {
                return all(records, &lost());
            }
            let (taken, refused) = self.with(|script| {
                let count = records.len();
                let some = script.random.below(count as u64 + 1) as usize;
                let refused = (fault == Some(SinkFault::Refused)).then_some(some.min(count - 1));
                let taken = match fault {
                    Some(SinkFault::Partial | SinkFault::FewAnswers) => some,
                    _ => count,
                };
                match refused {
                    Some(refused) => {
                        script.take(&records[..refused], refused);
                        script.take(&records[refused + 1..], count - refused - 1);
                    }
                    None => script.take(records, taken),
                }
                (taken, refused)
            });
            rest(behind).await;
            match fault {
                Some(SinkFault::AckLost) => return all(records, &lost()),
                Some(SinkFault::AckLate) => rest(Duration::from_secs(100_000)).await,
                _ => {}
            }
            let mut outcomes = Vec::new();
            self.with(|script| {
                for (at, record) in records.iter().enumerate() {
                    let offset = record.id.offset.get();
                    if refused == Some(at) {
                        script.told.push(Told::Refused(offset));
                        let error = SinkError::new(ErrorClass::Refused, "not this one");
                        outcomes.push(Outcome::Refused(error));
                    } else if at < taken {
                        script.told.push(Told::Answered(offset));
                        outcomes.push(Outcome::Delivered);
                    } else if fault == Some(SinkFault::FewAnswers) {
                        break;
                    } else {
                        outcomes.push(lost());
                    }
                }
            });
            outcomes
        })
    }
}
