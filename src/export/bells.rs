//! Wakes those who wait for a shard's high-water mark to move: lanes, and readers of the stream.

use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::channel::{Receiver, Sender, bounded};

/// All of them. Cheap to clone; export and admin plane.
#[derive(Clone, Debug, Default)]
pub struct Bells(Arc<Mutex<Vec<Bell>>>);

#[derive(Debug)]
struct Bell {
    number: u64,
    /// Empty: any shard.
    shards: Vec<u16>,
    ring: Sender<()>,
}

/// Waits at one bell; dropping it unregisters it. A ring that was not noticed yet counts for later
/// waits.
#[derive(Debug)]
pub struct Ear {
    number: u64,
    bells: Bells,
    /// A sign arrives here.
    pub sign: Receiver<()>,
}

impl Bells {
    /// Listens for some shards; none: for all.
    #[must_use]
    pub fn listen(&self, shards: &[u16]) -> Ear {
        let (ring, sign) = bounded(1);
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = bells.iter().map(|bell| bell.number).max().map_or(0, |last| last + 1);
        bells.push(Bell { number, shards: shards.to_vec(), ring });
        drop(bells);
        Ear { number, bells: self.clone(), sign }
    }

    /// Gives a sign to those who listen for a shard.
    pub(super) fn ring(&self, moved: impl Fn(u16) -> bool, any: bool) {
        for bell in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if (any && bell.shards.is_empty()) || bell.shards.iter().any(|&shard| moved(shard)) {
                // Full: a sign waits already.
                let _ = bell.ring.try_send(());
            }
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut bells = self.bells.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.retain(|bell| bell.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_reach_those_who_listen() {
        let bells = Bells::default();
        let (one, all) = (bells.listen(&[1]), bells.listen(&[]));
        bells.ring(|shard| shard == 0, true);
        assert!(one.sign.try_recv().is_err());
        assert!(all.sign.try_recv().is_ok());
        bells.ring(|shard| shard == 1, true);
        bells.ring(|shard| shard == 1, true);
        assert!(one.sign.try_recv().is_ok());
        assert!(one.sign.try_recv().is_err(), "signs do not pile up");
        drop(one);
        assert_eq!(bells.0.lock().unwrap().len(), 1);
    }
}
