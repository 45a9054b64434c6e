//! The simulated disk. What a process sees is in real files on a memory file system. What a crash
//! would leave is kept separately: the old octets of each block that no sync has covered yet, the
//! old contents of small files, entries of directories that were not synced.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::{plan::Death, random::Random};

const BLOCK: u64 = 4096;

/// A write that no sync has covered.
#[derive(Debug)]
struct Pending {
    op: u64,
    position: u64,
    len: u64,
    /// First offset of its records, and the one behind them.
    offsets: (u64, u64),
    /// When it completed, as a step of this disk.
    done: Option<u64>,
}

#[derive(Debug)]
struct Segment {
    file: File,
    bytes: u64,
    /// Blocks that a write was begun for.
    begun: BTreeSet<u64>,
    /// Durable octets of blocks that were written since.
    base: BTreeMap<u64, Vec<u8>>,
    pending: Vec<Pending>,
    /// A sync has failed: no later one makes anything durable.
    broken: bool,
}

/// Segments that are being written. See the module's page.
#[derive(Debug, Default)]
pub(super) struct Segments {
    open: BTreeMap<u64, Segment>,
    step: u64,
    /// Records that are durable: first offset, and the one behind.
    durable: BTreeMap<u64, u64>,
    /// Offsets that each segment was written records of.
    pub(super) held: BTreeMap<u64, (u64, u64)>,
    /// Writes that went astray.
    pub(super) astray: Vec<Astray>,
    /// Mail data outside its record's group: offset of the record, segment and position.
    mail_data: Vec<(u64, u64, u64)>,
}

/// A write that went astray may have lost what its segment holds from there on.
#[derive(Debug)]
pub(super) struct Astray {
    segment: u64,
    /// Where it should have been written.
    position: u64,
    /// First offset from there on.
    from: u64,
}

/// What a write is to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it is written.
    Whole,
    /// It fails; part of it may be written.
    Failed,
    /// The first octets are written.
    Short(u64),
    /// It is written, so many blocks further on.
    Astray(u64),
}

impl Segments {
    /// A segment was made.
    pub(super) fn add(&mut self, number: u64, path: &Path, bytes: u64) -> io::Result<()> {
        let file = File::options().read(true).write(true).open(path)?;
        let (begun, base, pending) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
        let segment = Segment { file, bytes, begun, base, pending, broken: false };
        self.open.insert(number, segment);
        Ok(())
    }

    /// A write is submitted.
    ///
    /// # Errors
    /// A sentence, where it breaks the contract.
    pub(super) fn begin(
        &mut self,
        op: u64,
        number: u64,
        position: u64,
        octets: &[u8],
    ) -> Result<(), String> {
        let len = octets.len() as u64;
        let segment = self.open.get_mut(&number).ok_or("a write to a segment that is not open")?;
        let aligned = position.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK);
        if !aligned || position + len > segment.bytes {
            return Err(format!("a write of {len} bytes at {position} of segment {number}"));
        }
        for block in position / BLOCK..(position + len) / BLOCK {
            if !segment.begun.insert(block) {
                return Err(format!("D6: block {block} of segment {number} is written again"));
            }
        }
        let offsets = crate::log::staged::offsets(octets).unwrap_or_default();
        let fragments = crate::log::staged::fragments(octets).into_iter();
        self.mail_data.extend(fragments.map(|(offset, at)| (offset, at.segment, at.position)));
        segment.pending.push(Pending { op, position, len, offsets, done: None });
        if offsets.0 < offsets.1 {
            let held = self.held.entry(number).or_insert(offsets);
            held.1 = held.1.max(offsets.1);
        }
        Ok(())
    }

    /// A write completes.
    pub(super) fn complete(
        &mut self,
        op: u64,
        number: u64,
        octets: &[u8],
        outcome: Outcome,
        random: &mut Random,
    ) -> io::Result<()> {
        self.step += 1;
        let step = self.step;
        let Some(segment) = self.open.get_mut(&number) else { return Ok(()) };
        let Some(at) = segment.pending.iter().position(|pending| pending.op == op) else {
            return Ok(());
        };
        let Pending { position, len, offsets, .. } = segment.pending[at];
        match outcome {
            Outcome::Whole => {
                segment.put(position, octets)?;
                segment.pending[at].done = Some(step);
            }
            Outcome::Failed => {
                let some = random.below(len / 512 + 1) * 512;
                segment.put(position, &octets[..some as usize])?;
            }
            Outcome::Short(some) => segment.put(position, &octets[..some as usize])?,
            Outcome::Astray(blocks) => {
                // Never back over what was written before: that nobody could survive.
                let to = (position + blocks * BLOCK).min(segment.bytes - len).max(position);
                segment.put(to, octets)?;
                segment.pending[at].position = to;
                segment.pending[at].done = Some(step);
                self.astray.push(Astray { segment: number, position, from: offsets.0 });
            }
        }
        Ok(())
    }

    /// When a sync begins.
    pub(super) fn sync_begins(&mut self) -> u64 {
        self.step += 1;
        self.step
    }

    /// A sync completes that began then.
    pub(super) fn sync_ends(&mut self, number: u64, began: u64, worked: bool) {
        let Some(segment) = self.open.get_mut(&number) else { return };
        segment.broken |= !worked;
        if segment.broken {
            return;
        }
        let covered = |pending: &mut Pending| pending.done.is_some_and(|done| done < began);
        for pending in segment.pending.extract_if(.., covered) {
            for block in pending.position / BLOCK..(pending.position + pending.len) / BLOCK {
                segment.base.remove(&block);
            }
            if pending.offsets.0 < pending.offsets.1 {
                self.durable.insert(pending.offsets.0, pending.offsets.1);
            }
        }
    }

    /// Whether a record was durable, had the power gone now.
    pub(super) fn is_durable(&self, offset: u64) -> bool {
        let before = self.durable.range(..=offset).next_back();
        before.is_some_and(|(_, end)| offset < *end)
    }

    /// Whether a record may be lost because a write went astray.
    pub(super) fn is_astray(&self, offset: u64) -> bool {
        let mail_data = || self.mail_data.iter().filter(|(of, ..)| *of == offset);
        self.astray.iter().any(|Astray { segment, position, from }| {
            let end = self.held.get(segment).map_or(u64::MAX, |held| held.1);
            (*from..end.max(from + 1)).contains(&offset)
                || mail_data().any(|(_, in_segment, at)| in_segment == segment && at >= position)
        })
    }

    /// Makes of the files what a death leaves of them. `under_way`: segment, position and octets of
    /// writes that have not completed.
    pub(super) fn die(
        &mut self,
        death: Death,
        under_way: &[(u64, u64, Vec<u8>)],
        random: &mut Random,
    ) -> io::Result<()> {
        let unit = if death == Death::Power4096 { 4096 } else { 512 };
        let kept = [0, 10, 50, 90, 100][random.below(5) as usize];
        for (number, position, octets) in under_way {
            let Some(segment) = self.open.get_mut(number) else { continue };
            if death == Death::Kill {
                if random.percent(70) {
                    segment.put(*position, octets)?;
                }
                continue;
            }
            for (at, part) in octets.chunks(unit).enumerate() {
                if random.percent(kept) {
                    segment.file.write_all_at(part, position + (at * unit) as u64)?;
                }
            }
        }
        if death != Death::Kill {
            for segment in self.open.values_mut() {
                for (block, old) in &segment.base {
                    for (at, part) in old.chunks(unit).enumerate() {
                        if !random.percent(kept) {
                            let position = block * BLOCK + (at * unit) as u64;
                            segment.file.write_all_at(part, position)?;
                        }
                    }
                }
            }
        }
        // What a process has written survives it, and may be lost by a later one's crash.
        match death {
            Death::Kill => self.open.retain(|_, segment| !segment.pending.is_empty()),
            _ => self.open.clear(),
        }
        Ok(())
    }

    /// Recovery has synced these segments.
    pub(super) fn hear_synced(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some(segment) = self.open.get_mut(number) {
                segment.pending.clear();
                segment.base.clear();
            }
        }
    }
}

impl Segment {
    /// Writes, and keeps what was there.
    fn put(&mut self, position: u64, octets: &[u8]) -> io::Result<()> {
        let end = position + octets.len() as u64;
        for block in position / BLOCK..end.div_ceil(BLOCK) {
            if let std::collections::btree_map::Entry::Vacant(place) = self.base.entry(block) {
                let mut old = vec![0; BLOCK as usize];
                self.file.read_exact_at(&mut old, block * BLOCK)?;
                place.insert(old);
            }
        }
        self.file.write_all_at(octets, position)
    }
}
