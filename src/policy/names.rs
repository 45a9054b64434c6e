//! A set of millions of short names, queried without a lock and without an allocation.
//!
//! ```text
//!   hash --> tags   [ 0 | 7 | 2 | 0 | 9 | ... ]   an octet a slot: 0 free, or part of a hash
//!            places [   | . | . |   | . | ... ]   four octets a slot: where the name lies
//!                         |
//!            octets [ 3 a@b 5 c@d.e ... ]         two octets of length, then the name
//! ```
//!
//! A slot is first checked by its tag alone; only if that matches (by chance once in 255) is the
//! name itself compared. So an answer is never wrong, and a miss stays within one cache line. With
//! three of four slots used a name costs its own octets, two for its length, and 6.7 for the slot.

use std::hash::{BuildHasher, RandomState};

/// Longest name in octets: that of a mailbox that MAIL and RCPT take.
pub(super) const NAME_BYTES_MAX: usize = 512;
/// Octets of a name's length.
const LENGTH_BYTES: usize = size_of::<u16>();

/// The names would not fit into 4 GiB.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// See the module's page.
#[derive(Default)]
pub(super) struct NameSet {
    /// Keyed at random: nobody can choose names that all fall on one slot.
    hasher: RandomState,
    tags: Vec<u8>,
    places: Vec<u32>,
    octets: Vec<u8>,
    len: usize,
}

impl NameSet {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets of memory that it holds.
    pub(super) fn memory_bytes(&self) -> usize {
        self.tags.capacity() + 4 * self.places.capacity() + self.octets.capacity()
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        !self.is_empty() && self.slot_of(name).is_ok()
    }

    /// Adds a name of at most [`NAME_BYTES_MAX`] octets, unless it is there.
    pub(super) fn insert(&mut self, name: &[u8]) -> Result<(), Full> {
        if (self.len + 1) * 4 > self.tags.len() * 3 {
            self.rebuild((self.len * 2).max(6));
        }
        let Err(slot) = self.slot_of(name) else { return Ok(()) };
        let place = u32::try_from(self.octets.len()).map_err(|_| Full)?;
        self.tags[slot] = tag(self.hasher.hash_one(name));
        self.places[slot] = place;
        let len = u16::try_from(name.len()).expect("names are short");
        self.octets.extend_from_slice(&len.to_ne_bytes());
        self.octets.extend_from_slice(name);
        self.len += 1;
        Ok(())
    }

    /// Gives back what was only needed to add names.
    pub(super) fn shrink(&mut self) {
        self.octets.shrink_to_fit();
        self.rebuild(self.len);
    }

    /// Rebuilds the slots, with room for `len` names.
    fn rebuild(&mut self, len: usize) {
        let slots = len * 4 / 3 + 1;
        self.tags = vec![0; slots];
        self.places = vec![0; slots];
        let mut place = 0;
        while let Some(name) = self.name_at(place) {
            let hash = self.hasher.hash_one(name);
            let next = place + LENGTH_BYTES + name.len();
            let mut slot = first_slot(hash, slots);
            while self.tags[slot] != 0 {
                slot = if slot + 1 == slots { 0 } else { slot + 1 };
            }
            self.tags[slot] = tag(hash);
            self.places[slot] = u32::try_from(place).expect("it was checked when it came in");
            place = next;
        }
    }

    fn name_at(&self, place: usize) -> Option<&[u8]> {
        let (len, rest) = self.octets.get(place..)?.split_first_chunk()?;
        rest.get(..usize::from(u16::from_ne_bytes(*len)))
    }

    /// The slot of a name, or the free one where it would be put.
    fn slot_of(&self, name: &[u8]) -> Result<usize, usize> {
        let hash = self.hasher.hash_one(name);
        let mut slot = first_slot(hash, self.tags.len());
        loop {
            let found = self.tags[slot];
            if found == 0 {
                return Err(slot);
            }
            if found == tag(hash) && self.name_at(self.places[slot] as usize) == Some(name) {
                return Ok(slot);
            }
            slot = if slot + 1 == self.tags.len() { 0 } else { slot + 1 };
        }
    }
}

/// By the upper half of a hash, without a division.
fn first_slot(hash: u64, slots: usize) -> usize {
    ((u128::from(hash) * slots as u128) >> 64) as usize
}

/// By its lowest octet.
fn tag(hash: u64) -> u8 {
    (hash as u8).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_says_what_a_plain_set_says(
            names in prop::collection::vec("[a-c]{0,4}", 0..200),
            asked in prop::collection::vec("[a-c]{0,4}", 0..200),
            shrunk in any::<bool>(),
        ) {
            let mut set = NameSet::default();
            let twin: HashSet<&String> = names.iter().collect();
            for name in &names {
                set.insert(name.as_bytes()).unwrap();
            }
            if shrunk {
                set.shrink();
            }
            prop_assert_eq!(set.len(), twin.len());
            for name in asked.iter().chain(&names) {
                prop_assert_eq!(set.contains(name.as_bytes()), twin.contains(name));
            }
        }
    }

    #[test]
    fn an_empty_one_has_nothing_and_takes_the_longest_name() {
        let mut set = NameSet::default();
        assert!(!set.contains(b""));
        set.shrink();
        assert!(!set.contains(b"a"));
        let longest = [b'a'; NAME_BYTES_MAX];
        set.insert(&longest).unwrap();
        assert!(set.contains(&longest) && !set.contains(&longest[1..]));
    }

    #[test]
    fn a_name_of_24_octets_costs_at_most_40() {
        let mut set = NameSet::default();
        for number in 0..100_000 {
            set.insert(format!("{number:012}@example.com").as_bytes()).unwrap();
        }
        set.shrink();
        let each = set.memory_bytes() as f64 / 100_000.0;
        assert!(each <= 40.0, "{each}");
    }
}
