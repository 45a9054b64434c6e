//! Answers that are kept, in two halves: what is asked for stays in the young one, and when that is
//! full the old one goes. So it is bounded, and nothing is searched for what to throw out.

use std::{collections::HashMap, time::Instant};

use super::{Found, Key};

pub(super) struct Cache {
    half: usize,
    young: HashMap<Key, (Instant, Found)>,
    old: HashMap<Key, (Instant, Found)>,
}

impl Cache {
    pub(super) fn new(most: usize) -> Self {
        Self { half: most / 2, young: HashMap::new(), old: HashMap::new() }
    }

    pub(super) fn get(&mut self, key: &Key, now: Instant) -> Option<Found> {
        if let Some((until, found)) = self.young.get(key) {
            return (now < *until).then(|| found.clone());
        }
        let (until, found) = self.old.remove(key).filter(|(until, _)| now < *until)?;
        self.put(key.clone(), found.clone(), until);
        Some(found)
    }

    pub(super) fn put(&mut self, key: Key, found: Found, until: Instant) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, (until, found));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hickory_resolver::proto::rr::{Name, RecordType};

    use super::*;

    #[test]
    fn it_forgets_what_is_old_and_is_bounded() {
        let key = |n: usize| (Name::from_ascii(format!("n{n}.")).unwrap(), RecordType::TXT);
        let mut cache = Cache::new(100);
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        cache.put(key(0), Found::NoName, later);
        assert_eq!(cache.get(&key(0), now), Some(Found::NoName));
        assert_eq!(cache.get(&key(0), later), None);
        for number in 1..1_000 {
            cache.put(key(number), Found::NoRecord, later);
            assert!(cache.get(&key(0), now).is_some(), "what is asked for stays, {number}");
        }
        assert!(cache.young.len() + cache.old.len() <= 101);
    }
}
