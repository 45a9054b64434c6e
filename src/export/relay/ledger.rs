//! Which recipients of a message have had their final reply, between attempts.
//!
//! A message with three recipients may be taken for one, put off for another and refused for the
//! third. Only who was put off is tried again (UX §5), so what is settled is kept here by record,
//! until all of it is. It is kept in memory alone: after a restart all recipients are tried again,
//! which is a duplicate of the fourth kind (D4).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{
    super::{ErrorClass, Outcome, Record, SinkError},
    fate::Fate,
};
use crate::log::RecordId;

/// Records kept at once; with 1,000 recipients each some 100 MiB. Records that became dead letters
/// by `give_up_after` are not reported here and are pushed out at last.
const RECORDS_MAX: usize = 4_096;
/// Recipients named in an error's text.
const NAMED_MAX: usize = 1_000;

/// A replayed record begins anew.
type Key = (RecordId, bool);

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<HashMap<Key, Vec<Option<Fate>>>>);

impl Ledger {
    /// Indexes of the recipients that wait for a delivery.
    pub(super) fn open(&self, record: &Record) -> Vec<usize> {
        let ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fates = ledger.get(&key(record));
        let is_open =
            |at: &usize| fates.is_none_or(|fates| !matches!(fates.get(*at), Some(Some(_))));
        (0..record.rcpt_to.len()).filter(is_open).collect()
    }

    /// Keeps what is final.
    pub(super) fn settle(&self, record: &Record, fates: &[(usize, Fate)]) {
        if fates.iter().all(|(_, fate)| matches!(fate, Fate::Deferred(_))) {
            return;
        }
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ledger.len() >= RECORDS_MAX
            && !ledger.contains_key(&key(record))
            && let Some(other) = ledger.keys().next().copied()
        {
            ledger.remove(&other);
        }
        let kept = ledger.entry(key(record)).or_insert_with(|| vec![None; record.rcpt_to.len()]);
        for (at, fate) in fates {
            if !matches!(fate, Fate::Deferred(_))
                && let Some(kept) = kept.get_mut(*at)
            {
                *kept = Some(fate.clone());
            }
        }
    }

    /// What a record has come to. `deferred`: the recipients put off by this attempt.
    pub(super) fn outcome(&self, record: &Record, deferred: &[(usize, SinkError)]) -> Outcome {
        let ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refused: Vec<(usize, &SinkError)> = ledger
            .get(&key(record))
            .into_iter()
            .flatten()
            .enumerate()
            .filter_map(|(at, fate)| match fate {
                Some(Fate::Refused(error)) => Some((at, error)),
                _ => None,
            })
            .collect();
        let mut errors = deferred.iter().map(|(at, error)| (*at, error)).chain(refused.clone());
        let text = errors.clone().take(NAMED_MAX).map(|(at, error)| {
            let path = record.rcpt_to.get(at).map(String::as_str).unwrap_or_default();
            format!("<{path}>: {}", error.text)
        });
        let text = text.collect::<Vec<_>>().join("; ");
        let Some((_, first)) = errors.next() else { return Outcome::Delivered };
        let class = if deferred.is_empty() && !refused.iter().all(|(_, e)| e.class == first.class) {
            ErrorClass::Refused
        } else {
            first.class
        };
        let error = SinkError { class, text, retry_after: None };
        if deferred.is_empty() { Outcome::Refused(error) } else { Outcome::Retry(error) }
    }

    /// The caller is about to say so: nothing of it is needed any more.
    pub(super) fn forget(&self, record: &Record) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(record));
    }
}

fn key(record: &Record) -> Key {
    (record.id, record.replay)
}
