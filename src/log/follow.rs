//! A reader that stays at the end of a shard's log: each poll shows what was written since, once.
//!
//! A poll of an idle log reads one window of 64 KiB at the segment's end, looks at the directory's
//! time of change, and at the header of the segment prepared ahead; nothing is walked again.
//!
//! When is a segment left for the next? The next one's header may reach the disk before the last
//! group of the one before. It is left once nothing more can come: it is sealed, or a later
//! segment's first group tells a high-water mark that covers all before it (which is how it goes
//! after a failed write or sync, D5).

use std::{fs, io, time::SystemTime};

use super::{
    Log, RecordView, SegmentFacts,
    buffer::AlignedBuffer,
    cursor::{Cursor, Step},
    files::{segment_numbers, shard_dir},
    frame::{BLOCK, GroupFrame},
    reader::{GroupEnd, find_seal, visit_group},
};

/// A file made within this time may share its directory's time stamp with the one before.
const STAMP_GRAIN: std::time::Duration = std::time::Duration::from_secs(1);

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
    listed: Option<SystemTime>,
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
    pub fn new(log: &Log, shard: u16, from: u64) -> io::Result<Self> {
        let mut follower = Self {
            log: log.clone(),
            shard,
            next: from,
            number: 0,
            cursor: None,
            sealed: false,
            numbers: Vec::new(),
            listed: None,
        };
        let segments = log.segments(shard)?;
        let at = segments.partition_point(|segment| segment.base_offset <= from);
        if let Some(segment) = segments.get(at.saturating_sub(1)) {
            follower.open(segment)?;
        }
        Ok(follower)
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

    fn open(&mut self, segment: &SegmentFacts) -> io::Result<()> {
        let path = self.log.path(self.shard, segment.number);
        self.number = segment.number;
        self.sealed = segment.seal.is_some();
        self.cursor = Cursor::open(&path, segment.seal, AlignedBuffer::default())?;
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
    ) -> io::Result<Vec<Damage>> {
        self.poll_below(u64::MAX, &mut |_, offset, record| {
            visit(offset, record).map(|()| Visit::More)
        })
    }

    /// Shows the records that came since, below `limit`, until the visitor has enough. A visitor
    /// gets the log as well, for [`Log::mail_data`].
    ///
    /// # Errors
    /// What the file system or the visitor says; a record whose visit failed is shown again.
    pub fn poll_below(
        &mut self,
        limit: u64,
        visit: &mut dyn FnMut(&Log, u64, RecordView<'_>) -> io::Result<Visit>,
    ) -> io::Result<Vec<Damage>> {
        let mut damage = Vec::new();
        while self.next < limit && self.drain(limit, visit, &mut damage)? {
            let Some(successor) = self.successor()? else { break };
            if !self.settled()? {
                break;
            }
            // What came between the look at the end and the look at the seal.
            if !self.drain(limit, visit, &mut damage)? {
                break;
            }
            self.open(&successor)?;
        }
        Ok(damage)
    }

    /// Shows what the segment holds; true where all of it was shown.
    fn drain(
        &mut self,
        limit: u64,
        visit: &mut dyn FnMut(&Log, u64, RecordView<'_>) -> io::Result<Visit>,
        damage: &mut Vec<Damage>,
    ) -> io::Result<bool> {
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
                    damage.push(Damage { segment, offset, position });
                    if cursor.resync()? {
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
                let (log, next) = (&self.log, &mut self.next);
                let end = visit_group(&frame, payload, *next, &mut |offset, record| {
                    let wish = match offset < limit {
                        true => visit(log, offset, record)?,
                        false => Visit::Later,
                    };
                    if wish != Visit::Later {
                        *next = offset + 1;
                    }
                    Ok(wish == Visit::More)
                })?;
                match end {
                    GroupEnd::Stopped => return Ok(false),
                    GroupEnd::Last { offset, at } => {
                        damage.push(Damage { segment, offset, position: position + at });
                        return Ok(false);
                    }
                    GroupEnd::Bad { offset, at } => {
                        damage.push(Damage { segment, offset, position: position + at });
                    }
                    GroupEnd::Good => {}
                }
                self.next = behind;
            }
            cursor.pass(&frame);
        }
    }

    /// The next segment that has a header.
    fn successor(&mut self) -> io::Result<Option<SegmentFacts>> {
        self.list()?;
        for &number in self.numbers.iter().filter(|&&number| number > self.number) {
            // The seal is looked for again when the segment is opened for good.
            if let Some(facts) = self.log.facts(self.shard, number, None)? {
                let seal = find_seal(&self.log.seals(self.shard)?, number);
                return Ok(Some(SegmentFacts { seal, ..facts }));
            }
        }
        Ok(None)
    }

    /// Lists the segment files where the directory has changed.
    fn list(&mut self) -> io::Result<()> {
        let dir = shard_dir(&self.log.dir, self.shard);
        let changed = fs::metadata(&dir)?.modified()?;
        let recent = changed.elapsed().is_ok_and(|age| age < STAMP_GRAIN);
        if recent || self.listed != Some(changed) {
            self.numbers = segment_numbers(&dir)?;
            self.listed = Some(changed);
        }
        Ok(())
    }

    /// Whether nothing more can come in this segment.
    fn settled(&mut self) -> io::Result<bool> {
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
