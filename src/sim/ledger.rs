//! What is known from outside: what each peer sent, which reply it got, what the log and the sink
//! showed since. It is never killed, and holds the server to the invariants I1 to I6 and I8.

use std::collections::{BTreeMap, BTreeSet};

use super::mails::{Mails, number_of};

/// A violation, as a sentence.
pub(super) type Checked<T = ()> = Result<T, String>;

/// How old an answer of the sink may be before it is committed: a second, and the longest pauses of
/// the lane on both sides of it.
const COMMIT_AGE_MAX: u64 = 1_500_000;

/// One try to send a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) mail: usize,
    /// Its last octet was sent.
    pub(super) complete: bool,
    pub(super) answer: Option<u16>,
}

/// What is known of an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) mail: usize,
    /// It was the id of a 250.
    pub(super) acknowledged: bool,
    /// The sink was told, and the lane heard it, then.
    pub(super) told: Option<u64>,
    /// Times that the sink has it.
    pub(super) taken: u32,
    /// Its mail may be lost: a write went astray.
    pub(super) excused: bool,
    /// Its segment was deleted, and nobody needed it.
    pub(super) deleted: bool,
}

/// See the module's page.
pub(super) struct Ledger {
    pub(super) mails: Mails,
    pub(super) attempts: Vec<Attempt>,
    pub(super) offsets: BTreeMap<u64, Known>,
    /// Offsets of each mail.
    of_mail: Vec<BTreeSet<u64>>,
    complete: Vec<u32>,
    /// How often each mail was to be taken, where all of it is judged.
    approved: Option<Vec<u32>>,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) dead: BTreeSet<u64>,
    /// What the group has committed, durably.
    pub(super) committed: u64,
}

impl Ledger {
    pub(super) fn new(mails: Mails, judges: bool) -> Self {
        let count = mails.len();
        Self {
            mails,
            attempts: Vec::new(),
            offsets: BTreeMap::new(),
            of_mail: vec![BTreeSet::new(); count],
            complete: vec![0; count],
            approved: judges.then(|| vec![0; count]),
            acknowledged: 0,
            refused: 0,
            dead: BTreeSet::new(),
            committed: 0,
        }
    }

    pub(super) fn begin(&mut self, mail: usize) -> usize {
        self.attempts.push(Attempt { mail, complete: false, answer: None });
        self.attempts.len() - 1
    }

    /// The last octet of an attempt was sent.
    pub(super) fn completed(&mut self, attempt: usize) {
        let attempt = &mut self.attempts[attempt];
        attempt.complete = true;
        self.complete[attempt.mail] += 1;
    }

    /// A final reply came; with a 250 the offset that it names.
    pub(super) fn answered(&mut self, attempt: usize, code: u16, offset: Option<u64>) -> Checked {
        let Attempt { mail, complete, answer } = self.attempts[attempt];
        if let Some(before) = answer {
            return Err(format!("mail {mail} was answered {before}, and then {code}"));
        }
        self.attempts[attempt].answer = Some(code);
        match (code, offset) {
            (250, Some(offset)) => {
                if !complete {
                    return Err(format!("mail {mail} got a 250 before its end was sent"));
                }
                self.acknowledged += 1;
                let known = self.bind(offset, mail)?;
                if known.acknowledged {
                    return Err(format!("I4: offset {offset} is the id of two replies"));
                }
                known.acknowledged = true;
                Ok(())
            }
            (250, None) => Err(format!("the final 250 of mail {mail} names no record")),
            _ => {
                self.refused += 1;
                Ok(())
            }
        }
    }

    /// An offset is this mail's, from now on and for good.
    fn bind(&mut self, offset: u64, mail: usize) -> Checked<&mut Known> {
        let fresh = Known {
            mail,
            acknowledged: false,
            told: None,
            taken: 0,
            excused: false,
            deleted: false,
        };
        let known = self.offsets.entry(offset).or_insert(fresh);
        if known.mail != mail {
            return Err(format!("I4: offset {offset} was mail {}, and is {mail} now", known.mail));
        }
        self.of_mail[mail].insert(offset);
        if self.of_mail[mail].len() > self.complete[mail] as usize {
            return Err(format!(
                "I3: mail {mail} has the offsets {:?}, and was sent whole {} times",
                self.of_mail[mail], self.complete[mail]
            ));
        }
        let approved = self.approved.as_ref().map_or(u32::MAX, |approved| approved[mail]);
        if self.of_mail[mail].len() > approved as usize {
            return Err(format!(
                "record {offset}, mail {mail}, is there, and nobody wanted it taken"
            ));
        }
        Ok(known)
    }

    /// A mail that was sent whole is to be taken.
    pub(super) fn approve(&mut self, mail: usize) {
        if let Some(approved) = &mut self.approved {
            approved[mail] += 1;
        }
    }

    /// A record was seen, in the log or by the sink: its offset is this mail's for good, even where a
    /// power cut takes it before it was acknowledged.
    pub(super) fn seen(&mut self, offset: u64, data: &[u8]) -> Checked<&mut Known> {
        let number = self.compare(&format!("record {offset}"), data)?;
        self.bind(offset, number)
    }

    /// Which mail these are the octets of: one that was sent, as it was sent.
    pub(super) fn compare(&self, what: &str, data: &[u8]) -> Checked<usize> {
        let number = number_of(data).filter(|number| *number < self.mails.len());
        let Some(number) = number else {
            return Err(format!("I3: {what} is no mail that was sent"));
        };
        if self.mails[number].data != data {
            let same = self.mails[number].data.iter().zip(data).take_while(|(a, b)| a == b).count();
            return Err(format!(
                "I2: {what} is not mail {number} as it was sent: {} bytes of {}, the same \
                 up to {same}",
                data.len(),
                self.mails[number].data.len()
            ));
        }
        Ok(number)
    }

    /// I1: every acknowledged record is among those found.
    pub(super) fn check_recovered(&self, found: &BTreeSet<u64>) -> Checked {
        for (offset, known) in &self.offsets {
            let kept = known.acknowledged && !known.excused && !known.deleted;
            if kept && !found.contains(offset) {
                return Err(format!("I1: record {offset}, mail {}, is lost", known.mail));
            }
        }
        Ok(())
    }

    /// The group has committed this offset: what lies below was taken by the sink, or is a dead
    /// letter.
    pub(super) fn check_committed(
        &mut self,
        offset: u64,
        dead: &mut dyn FnMut() -> Vec<u64>,
    ) -> Checked {
        let from = self.committed.min(offset);
        let mut asked = false;
        for (at, known) in self.offsets.range(from..offset) {
            let settled = known.told.is_some() || known.excused || !known.acknowledged;
            if settled || self.dead.contains(at) {
                continue;
            }
            if !asked {
                asked = true;
                self.dead.extend(dead());
            }
            if !self.dead.contains(at) {
                return Err(format!("I5: record {at} is passed over: committed {offset}"));
            }
        }
        self.committed = offset;
        Ok(())
    }

    /// D11: an offset that may be committed is, within a second and some turns of the lane.
    pub(super) fn check_commit_age(&self, now: u64) -> Checked {
        let next = self.offsets.range(self.committed..).next();
        match next.and_then(|(offset, known)| Some((offset, known.told?))) {
            Some((offset, told)) if now > told + COMMIT_AGE_MAX => Err(format!(
                "D11: the sink answered for record {offset} {} us ago, and it is not committed",
                now - told
            )),
            _ => Ok(()),
        }
    }

    /// I5 at the end: every acknowledged record was taken by the sink, or is a dead letter.
    pub(super) fn check_exported(&self) -> Checked {
        for (offset, known) in &self.offsets {
            let dead = self.dead.contains(offset);
            if known.acknowledged && known.taken == 0 && !dead && !known.excused {
                return Err(format!("I5: record {offset}, mail {}, was not exported", known.mail));
            }
        }
        Ok(())
    }

    /// D12: a segment that holds these offsets is deleted.
    pub(super) fn check_deleted(&mut self, number: u64, held: (u64, u64)) -> Checked {
        let committed = self.committed;
        for (offset, known) in self.offsets.range_mut(held.0..held.1) {
            if known.acknowledged && *offset >= committed && !known.excused {
                return Err(format!(
                    "D12: segment {number} is deleted, with record {offset}; committed {committed}"
                ));
            }
            known.deleted = true;
        }
        Ok(())
    }

    /// Offsets that were ever seen end here.
    pub(super) fn end(&self) -> u64 {
        self.offsets.last_key_value().map_or(0, |(offset, _)| offset + 1)
    }
}
