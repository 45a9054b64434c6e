//! What became of each message, for the check against the log.

use super::mail::Sequence;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not sent.
    #[default]
    Unsent,
    /// Sent, no final reply: it may be in the log or not.
    Sent,
    /// The server took it on.
    Acked,
    /// The server refused it, or the connection broke: it may be in the log or not.
    Failed,
}

/// An octet for each message.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    fates: Vec<Fate>,
}

impl Ledger {
    pub(super) fn sent(&mut self, sequence: Sequence) {
        self.set(sequence, Fate::Sent);
    }

    pub(super) fn acked(&mut self, sequence: Sequence) {
        self.set(sequence, Fate::Acked);
    }

    pub(super) fn failed(&mut self, sequence: Sequence) {
        self.set(sequence, Fate::Failed);
    }

    /// Messages that were ever taken on, and the gaps between them.
    pub(super) fn len(&self) -> usize {
        self.fates.len()
    }

    pub(super) fn fate(&self, sequence: Sequence) -> Fate {
        let at = usize::try_from(sequence).unwrap_or(usize::MAX);
        self.fates.get(at).copied().unwrap_or_default()
    }

    pub(super) fn acked_sequences(&self) -> impl Iterator<Item = Sequence> {
        let fates = self.fates.iter().enumerate();
        fates.filter(|(_, fate)| **fate == Fate::Acked).map(|(at, _)| at as Sequence)
    }

    /// Adds what became of the messages of another thread; no message is of both.
    pub(super) fn absorb(&mut self, other: &Self) {
        self.fates.resize(self.fates.len().max(other.fates.len()), Fate::Unsent);
        for (fate, other) in self.fates.iter_mut().zip(&other.fates) {
            if *other != Fate::Unsent {
                *fate = *other;
            }
        }
    }

    fn set(&mut self, sequence: Sequence, fate: Fate) {
        let at = usize::try_from(sequence).expect("sequence numbers count from zero");
        if at >= self.fates.len() {
            self.fates.resize(at + 1, Fate::Unsent);
        }
        self.fates[at] = fate;
    }
}
