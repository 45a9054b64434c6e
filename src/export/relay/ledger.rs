//! Which recipients of a message have had their final reply, between attempts.
//!
//! A message with three recipients may be accepted for one, deferred for another and refused for
//! the third. Only the deferred are tried again, so what is settled is kept here for each record,
//! until all of it is. It is kept in memory only: after a restart all recipients are tried again,
//! which is a duplicate of the fourth kind (D4).

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    super::{ErrorClass, Outcome, Record, SinkError},
    fate::Fate,
};
use mailrace_log::RecordId;

/// Recipients kept at once, of all records: some 70 MiB where each has a long refusal. Records that
/// became dead letters by `give_up_after` are not reported here, so the oldest are pushed out.
const RECIPIENTS_MAX: usize = 200_000;
/// Recipients named where a record has come to its end, and so in a dead letter.
const REFUSED_NAMED_MAX: usize = 1_000;
/// Recipients named where it is tried again, and so in each line of the program's log.
const DEFERRED_NAMED_MAX: usize = 20;

/// A replayed record begins again, and so does one that goes to some of its recipients only.
type Key = (RecordId, bool, usize);

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    records: HashMap<Key, Entry>,
    recipients: usize,
    entries: u64,
}

#[derive(Debug)]
struct Entry {
    /// The how manyth it is.
    number: u64,
    fates: Vec<Option<Fate>>,
}

impl Kept {
    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.records.remove(key) {
            self.recipients -= entry.fates.len();
        }
    }

    fn entry(&mut self, key: Key, recipients: usize) -> &mut Entry {
        if !self.records.contains_key(&key) {
            while self.recipients + recipients > RECIPIENTS_MAX
                && let Some((oldest, _)) = self.records.iter().min_by_key(|(_, e)| e.number)
            {
                let oldest = *oldest;
                self.forget(&oldest);
            }
            self.recipients += recipients;
            self.entries += 1;
        }
        let number = self.entries;
        self.records.entry(key).or_insert_with(|| Entry { number, fates: vec![None; recipients] })
    }
}

impl Ledger {
    /// Indexes of the recipients that wait for a delivery.
    pub(super) fn open(&self, record: &Record) -> Vec<usize> {
        let kept = self.lock();
        let fates = kept.records.get(&key(record)).map(|entry| &entry.fates);
        let is_open =
            |at: &usize| fates.is_none_or(|fates| !matches!(fates.get(*at), Some(Some(_))));
        (0..record.rcpt_to.len()).filter(is_open).collect()
    }

    /// Keeps what is final.
    pub(super) fn settle(&self, record: &Record, fates: &[(usize, Fate)]) {
        if fates.iter().all(|(_, fate)| matches!(fate, Fate::Deferred(_))) {
            return;
        }
        let mut kept = self.lock();
        let kept = &mut kept.entry(key(record), record.rcpt_to.len()).fates;
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
        let kept = self.lock();
        let fates = kept.records.get(&key(record)).map(|entry| &entry.fates);
        let refused: Vec<(usize, &SinkError)> = fates
            .into_iter()
            .flatten()
            .enumerate()
            .filter_map(|(at, fate)| match fate {
                Some(Fate::Refused(error)) => Some((at, error)),
                _ => None,
            })
            .collect();
        let mut errors = deferred.iter().map(|(at, error)| (*at, error)).chain(refused.clone());
        let most = if deferred.is_empty() { REFUSED_NAMED_MAX } else { DEFERRED_NAMED_MAX };
        let named = errors.clone().take(most).map(|(at, error)| {
            let path = record.rcpt_to.get(at).map(String::as_str).unwrap_or_default();
            format!("<{path}>: {}", error.text)
        });
        let mut text = named.collect::<Vec<_>>().join("; ");
        let more = (deferred.len() + refused.len()).saturating_sub(most);
        if more > 0 {
            text += &format!("; and {more} more");
        }
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
        self.lock().forget(&key(record));
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(record: &Record) -> Key {
    (record.id, record.replay, record.rcpt_to.len())
}

#[cfg(test)]
mod tests {
    use super::{super::mail::tests::record, *};
    use mailrace_log::Offset;

    fn numbered(number: u64, recipients: usize) -> Record {
        let mut record = record(b"");
        record.id.offset = Offset::new(number);
        record.rcpt_to = (0..recipients).map(|n| format!("r{n}@d.test")).collect();
        record
    }

    fn error(text: &str) -> SinkError {
        SinkError::new(ErrorClass::Refused, text)
    }

    #[test]
    fn who_is_settled_is_not_open() {
        let (ledger, record) = (Ledger::default(), numbered(1, 4));
        let later = Fate::Deferred(error("450"));
        ledger.settle(&record, &[(0, later.clone()), (3, later.clone())]);
        assert_eq!(ledger.open(&record), [0, 1, 2, 3]);
        ledger
            .settle(&record, &[(1, Fate::Delivered), (2, Fate::Refused(error("550"))), (0, later)]);
        assert_eq!(ledger.open(&record), [0, 3]);
        assert_eq!(ledger.open(&Record { replay: true, ..record.clone() }), [0, 1, 2, 3]);
        let outcome = ledger.outcome(&record, &[(0, error("450"))]);
        assert_eq!(outcome, Outcome::Retry(error("<r0@d.test>: 450; <r2@d.test>: 550")));
        ledger.settle(&record, &[(0, Fate::Delivered), (3, Fate::Delivered)]);
        assert_eq!(ledger.outcome(&record, &[]), Outcome::Refused(error("<r2@d.test>: 550")));
        ledger.forget(&record);
        assert_eq!(ledger.open(&record), [0, 1, 2, 3]);
        assert_eq!(ledger.lock().recipients, 0);
    }

    #[test]
    fn the_oldest_are_pushed_out() {
        let ledger = Ledger::default();
        let records: Vec<_> = (0..201).map(|number| numbered(number, 1_000)).collect();
        for record in &records {
            ledger.settle(record, &[(0, Fate::Delivered)]);
        }
        assert_eq!(ledger.lock().recipients, RECIPIENTS_MAX);
        assert_eq!(ledger.open(&records[0]).len(), 1_000);
        assert_eq!(ledger.open(&records[1]).len(), 999);
        assert_eq!(ledger.open(&records[200]).len(), 999);
    }

    #[test]
    fn a_text_names_so_many() {
        let (ledger, record) = (Ledger::default(), numbered(1, 1_002));
        let deferred: Vec<_> = (0..1_002).map(|at| (at, error("450"))).collect();
        let Outcome::Retry(told) = ledger.outcome(&record, &deferred) else { panic!() };
        assert!(told.text.ends_with("<r19@d.test>: 450; and 982 more"), "{}", told.text);
        let refused: Vec<_> = (0..1_002).map(|at| (at, Fate::Refused(error("550")))).collect();
        ledger.settle(&record, &refused);
        let Outcome::Refused(told) = ledger.outcome(&record, &[]) else { panic!() };
        assert!(told.text.ends_with("<r999@d.test>: 550; and 2 more"), "{}", told.text);
    }
}
