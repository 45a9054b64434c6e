//! The refusals of all shards in the order of time, and what of their files cannot be read.

use std::{collections::BTreeMap, io, path::Path};

use super::Filter;
use crate::config::plural;
use crate::log::{Refusal, RefusalAt, RefusalEntry, RefusalReader, refusal_shards};

/// A refusal that is selected.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) shard: u16,
    pub(super) at: RefusalAt,
    pub(super) refusal: Box<Refusal>,
}

/// Damage of a file: where the first is, how many places, how many bytes.
#[derive(Clone, Copy, Debug)]
struct Damage {
    position: u64,
    places: u64,
    bytes: u64,
}

/// See the module's page. One refusal of each shard is held.
#[derive(Debug)]
pub(super) struct Merged {
    filter: Filter,
    sources: Vec<(u16, RefusalReader, Option<Found>)>,
    damage: BTreeMap<(u16, u64), Damage>,
}

impl Merged {
    /// Of these shards, or all.
    ///
    /// # Errors
    /// A shard without refusals; what the file system says.
    pub(super) fn open(dir: &Path, wanted: &[u16], filter: Filter) -> io::Result<Self> {
        let present = refusal_shards(dir)?;
        if let Some(missing) = wanted.iter().find(|shard| !present.contains(shard)) {
            let what = format!("shard {missing} has no refusals");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let shards = present.into_iter().filter(|at| wanted.is_empty() || wanted.contains(at));
        let open = |shard| Ok((shard, RefusalReader::open(dir, shard)?, None));
        let sources = shards.map(open).collect::<io::Result<_>>()?;
        Ok(Self { filter, sources, damage: BTreeMap::new() })
    }

    /// The next that is selected; `None`: none by now.
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        for (shard, reader, head) in &mut self.sources {
            while head.is_none() {
                let Some(entry) = reader.next()? else { break };
                match entry {
                    RefusalEntry::Whole { at, refusal } => {
                        let shard = *shard;
                        *head = self.filter.takes(&refusal).then_some(Found { shard, at, refusal });
                    }
                    RefusalEntry::Damaged { at, bytes }
                    | RefusalEntry::Unfinished { at, bytes } => {
                        let fresh = Damage { position: at.position, places: 0, bytes: 0 };
                        let damage = self.damage.entry((*shard, at.file)).or_insert(fresh);
                        damage.places += 1;
                        damage.bytes += bytes;
                    }
                }
            }
        }
        let at = |head: &Option<Found>| head.as_ref().map(|found| found.refusal.at);
        let first = self.sources.iter_mut().filter(|(_, _, head)| head.is_some());
        Ok(first.min_by_key(|(_, _, head)| at(head)).and_then(|(_, _, head)| head.take()))
    }

    /// Says on stderr what was passed over since the last call, and at the end of all what the newest
    /// files end with.
    pub(super) fn tell_damage(&mut self, at_end: bool) {
        for ((shard, file), damage) in std::mem::take(&mut self.damage) {
            let Damage { position, places, bytes } = damage;
            let (bytes, places) = (plural(bytes, "byte"), plural(places, "place"));
            crate::cli::complain!(
                "mailrace: refusals/shard-{shard:03}/{file:010}.ref is damaged: {bytes} at \
                 {places}, the first at position {position}, are left out"
            );
        }
        for (shard, reader, _) in self.sources.iter().filter(|_| at_end) {
            let Some(RefusalEntry::Unfinished { at, bytes }) = reader.unfinished() else {
                continue;
            };
            crate::cli::complain!(
                "mailrace: refusals/shard-{shard:03}/{:010}.ref: the last {} are not a whole refusal: \
                 it is being written, or was cut short",
                at.file,
                plural(bytes, "byte")
            );
        }
    }
}
