//! The connections of a shard, by their keys.

use super::{Key, connection::Connection};
use crate::stage;

/// Generations go round at this many.
const GENERATION_MASK: u32 = 0x00ff_ffff;

/// See the module's page.
#[derive(Default)]
pub(super) struct Slab {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Of the connection that came last.
    generation: u32,
}

#[derive(Default)]
struct Slot {
    /// Of the connection that is here, or was here last.
    generation: u32,
    connection: Option<Box<Connection>>,
}

impl Slab {
    /// Gives a connection a place and its key.
    pub(super) fn insert(&mut self, connection: Box<Connection>) -> Key {
        self.generation = (self.generation + 1) & GENERATION_MASK;
        let generation = self.generation;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer connections than 2^32")
        });
        self.slots[index as usize] = Slot { generation, connection: Some(connection) };
        Key { index, generation }
    }

    /// The connection of this key, unless it is gone: whose place is used again is not found.
    pub(super) fn get(&mut self, key: Key) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation && !stage::planted(stage::Bug::SlotReused) {
            return None;
        }
        slot.connection.as_deref_mut()
    }

    /// Takes a connection out; its place is used again.
    pub(super) fn remove(&mut self, key: Key) -> Option<Box<Connection>> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation && !stage::planted(stage::Bug::SlotReused) {
            return None;
        }
        let connection = slot.connection.take()?;
        self.free.push(key.index);
        Some(connection)
    }

    /// The key of the connection at this place, if there is one. Places are below [`Slab::places`].
    pub(super) fn key_at(&self, place: usize) -> Option<Key> {
        let slot = self.slots.get(place)?;
        slot.connection.as_ref()?;
        Some(Key { index: place as u32, generation: slot.generation })
    }

    /// Places, used or free.
    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }
}
