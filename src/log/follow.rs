//! A reader that stays at the end of a shard's log: each poll shows what was written since the last
//! one, once.
//!
//! A poll of an idle log reads one window of 64 KiB at the segment's end, looks at the directory's
//! modification time, and at the header of the segment prepared ahead; nothing is walked again.
//!
//! When does it leave a segment for the next one? The header of the next may reach the disk before
//! the last group of this one. It leaves once nothing more can come: the segment is sealed, or the
//! first group of a later segment has a high-water mark that covers all before it (which happens
//! after a failed write or sync, D5). Writes complete in any order: a segment whose header has not
//! come yet is waited for, where offsets are missing between what was shown and the segment after it.
//!
//! A sealed segment that is missing is skipped and reported. One that cannot be read is first
//! retried for a while, because the cause may pass.

use std::{
    fmt, fs, io,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Log, Operation, ReadError, RecordView, Seal, SegmentFacts,
    buffer::AlignedBuffer,
    cursor::{Cursor, Step},
    files::{segment_numbers, shard_dir},
    frame::{BLOCK, GroupFrame},
    reader::{GroupEnd, find_seal, visit_group},
};

/// For how long a segment that cannot be read holds a reader up.
const PATIENCE: Duration = Duration::from_secs(5);

/// A file made within this time may share its directory's time stamp with the one before.
const STAMP_GRAIN: Duration = Duration::from_secs(1);

/// See the module's page. Lives as long as a tail.
#[derive(Debug)]
pub struct Follower {
    log: Log,
    shard: u16,
    next: u64,
    number: u64,
    cursor: Option<Cursor>,
    sealed: bool,
    numbers: Vec<u64>,
    /// Those of them that were sealed then.
    seals: Vec<Seal>,
    /// Sealed segments that are missing.
    gaps: Vec<Seal>,
    listed: Option<SystemTime>,
    /// Since when a segment cannot be read.
    trouble: Option<(u64, Instant)>,
    patience: Duration,
}

/// Where a follower met damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Number of the segment.
    pub segment: u64,
    /// First offset that is missing.
    pub offset: u64,
    /// In the segment file.
    pub position: u64,
    /// Behind the last offset that is missing, where the whole rest of a segment is.
    pub end: Option<u64>,
    /// The segment's file is missing.
    pub missing: bool,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, position, .. } = self;
        match (self.end, self.missing) {
            (Some(end), true) => {
                write!(f, "records {offset}..{end} are lost: segment {segment} is missing")
            }
            (Some(end), false) => write!(
                f,
                "records {offset}..{end} are lost or cannot be read: segment {segment}, position \
                 {position}"
            ),
            (None, _) => write!(f, "damaged from here on: segment {segment}, position {position}"),
        }
    }
}

/// What a visitor wants after a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// The next one.
    More,
    /// This one, and no more for now.
    Enough,
    /// Not even this one: the next poll shows it again.
    Later,
}

impl Follower {
    /// Begins at an offset.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new(log: &Log, shard: u16, from: u64) -> Result<Self, ReadError> {
        let mut follower = Self {
            log: log.clone(),
            shard,
            next: from,
            number: 0,
            cursor: None,
            sealed: false,
            numbers: Vec::new(),
            seals: Vec::new(),
            gaps: Vec::new(),
            listed: None,
            trouble: None,
            patience: PATIENCE,
        };
        let segments = log.segments(shard)?;
        let before = segments.partition_point(|segment| segment.base_offset <= from);
        // Where none begins so early, the first poll finds the first one, and what is missing there;
        // so it does with one that cannot be read.
        if let Some(segment) = before.checked_sub(1).and_then(|before| segments.get(before)) {
            match follower.open(segment) {
                Ok(()) => {}
                Err(error) if passable(&error, segment.seal) => {}
                Err(error) => return Err(error),
            }
            if follower.cursor.is_none() {
                follower.number = segment.number - 1;
            }
        }
        Ok(follower)
    }

    /// For how long a segment that cannot be read holds it up.
    #[cfg(test)]
    pub(super) fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The shard it reads.
    #[must_use]
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// The log it reads.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The next offset wanted.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next
    }

    fn open(&mut self, segment: &SegmentFacts) -> Result<(), ReadError> {
        let path = self.log.path(self.shard, segment.number);
        self.cursor = None;
        self.cursor = Cursor::open(&path, segment.seal, AlignedBuffer::default())?;
        self.number = segment.number;
        self.sealed = segment.seal.is_some();
        let hint = super::files::look_up_index(
            &shard_dir(&self.log.dir, self.shard),
            segment.number,
            self.next,
        );
        if let (Some(cursor), Some(hint)) = (&mut self.cursor, hint)
            && segment.base_offset < self.next
        {
            cursor.jump(hint)?;
        }
        Ok(())
    }

    /// Shows every record that came since.
    ///
    /// # Errors
    /// What the file system or the visitor says.
    pub fn poll(
        &mut self,
        visit: &mut dyn FnMut(u64, RecordView<'_>) -> io::Result<()>,
    ) -> Result<Vec<Damage>, ReadError> {
        self.poll_below(u64::MAX, &mut |_, offset, record| {
            visit(offset, record).map(|()| Visit::More)
        })
    }

    /// Shows the records that came since, below `limit`, until the visitor has enough. A visitor
    /// gets the log as well, for [`Log::mail_data`].
    ///
    /// # Errors
    /// What the file system or the visitor says; a record whose visit failed is shown again. Where
    /// something was passed over before that, it is returned, and the error comes at the next call:
    /// what was passed over is reported once.
    pub fn poll_below(
        &mut self,
        limit: u64,
        visit: &mut dyn FnMut(&Log, u64, RecordView<'_>) -> io::Result<Visit>,
    ) -> Result<Vec<Damage>, ReadError> {
        let mut damage = Vec::new();
        match self.poll_into(limit, visit, &mut damage) {
            Err(error) if damage.is_empty() => Err(error),
            _ => Ok(damage),
        }
    }

    fn poll_into(
        &mut self,
        limit: u64,
        visit: &mut dyn FnMut(&Log, u64, RecordView<'_>) -> io::Result<Visit>,
        damage: &mut Vec<Damage>,
    ) -> Result<(), ReadError> {
        while self.next < limit && self.drain_or_pass(limit, visit, damage)? {
            let successor = self.successor()?;
            let gap = self.gap_before(successor.as_ref());
            let more = gap.is_some() || successor.is_some();
            if !(more || self.sealed) || !self.settled()? {
                break;
            }
            // What came between the look at the end and the look at the seal.
            if !self.drain_or_pass(limit, visit, damage)? {
                break;
            }
            self.leave(damage);
            match (gap, successor) {
                (Some(gap), next) => {
                    // What it held is guessed where it had no seal: what comes next is not.
                    let to = next.map_or(u64::MAX, |next| next.base_offset);
                    self.pass_over(gap, to, true, damage);
                }
                (None, Some(successor)) => match self.open(&successor) {
                    Ok(()) => {
                        // A header that is not that of the segment that was sealed.
                        if let (None, Some(seal)) = (&self.cursor, successor.seal) {
                            self.pass_over(seal, u64::MAX, false, damage);
                        }
                    }
                    // Deleted meanwhile: listed again at the next poll.
                    Err(error) if error.is_not_found() => {
                        self.listed = None;
                        break;
                    }
                    Err(error) => {
                        let Some(seal) = successor
                            .seal
                            .filter(|_| self.out_of_patience(successor.number, &error))
                        else {
                            return Err(error);
                        };
                        self.pass_over(seal, u64::MAX, false, damage);
                    }
                },
                // Nothing comes after it yet.
                (None, None) => break,
            }
        }
        Ok(())
    }

    /// As [`Follower::drain`]; the rest of a sealed segment that cannot be read is passed over in
    /// the end.
    fn drain_or_pass(
        &mut self,
        limit: u64,
        visit: &mut dyn FnMut(&Log, u64, RecordView<'_>) -> io::Result<Visit>,
        damage: &mut Vec<Damage>,
    ) -> Result<bool, ReadError> {
        let mut visited = false;
        let mut visit = |log: &Log, offset: u64, record: RecordView<'_>| {
            let wish = visit(log, offset, record);
            // An error of the visitor's is not the segment's.
            visited |= wish.is_err();
            wish
        };
        match self.drain(limit, &mut visit, damage) {
            Err(error) if !visited && self.sealed && self.out_of_patience(self.number, &error) => {
                let seals = self.log.seals(self.shard)?;
                let Some(seal) = find_seal(&seals, self.number) else { return Err(error) };
                self.pass_over(seal, u64::MAX, false, damage);
                Ok(true)
            }
            done => done,
        }
    }

    /// Continues after a sealed segment, and reports what of it was not shown.
    fn pass_over(&mut self, seal: Seal, to: u64, missing: bool, damage: &mut Vec<Damage>) {
        self.number = seal.number;
        self.cursor = None;
        self.sealed = true;
        self.trouble = None;
        let offset = self.next.max(seal.first_offset);
        // Of a segment that was lost before it was sealed nobody knows what it held.
        let end = if seal.damaged { seal.next_offset() } else { seal.end_offset }.min(to);
        if offset < end {
            let (segment, end) = (seal.number, Some(end));
            damage.push(Damage { segment, offset, position: 0, end, missing });
            self.next = seal.next_offset().min(to);
        }
    }

    /// Passes over the offsets that recovery left out at the end of a segment, and reports those of
    /// acknowledged records that it found lost.
    fn leave(&mut self, damage: &mut Vec<Damage>) {
        let Some(seal) = self.cursor.as_ref().and_then(Cursor::seal) else { return };
        let (offset, end) = (self.next.max(seal.end_offset), seal.next_offset());
        if offset < end {
            if seal.damaged {
                let (segment, position) = (seal.number, seal.end_position);
                damage.push(Damage { segment, offset, position, end: Some(end), missing: false });
            }
            self.next = end;
        }
    }

    /// The next missing segment, where it comes before the one that is there.
    fn gap_before(&self, successor: Option<&SegmentFacts>) -> Option<Seal> {
        let to = successor.map_or(u64::MAX, |segment| segment.number);
        self.gaps.iter().find(|gap| gap.number > self.number && gap.number < to).copied()
    }

    /// Whether a segment has been out of reach for long enough to go on without it.
    fn out_of_patience(&mut self, number: u64, error: &ReadError) -> bool {
        if !error.is_out_of_reach() {
            return false;
        }
        let since = match self.trouble {
            Some((at, since)) if at == number => since,
            _ => self.trouble.insert((number, Instant::now())).1,
        };
        since.elapsed() >= self.patience
    }

    /// Shows what the segment holds; true where all of it was shown.
    fn drain(
        &mut self,
        limit: u64,
        visit: &mut dyn FnMut(&Log, u64, RecordView<'_>) -> io::Result<Visit>,
        damage: &mut Vec<Damage>,
    ) -> Result<bool, ReadError> {
        let Some(cursor) = &mut self.cursor else { return Ok(true) };
        if !self.sealed {
            cursor.refresh();
        }
        loop {
            let (offset, position) = (cursor.next_offset().max(self.next), cursor.position());
            let segment = self.number;
            let frame = match cursor.peek()? {
                Step::Group(frame) => frame,
                Step::End => return Ok(true),
                Step::Corrupt => {
                    // Not reported before it is known where to go on: after an error it is met again.
                    let more = cursor.resync()?;
                    damage.push(Damage { segment, offset, position, end: None, missing: false });
                    if more {
                        continue;
                    }
                    self.cursor = None;
                    return Ok(true);
                }
            };
            let behind = frame.first_offset + u64::from(frame.records);
            if frame.records > 0 && behind > self.next {
                if frame.first_offset >= limit {
                    return Ok(false);
                }
                let (payload, good) = cursor.payload(&frame)?;
                if !good && !self.sealed {
                    return Ok(true);
                }
                let (log, next, number) = (&self.log, &mut self.next, self.number);
                let end = visit_group(&frame, payload, *next, &mut |offset, record| {
                    let wish = match offset < limit {
                        true => visit(log, offset, record.in_segment(number))?,
                        false => Visit::Later,
                    };
                    if wish != Visit::Later {
                        *next = offset + 1;
                    }
                    Ok(wish == Visit::More)
                })?;
                let is_last = matches!(end, GroupEnd::Last { .. });
                match end {
                    GroupEnd::Stopped => return Ok(false),
                    GroupEnd::Last { offset, at } | GroupEnd::Bad { offset, at } => {
                        let position = position + at;
                        damage.push(Damage {
                            segment,
                            offset,
                            position,
                            end: None,
                            missing: false,
                        });
                    }
                    GroupEnd::Good => {}
                }
                if is_last {
                    return Ok(false);
                }
                self.next = behind;
            }
            cursor.pass(&frame);
        }
    }

    /// The next segment that has a header; none while one before it may still get its own.
    fn successor(&mut self) -> Result<Option<SegmentFacts>, ReadError> {
        self.list()?;
        // Offsets before this one have been shown, or will never be given out.
        let left = find_seal(&self.seals, self.number).map_or(0, |seal| seal.next_offset());
        let left = left.max(self.next);
        let mut unbegun = Vec::new();
        for &number in self.numbers.iter().filter(|&&number| number > self.number) {
            // One that was sealed comes next, whether it can be read or not. Otherwise the seal is
            // looked for again when the segment is opened for good.
            let sealed = find_seal(&self.seals, number);
            if let Some(facts) = self.log.facts(self.shard, number, sealed)? {
                let seal = find_seal(&self.log.seals(self.shard)?, number);
                // Segments are sealed in their order: one without a seal before it was never used.
                let mut blank = unbegun.iter().map(|&before| self.log.is_blank(self.shard, before));
                if seal.is_none() && facts.base_offset > left && blank.any(|blank| blank) {
                    return Ok(None);
                }
                return Ok(Some(SegmentFacts { seal, ..facts }));
            }
            unbegun.extend(sealed.is_none().then_some(number));
        }
        Ok(None)
    }

    /// Lists the segment files where the directory has changed.
    fn list(&mut self) -> Result<(), ReadError> {
        let dir = shard_dir(&self.log.dir, self.shard);
        let stamp = fs::metadata(&dir).and_then(|metadata| metadata.modified());
        let changed = stamp.map_err(ReadError::io(Operation::Read, &dir))?;
        // A simulated second is over too soon for the file system's stamps.
        let simulated = mailrace_stage::unix_micros().is_some();
        let recent = simulated || changed.elapsed().is_ok_and(|age| age < STAMP_GRAIN);
        if recent || self.listed != Some(changed) {
            self.numbers = segment_numbers(&dir)?;
            self.seals = self.log.seals(self.shard)?;
            self.gaps = self.log.gaps(self.shard)?;
            self.listed = Some(changed);
        }
        Ok(())
    }

    /// Whether nothing more can come in this segment.
    fn settled(&mut self) -> Result<bool, ReadError> {
        if self.cursor.is_none() || self.sealed {
            return Ok(true);
        }
        if let Some(seal) = find_seal(&self.log.seals(self.shard)?, self.number) {
            if let Some(cursor) = &mut self.cursor {
                cursor.refresh();
                cursor.set_seal(seal);
            }
            self.sealed = true;
            return Ok(true);
        }
        for &number in self.numbers.iter().filter(|&&number| number > self.number) {
            let path = self.log.path(self.shard, number);
            let Some(mut cursor) = Cursor::open(&path, None, AlignedBuffer::default())? else {
                continue;
            };
            let first = GroupFrame::decode(cursor.block_at(BLOCK as u64)?);
            if let Some((frame, _)) = first
                && frame.nonce == cursor.header().nonce
                && frame.high_water_mark >= cursor.header().first_offset
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a reader may go on without a segment that cannot be opened.
fn passable(error: &ReadError, seal: Option<Seal>) -> bool {
    seal.is_some() && error.is_out_of_reach()
}
