//! Finds records by offset and by time without looking at every segment.
//!
//! By offset: the manifest's seals say which sealed segment holds it; segments without a seal are
//! found by a binary search over headers (usually there is one; without a manifest, all). Within
//! the segment, the sparse index leads to within a MiB. By time: a binary search over the first
//! records of the segments, then a walk of one. Received times may go back a little between
//! neighbours and with the clock (D14: nothing but this search depends on them).

use std::{fs::File, io, path::Path};

use super::{
    Bound, Log, ReadError, RecordId, RecordView, SegmentFacts, WalkEnd,
    cursor::Step,
    files::{look_up_index, segment_numbers, shard_dir, unix_micros},
    frame::{ENTRY_FRAME, EntryFrame},
    reader::find_seal,
    recovery::Octets,
};

impl Log {
    /// Finds a record and shows it.
    ///
    /// # Errors
    /// [`ReadError::OtherNode`], [`ReadError::NoRecord`] or
    /// [`ReadError::Deleted`] where there is no such record; [`ReadError::Missing`],
    /// [`ReadError::Damaged`] or [`ReadError::Unsupported`] where it cannot be read; [`ReadError::Io`];
    /// what `show` says.
    pub fn get<T>(
        &self,
        id: RecordId,
        mut show: impl FnMut(&Self, RecordView<'_>) -> io::Result<T>,
    ) -> Result<T, ReadError> {
        if id.node != self.node {
            return Err(ReadError::OtherNode { id, ours: self.node });
        }
        if !shard_dir(&self.dir, id.shard).is_dir() {
            return Err(ReadError::NoRecord { id, has_shard: false });
        }
        let offset = id.offset.get();
        let mut damage = None;
        for segment in self.locate(id.shard, offset)? {
            let hint = look_up_index(&shard_dir(&self.dir, id.shard), segment.number, offset);
            for hint in [hint, None] {
                let mut found = None;
                let end = self.walk_segment(&segment, hint, offset, &mut |at, record| {
                    if at == offset {
                        found = Some(show(self, record)?);
                    }
                    Ok(at < offset)
                })?;
                if let Some(found) = found {
                    return Ok(found);
                }
                if let WalkEnd::Corrupt { position, .. } = end {
                    damage.get_or_insert((segment.number, position));
                }
                if hint.is_none() {
                    break;
                }
            }
            if segment.base_offset < offset {
                break;
            }
        }
        match damage {
            None => Err(ReadError::NoRecord { id, has_shard: true }),
            Some((number, position)) => {
                let path = self.path(id.shard, number);
                Err(match unknown_kind(&path, position) {
                    Some(kind) => ReadError::Unsupported { path, position, kind },
                    None => {
                        let what = format!("record {id} cannot be read");
                        ReadError::Damaged { path, position, what }
                    }
                })
            }
        }
    }

    /// The segments that may hold an offset, likeliest first. Opens those without a seal only.
    fn locate(&self, shard: u16, offset: u64) -> Result<Vec<SegmentFacts>, ReadError> {
        let seals = self.seals(shard)?;
        let holds = |seal: &&super::Seal| (seal.first_offset..seal.end_offset).contains(&offset);
        if let Some(&seal) = seals.iter().rev().find(holds) {
            return match self.facts(shard, seal.number, Some(seal))? {
                Some(facts) => Ok(vec![facts]),
                None if seal.removed => {
                    Err(ReadError::Deleted { shard, offset, segment: seal.number })
                }
                None => {
                    let offsets = seal.first_offset..seal.end_offset;
                    Err(ReadError::Missing { shard, offsets, path: self.path(shard, seal.number) })
                }
            };
        }
        let mut numbers = segment_numbers(&shard_dir(&self.dir, shard))?;
        numbers.retain(|&number| find_seal(&seals, number).is_none_or(|seal| seal.damaged));
        // Prepared segments have no header: a probe that meets one looks to its left.
        let (mut low, mut high) = (0, numbers.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.headed(shard, &numbers, low, middle)? {
                Some((at, facts)) if facts.base_offset <= offset => low = middle.max(at) + 1,
                Some((at, _)) => high = at,
                None => low = middle + 1,
            }
        }
        let mut found = Vec::new();
        for &number in numbers.get(..low).unwrap_or_default().iter().rev() {
            let seal = find_seal(&seals, number);
            let Some(facts) = self.facts(shard, number, seal)? else { continue };
            let done = facts.base_offset < offset;
            found.push(facts);
            if done {
                break;
            }
        }
        Ok(found)
    }

    /// The last segment with a header among `numbers[low..=at]`.
    fn headed(
        &self,
        shard: u16,
        numbers: &[u64],
        low: usize,
        at: usize,
    ) -> Result<Option<(usize, SegmentFacts)>, ReadError> {
        for at in (low..=at).rev() {
            if let Some(&number) = numbers.get(at)
                && let Some(facts) = self.facts(shard, number, None)?
            {
                return Ok(Some((at, facts)));
            }
        }
        Ok(None)
    }

    /// Log start offset and log end offset of a shard.
    ///
    /// # Errors
    /// What the file system says.
    pub fn ends(&self, shard: u16) -> Result<(u64, u64), ReadError> {
        let segments = self.segments(shard)?;
        let start = segments.first().map_or(0, |segment| segment.base_offset);
        let end = segments.last().map(|last| self.end_of(last)).transpose()?;
        Ok((start, end.unwrap_or(start).max(start)))
    }

    /// Offset after the last record of a segment.
    ///
    /// # Errors
    /// What the file system says.
    pub fn end_of(&self, segment: &SegmentFacts) -> Result<u64, ReadError> {
        if let Some(seal) = segment.seal {
            return Ok(seal.end_offset);
        }
        let hint = look_up_index(&shard_dir(&self.dir, segment.shard), segment.number, u64::MAX);
        let mut end = segment.base_offset;
        for hint in [hint, None] {
            self.walk_segment(segment, hint, 0, &mut |offset, _| {
                end = offset + 1;
                Ok(true)
            })?;
            if hint.is_none() || end > segment.base_offset {
                break;
            }
        }
        Ok(end)
    }

    /// Walks the records `from..to` of a shard in order, until the visitor says `false`.
    ///
    /// Returns what is damaged, a (number of the segment, end) each.
    ///
    /// # Errors
    /// What the file system or the visitor says.
    pub fn walk(
        &self,
        shard: u16,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(u64, RecordView<'_>) -> io::Result<bool>,
    ) -> Result<Vec<(u64, WalkEnd)>, ReadError> {
        let segments = self.segments(shard)?;
        let first = segments.partition_point(|segment| segment.base_offset <= from);
        let lost = |gap: &super::Seal| gap.end_offset > from && gap.first_offset < to;
        let mut damage: Vec<(u64, WalkEnd)> = self
            .gaps(shard)?
            .iter()
            .filter(|gap| lost(gap))
            .map(|gap| {
                (gap.number, WalkEnd::Corrupt { offset: gap.first_offset.max(from), position: 0 })
            })
            .collect();
        for segment in segments.get(first.saturating_sub(1)..).unwrap_or_default() {
            if segment.base_offset >= to {
                break;
            }
            if segment.seal.is_some_and(|seal| seal.end_offset <= from && !seal.damaged) {
                continue;
            }
            let hint = (segment.base_offset < from)
                .then(|| look_up_index(&shard_dir(&self.dir, shard), segment.number, from))
                .flatten();
            let mut stopped = false;
            let end = self.walk_segment(segment, hint, from, &mut |offset, record| {
                stopped = offset >= to || !visit(offset, record)?;
                Ok(!stopped)
            })?;
            if let WalkEnd::Corrupt { .. } = end {
                damage.push((segment.number, end));
            }
            if stopped {
                break;
            }
        }
        Ok(damage)
    }

    /// The first offset whose record was received at or after a time (microseconds since 1970);
    /// the log end offset where there is none.
    ///
    /// # Errors
    /// What the file system says.
    pub fn offset_at(&self, shard: u16, time: i64) -> Result<u64, ReadError> {
        let segments = self.segments(shard)?;
        let (mut low, mut high) = (0, segments.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let before = match segments.get(middle) {
                Some(segment) => self.first_received(segment)?.is_none_or(|at| at < time),
                None => false,
            };
            if before { low = middle + 1 } else { high = middle }
        }
        let from = segments.get(low.saturating_sub(1)).map_or(0, |segment| segment.base_offset);
        let mut found = None;
        self.walk(shard, from, u64::MAX, &mut |offset, record| {
            if record.received_at() >= time {
                found = Some(offset);
            }
            Ok(found.is_none())
        })?;
        match found {
            Some(found) => Ok(found),
            None => Ok(self.ends(shard)?.1),
        }
    }

    /// When the oldest record kept was received, microseconds since 1970.
    ///
    /// # Errors
    /// What the file system says.
    pub fn oldest_received(&self) -> Result<Option<i64>, ReadError> {
        let mut oldest = None::<i64>;
        for shard in self.shards()? {
            for segment in self.segments(shard)? {
                if let Some(at) = self.first_received(&segment)? {
                    oldest = Some(oldest.map_or(at, |oldest| oldest.min(at)));
                    break;
                }
            }
        }
        Ok(oldest)
    }

    /// The offset of a shard that a bound means now.
    ///
    /// # Errors
    /// What the file system says.
    pub fn resolve(&self, shard: u16, bound: Bound) -> Result<u64, ReadError> {
        Ok(match bound {
            Bound::At(offset) => offset,
            // Most callers mean all: no need to look for an end.
            Bound::AfterStart(0) => 0,
            Bound::AfterStart(count) => self.ends(shard)?.0.saturating_add(count),
            Bound::BeforeEnd(count) => {
                let (start, end) = self.ends(shard)?;
                end.saturating_sub(count).max(start)
            }
            Bound::Time(time) => self.offset_at(shard, time)?,
            Bound::Ago(ago) => self.offset_at(shard, unix_micros().saturating_sub(ago))?,
        })
    }

    /// When the last group of a segment was written, microseconds since 1970.
    ///
    /// # Errors
    /// What the file system says.
    pub fn last_written(&self, segment: &SegmentFacts) -> Result<Option<i64>, ReadError> {
        let Some(mut cursor) = self.cursor(segment)? else { return Ok(None) };
        let dir = shard_dir(&self.dir, segment.shard);
        if let Some(hint) = look_up_index(&dir, segment.number, u64::MAX) {
            cursor.jump(hint)?;
        }
        let mut written = None;
        while let Step::Group(frame) = cursor.peek()? {
            written = Some(frame.written_at);
            cursor.pass(&frame);
        }
        self.keep_buffer(cursor);
        Ok(written)
    }

    fn first_received(&self, segment: &SegmentFacts) -> Result<Option<i64>, ReadError> {
        let mut received = None;
        self.walk_segment(segment, None, 0, &mut |_, record| {
            received = Some(record.received_at());
            Ok(false)
        })?;
        Ok(received)
    }
}

/// The kind of an entry that is whole and that this version does not know.
fn unknown_kind(path: &Path, position: u64) -> Option<u8> {
    let mut octets = [0; ENTRY_FRAME];
    File::open(path).and_then(|file| file.read_at(position, &mut octets)).ok()?;
    EntryFrame::unknown_kind(&octets)
}
