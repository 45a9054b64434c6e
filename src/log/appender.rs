//! The writing end of a shard's log, sans-IO: records in, operations out, completions in.
//!
//! Group commit: while one sync is under way the next group gathers; no wait is added. A group with
//! records is handed out once no sync is under way. Its sync starts only after every earlier write
//! has completed: linked to the group's own write if that is the only one outstanding, as an
//! operation of its own otherwise. Fragments of large messages are written as they come and wait
//! for nothing; the sync of the record that names them covers them.
//!
//! Order of calls for the driver: `append*` as mail comes, `poll_op` until `None`, `handle_write`
//! and `handle_sync` for each completion, `poll_event` until `None`.

use std::{collections::VecDeque, io, time::Duration};

use super::{
    FragmentAt, Identity, Mail, Offset, Seal,
    buffer::AlignedBuffer,
    frame::{
        BLOCK, ENTRY_FRAME, EntryFrame, EntryKind, GROUP_FRAME, GroupFrame, SegmentHeader, crc,
    },
    operation::{
        AppendError, FRAGMENT_BUFFER_BYTES, FragmentBuffer, GroupBuffer, IndexEntry, LogEvent, Op,
        Options, Spare, SyncPolicy,
    },
    record,
};
use mailrace_stage::{Bug, planted};

/// Fragment buffers kept for the next: 16 MiB. A buffer that is given back to the system costs as
/// much to get again, in cleared pages, as the copy into it.
const FRAGMENT_BUFFERS_KEPT: usize = 64;

/// Octets between entries of the sparse index.
const INDEX_STEP: u64 = 1 << 20;

/// Poisonings within [`POISON_WINDOW`] after which the log goes read-only (D5).
const POISONINGS_MAX: usize = 3;
const POISON_WINDOW: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Active {
    number: u64,
    nonce: [u8; 16],
    bytes: u64,
    first_offset: u64,
    position: u64,
    groups: u64,
    chain: u32,
    end_offset: u64,
    indexed: u64,
    /// Index entries of groups that no sync has covered yet.
    unindexed: VecDeque<IndexEntry>,
    /// What a sync has covered: the offset after the last record, the position after its group.
    synced: (u64, u64),
    /// First segment that holds mail data of its records.
    reach: u64,
}

/// A write, queued or under way.
#[derive(Debug)]
struct Flight {
    op: u64,
    segment: u64,
    position: u64,
    /// Octets of its buffer, which is the driver's while the write is under way.
    len: usize,
    /// First offset and end of the group; equal where it holds no record.
    offsets: (u64, u64),
    orphan: bool,
}

impl Flight {
    fn has_records(&self) -> bool {
        self.offsets.0 < self.offsets.1
    }
}

#[derive(Debug)]
struct Syncing {
    op: u64,
    segment: u64,
    /// Records below are durable once it returned.
    covers: u64,
    /// Behind the last group that it covers.
    position: u64,
    orphan: bool,
}

/// See the module's page. Lives on its shard.
#[derive(Debug)]
pub struct Appender {
    identity: Identity,
    options: Options,
    next: u64,
    high_water_mark: u64,
    /// End of the records in groups that were closed.
    closed: u64,
    active: Option<Active>,
    /// Rolled, not yet synced to their end.
    closing: VecDeque<Active>,
    spare: Option<Spare>,
    gather: AlignedBuffer,
    gather_first: u64,
    /// First segment that holds mail data of the records that gather.
    gather_reach: u64,
    outgoing: VecDeque<(Flight, AlignedBuffer)>,
    writing: Vec<Flight>,
    syncing: Option<Syncing>,
    events: VecDeque<LogEvent>,
    pool: Vec<AlignedBuffer>,
    fragments: Vec<AlignedBuffer>,
    waiting_bytes: usize,
    next_op: u64,
    poisoned: Vec<u64>,
    /// Poisoned segments whose seals are not durable yet.
    unsealed: Vec<u64>,
    poisonings: Vec<Duration>,
    read_only: bool,
    /// Microseconds since 1970, as last passed in: for people (D14).
    unix_micros: i64,
}

impl Appender {
    /// An appender whose first record gets offset `next`. It needs a segment before it takes one.
    #[must_use]
    pub fn new(identity: Identity, options: Options, next: Offset) -> Self {
        Self {
            identity,
            options,
            next: next.get(),
            high_water_mark: next.get(),
            closed: next.get(),
            active: None,
            closing: VecDeque::new(),
            spare: None,
            gather: AlignedBuffer::new(64 * 1024),
            gather_first: next.get(),
            gather_reach: u64::MAX,
            outgoing: VecDeque::new(),
            writing: Vec::new(),
            syncing: None,
            events: VecDeque::new(),
            pool: Vec::new(),
            fragments: Vec::new(),
            waiting_bytes: 0,
            next_op: 0,
            poisoned: Vec::new(),
            unsealed: Vec::new(),
            poisonings: Vec::new(),
            read_only: false,
            unix_micros: 0,
        }
    }

    /// The wall clock's time, microseconds since 1970: written down with each group, for people.
    pub fn set_unix_micros(&mut self, unix_micros: i64) {
        self.unix_micros = unix_micros;
    }

    /// The wall clock's time, as last given.
    #[must_use]
    pub fn unix_micros(&self) -> i64 {
        self.unix_micros
    }

    /// Whose log it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// First offset not yet synced.
    #[must_use]
    pub fn high_water_mark(&self) -> Offset {
        Offset::new(self.high_water_mark)
    }

    /// Offset of the next record.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        Offset::new(self.next)
    }

    /// Whether a prepared segment would be welcome.
    #[must_use]
    pub fn wants_segment(&self) -> bool {
        self.spare.is_none() && !self.read_only
    }

    /// Whether records can be taken.
    #[must_use]
    pub fn has_segment(&self) -> bool {
        self.active.is_some() || self.spare.is_some()
    }

    /// Whether `bytes` beyond what gathers have room in the segments at hand. Where they have not,
    /// the driver reads no further mail until the next segment is prepared.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        let gathered = self.gather.len().next_multiple_of(BLOCK) as u64;
        self.spare.is_some()
            || self.active.as_ref().is_some_and(|a| a.position + gathered + bytes <= a.bytes)
    }

    /// The log gave up after repeated failures.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// First segment that holds mail data of records whose segment has no seal yet; `u64::MAX`
    /// where there are none. Those of unfinished messages are the driver's to know.
    #[must_use]
    pub fn reach(&self) -> u64 {
        let segments = self.closing.iter().chain(&self.active);
        segments.map(|active| active.reach).min().unwrap_or(u64::MAX).min(self.gather_reach)
    }

    /// Octets taken and not yet durable.
    #[must_use]
    pub fn unsynced_bytes(&self) -> usize {
        self.waiting_bytes + self.gather.len()
    }

    /// Nothing gathers, nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.gather.is_empty()
            && self.outgoing.is_empty()
            && self.writing.is_empty()
            && self.syncing.is_none()
            && self.closing.is_empty()
            && self.closed == self.high_water_mark
    }

    /// Takes a prepared segment.
    pub fn handle_segment(&mut self, spare: Spare) {
        assert!(self.spare.is_none(), "one spare at a time");
        self.spare = Some(spare);
    }

    /// Takes a message: it becomes a record of the group that gathers.
    ///
    /// # Errors
    /// Nothing was taken and no offset was used.
    pub fn append(
        &mut self,
        mail: &Mail<'_>,
        body: &[&[u8]],
        fragments: &[FragmentAt],
    ) -> Result<Offset, AppendError> {
        if self.read_only || fragments.iter().any(|at| self.poisoned.contains(&at.segment)) {
            return Err(AppendError::Failed);
        }
        let inline: usize = body.iter().map(|chunk| chunk.len()).sum();
        let kind = record::kind(mail);
        let most = record::archive_bytes_max(kind, mail, inline, fragments.len());
        let most = ENTRY_FRAME + most + 8;
        let group_bytes_max = match self.options.sync {
            SyncPolicy::Each => 0,
            SyncPolicy::Group | SyncPolicy::None => self.options.group_bytes_max,
        };
        if !self.gather.is_empty() && self.gather.len() + most > group_bytes_max {
            self.close_group()?;
        }
        if self.unsynced_bytes() + most > self.options.unsynced_bytes_max {
            return Err(AppendError::Full);
        }
        let from = self.gather.len().max(GROUP_FRAME);
        self.ensure_room((from + most).next_multiple_of(BLOCK) as u64)?;
        if self.gather.is_empty() {
            self.gather_first = self.next;
        }
        self.gather.set_len(from + most);
        let (_, room) = self.gather.octets_mut().split_at_mut(from);
        let (frame_at, room) = room.split_at_mut(ENTRY_FRAME);
        let Ok(bytes) = record::write(kind, mail, body, fragments, room) else {
            self.gather.set_len(if from == GROUP_FRAME { 0 } else { from });
            return Err(AppendError::TooLarge);
        };
        let (record, padding) = room.split_at_mut(bytes);
        let frame = EntryFrame {
            kind,
            bytes: u32::try_from(bytes).map_err(|_| AppendError::TooLarge)?,
            offset: self.next,
            crc: crc(record),
        };
        frame.encode(frame_at);
        padding.split_at_mut(frame.span() - ENTRY_FRAME - bytes).0.fill(0);
        self.gather.set_len(from + frame.span());
        let reach = fragments.iter().map(|at| at.segment).min().unwrap_or(u64::MAX);
        self.gather_reach = self.gather_reach.min(reach);
        let offset = Offset::new(self.next);
        self.next += 1;
        Ok(offset)
    }

    /// A buffer for mail data that goes to the log ahead of its record.
    pub fn new_fragment(&mut self) -> FragmentBuffer {
        let mut buffer =
            self.fragments.pop().unwrap_or_else(|| AlignedBuffer::new(FRAGMENT_BUFFER_BYTES));
        buffer.set_len(FragmentBuffer::HEAD);
        FragmentBuffer(buffer)
    }

    /// Takes a fragment's buffer back, unwritten.
    pub fn recycle(&mut self, fragment: FragmentBuffer) {
        self.reuse(fragment.0);
    }

    /// Takes a fragment: it is written with the next operations.
    ///
    /// # Errors
    /// Nothing was taken.
    pub fn append_fragment(&mut self, fragment: FragmentBuffer) -> Result<FragmentAt, AppendError> {
        let mut buffer = fragment.0;
        if self.read_only {
            return Err(AppendError::Failed);
        }
        if self.unsynced_bytes() + buffer.len() > self.options.unsynced_bytes_max {
            return Err(AppendError::Full);
        }
        let data = buffer.len() - FragmentBuffer::HEAD;
        let frame = EntryFrame {
            kind: EntryKind::Fragment,
            bytes: u32::try_from(data).map_err(|_| AppendError::TooLarge)?,
            offset: 0,
            crc: crc(buffer.octets().split_at(FragmentBuffer::HEAD).1),
        };
        let end = GROUP_FRAME + frame.span();
        // The group that gathers keeps its claim on the room behind this fragment.
        let gathered = self.gather.len().next_multiple_of(BLOCK);
        self.ensure_room((end.next_multiple_of(BLOCK) + gathered) as u64)?;
        buffer.extend_zeroed(end);
        frame.encode(buffer.octets_mut().split_at_mut(GROUP_FRAME).1);
        let (segment, position) = self.place(buffer, self.closed, 0, u64::MAX)?;
        let position = position + GROUP_FRAME as u64;
        Ok(FragmentAt { segment, position, bytes: frame.bytes, crc: frame.crc })
    }

    /// Makes sure that a group of `bytes` fits into the active segment or the spare.
    fn ensure_room(&self, bytes: u64) -> Result<(), AppendError> {
        if let Some(active) = &self.active
            && active.position + bytes <= active.bytes
        {
            return Ok(());
        }
        let spare = self.spare.as_ref().ok_or(AppendError::NoSegment)?;
        if BLOCK as u64 + bytes <= spare.bytes { Ok(()) } else { Err(AppendError::TooLarge) }
    }

    /// Frames a group and queues its write.
    fn place(
        &mut self,
        mut buffer: AlignedBuffer,
        first_offset: u64,
        records: u32,
        reach: u64,
    ) -> Result<(u64, u64), AppendError> {
        let payload = buffer.len() - GROUP_FRAME;
        let padded = buffer.len().next_multiple_of(BLOCK);
        buffer.extend_zeroed(padded);
        let fits = self.active.as_ref().is_some_and(|a| a.position + padded as u64 <= a.bytes);
        if !fits {
            self.roll(first_offset)?;
        }
        let high_water_mark = self.high_water_mark;
        let written_at = self.unix_micros;
        let active = self.active.as_mut().ok_or(AppendError::NoSegment)?;
        let frame = GroupFrame {
            nonce: active.nonce,
            number: active.groups,
            first_offset,
            high_water_mark,
            written_at,
            records,
            payload_bytes: u32::try_from(payload).map_err(|_| AppendError::TooLarge)?,
            payload_crc: crc(buffer.octets().split_at(GROUP_FRAME).1.split_at(payload).0),
            chain: active.chain,
        };
        active.chain = frame.encode(buffer.octets_mut());
        let position = active.position;
        active.position += padded as u64;
        if planted(Bug::TailBlockAgain) && padded > BLOCK {
            active.position -= BLOCK as u64;
        }
        active.groups += 1;
        active.end_offset = first_offset + u64::from(records);
        active.reach = active.reach.min(reach);
        let segment = active.number;
        if position >= active.indexed + INDEX_STEP {
            active.indexed = position;
            active.unindexed.push_back(IndexEntry { segment, offset: first_offset, position });
        }
        self.queue(segment, position, buffer, (first_offset, first_offset + u64::from(records)));
        Ok((segment, position))
    }

    fn queue(&mut self, segment: u64, position: u64, buffer: AlignedBuffer, offsets: (u64, u64)) {
        self.waiting_bytes += buffer.len();
        let op = self.op();
        let flight = Flight { op, segment, position, len: buffer.len(), offsets, orphan: false };
        self.outgoing.push_back((flight, buffer));
    }

    fn op(&mut self) -> u64 {
        self.next_op += 1;
        self.next_op
    }

    /// Leaves the active segment for the spare.
    fn roll(&mut self, first_offset: u64) -> Result<(), AppendError> {
        let spare = self.spare.take().ok_or(AppendError::NoSegment)?;
        if let Some(full) = self.active.take() {
            self.closing.push_back(full);
        }
        let header = SegmentHeader {
            nonce: spare.nonce,
            identity: self.identity,
            number: spare.number,
            first_offset,
        };
        let mut block = AlignedBuffer::new(BLOCK);
        block.extend_zeroed(BLOCK);
        let chain = header.encode(block.octets_mut());
        self.active = Some(Active {
            number: spare.number,
            nonce: spare.nonce,
            bytes: spare.bytes,
            first_offset,
            position: BLOCK as u64,
            groups: 0,
            chain,
            end_offset: first_offset,
            indexed: 0,
            unindexed: VecDeque::new(),
            synced: (first_offset, BLOCK as u64),
            reach: spare.number,
        });
        self.queue(spare.number, 0, block, (first_offset, first_offset));
        Ok(())
    }

    /// Frames what has gathered.
    fn close_group(&mut self) -> Result<(), AppendError> {
        let empty = self.pool.pop().unwrap_or_else(|| AlignedBuffer::new(64 * 1024));
        let group = std::mem::replace(&mut self.gather, empty);
        let first = self.gather_first;
        let records = u32::try_from(self.next - first).map_err(|_| AppendError::TooLarge)?;
        let reach = std::mem::replace(&mut self.gather_reach, u64::MAX);
        self.place(group, first, records, reach)?;
        self.closed = self.next;
        Ok(())
    }

    /// The next operation to start. None while a poisoned segment's seal is not durable
    /// ([`Appender::handle_sealed`]): what is written after it tells recovery that everything before
    /// was acknowledged, and only the seal says which records were not.
    pub fn poll_op(&mut self) -> Option<Op> {
        if !self.unsealed.is_empty() {
            return None;
        }
        if self.syncing.is_none() && self.closing.is_empty() && !self.gather.is_empty() {
            let alone = !self.is_writing() && self.outgoing.is_empty();
            if self.close_group().is_err() {
                // Room was made sure of when each record was taken.
                let error = io::Error::other("a gathered group found no room");
                let segment = self.active.as_ref().map_or(0, |active| active.number);
                self.poison(segment, error, Duration::ZERO);
                return None;
            }
            let linked = alone && self.closing.is_empty() && self.outgoing.len() == 1;
            if linked && self.options.sync == SyncPolicy::Group {
                return self.start_write(true);
            }
        }
        if self.options.sync == SyncPolicy::Each {
            return self.poll_each();
        }
        // Where records wait for a sync that cannot start before all writes are through, no
        // further write is started: a stream of fragments must not hold the sync off.
        let holds_off = self.syncing.is_none()
            && self.outgoing.front().is_some_and(|(f, _)| !f.has_records())
            && self.closed > self.high_water_mark
            && !self.outgoing.iter().any(|(f, _)| f.has_records())
            && self.closing.is_empty();
        if !self.outgoing.is_empty() && !holds_off && !self.follows_unsynced_segment() {
            return self.start_write(false);
        }
        self.start_sync()
    }

    /// Whether the next write has records that an earlier segment must be synced for. Mail data of
    /// theirs may be at its end: written before that sync, a record could outlive its mail data when
    /// power is lost, and recovery could not tell that from damage. Its own sync waits all the same.
    fn follows_unsynced_segment(&self) -> bool {
        self.outgoing.front().is_some_and(|(flight, _)| {
            flight.has_records() && self.closing.iter().any(|full| full.number < flight.segment)
        })
    }

    /// `log.sync = "each"`: one record is written and synced before the next is written.
    fn poll_each(&mut self) -> Option<Op> {
        match self.outgoing.front().map(|(flight, _)| flight) {
            Some(flight) if !flight.has_records() => self.start_write(false),
            Some(_) if self.syncing.is_some() || self.is_writing() => None,
            Some(flight)
                if self.closing.front().is_none_or(|full| full.number == flight.segment) =>
            {
                self.start_write(true)
            }
            _ => self.start_sync(),
        }
    }

    fn start_write(&mut self, linked: bool) -> Option<Op> {
        let (flight, buffer) = self.outgoing.pop_front()?;
        let then_sync = linked.then(|| {
            let op = self.op();
            self.syncing = Some(Syncing {
                op,
                segment: flight.segment,
                covers: flight.offsets.1,
                position: flight.position + flight.len as u64,
                orphan: false,
            });
            op
        });
        let op = Op::Write {
            op: flight.op,
            segment: flight.segment,
            position: flight.position,
            buffer: GroupBuffer(buffer),
            then_sync,
        };
        self.writing.push(flight);
        Some(op)
    }

    /// Every write that has not completed.
    fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.writing.iter().chain(self.outgoing.iter().map(|(flight, _)| flight))
    }

    /// Whether a write is under way that a sync has to wait for: none of a poisoned segment, which
    /// may hang for long.
    fn is_writing(&self) -> bool {
        self.writing.iter().any(|flight| !flight.orphan)
    }

    fn start_sync(&mut self) -> Option<Op> {
        if self.syncing.is_some() {
            return None;
        }
        if let Some(full) = self.closing.front() {
            let number = full.number;
            let covers = full.end_offset;
            let busy = self.flights().any(|f| f.segment == number);
            if busy {
                return None;
            }
            return self.sync_op(number, covers, full.position);
        }
        let active = self.active.as_ref()?;
        let written = !self.is_writing() || planted(Bug::SyncBeforeWrite);
        let waits = self.closed > self.high_water_mark && written;
        let number = active.number;
        let covers = self.closed;
        // A record group that is still to be written is not covered.
        if !waits || self.outgoing.iter().any(|(f, _)| f.has_records()) {
            return None;
        }
        let outgoing = self.outgoing.iter().map(|(flight, _)| flight);
        let unwritten = outgoing.filter(|f| f.segment == number).map(|f| f.position);
        let position = unwritten.min().unwrap_or(active.position);
        self.sync_op(number, covers, position)
    }

    fn sync_op(&mut self, segment: u64, covers: u64, position: u64) -> Option<Op> {
        let op = self.op();
        self.syncing = Some(Syncing { op, segment, covers, position, orphan: false });
        if self.options.sync != SyncPolicy::None {
            return Some(Op::Sync { op, segment });
        }
        // `log.sync = "none"`: the mark moves at the write's completion.
        self.handle_sync(op, Ok(()), Duration::ZERO);
        self.poll_op()
    }

    /// A write completed; its buffer comes back.
    pub fn handle_write(
        &mut self,
        op: u64,
        buffer: GroupBuffer,
        result: io::Result<usize>,
        now: Duration,
    ) {
        let Some(at) = self.writing.iter().position(|flight| flight.op == op) else { return };
        let flight = self.writing.swap_remove(at);
        let Flight { segment, len, orphan, .. } = flight;
        assert!(buffer.len() == len, "the buffer of this write");
        self.waiting_bytes -= len;
        self.reuse(buffer.0);
        if orphan {
            return;
        }
        match result {
            Ok(written) if written == len || planted(Bug::ShortWriteTaken) => {
                if planted(Bug::ReplyBeforeSync) {
                    self.advance(flight.offsets.1.min(self.closed));
                }
            }
            Ok(_) => self.poison(segment, io::Error::from(io::ErrorKind::WriteZero), now),
            Err(error) => self.poison(segment, error, now),
        }
    }

    /// A sync completed.
    pub fn handle_sync(&mut self, op: u64, result: io::Result<()>, now: Duration) {
        let Some(syncing) = self.syncing.take_if(|syncing| syncing.op == op) else { return };
        if syncing.orphan {
            return;
        }
        if let Err(error) = result {
            if !planted(Bug::PoisonIgnored) {
                self.poison(syncing.segment, error, now);
            }
            return;
        }
        // D1: whatever this sync covers was written in full before it started, and lies in its
        // segment or in one that was synced to its end.
        assert!(
            planted(Bug::SyncBeforeWrite)
                || !self.flights().any(|flight| {
                    // What a poisoned segment left under way is nobody's any more.
                    !flight.orphan && flight.has_records() && flight.offsets.0 < syncing.covers
                }),
            "a sync covers completed writes only"
        );
        assert!(
            self.closing.iter().chain(&self.active).all(|other| {
                other.number == syncing.segment || other.first_offset >= syncing.covers
            }),
            "a sync covers records of its own segment only"
        );
        let mut mine = self.closing.iter_mut().chain(&mut self.active);
        if let Some(segment) = mine.find(|segment| segment.number == syncing.segment) {
            segment.synced = (syncing.covers, syncing.position);
            // Not before: an entry says that something was synced there, and recovery takes a
            // segment of zeros that has one for wiped.
            let covered = |entry: &IndexEntry| entry.position < syncing.position;
            while segment.unindexed.front().is_some_and(covered) {
                self.events.extend(segment.unindexed.pop_front().map(LogEvent::Indexed));
            }
        }
        // A segment may have been left while a sync of its earlier part was under way: it is
        // through only with the sync of all of it.
        let front = self.closing.front();
        if front
            .is_some_and(|full| full.number == syncing.segment && full.synced.1 == full.position)
        {
            let full = self.closing.pop_front().expect("it is at the front");
            self.events.push_back(LogEvent::Sealed(self.seal_of(&full)));
        }
        let others = planted(Bug::OtherSegmentSync);
        self.advance(if others { self.closed } else { syncing.covers });
    }

    fn advance(&mut self, to: u64) {
        assert!(to <= self.next, "high-water mark <= log end offset");
        if to > self.high_water_mark {
            self.high_water_mark = to;
            self.events.push_back(LogEvent::Advanced(Offset::new(to)));
        }
    }

    fn reuse(&mut self, buffer: AlignedBuffer) {
        let mut buffer = buffer;
        let capacity = buffer.capacity();
        buffer.set_len(0);
        if capacity == FRAGMENT_BUFFER_BYTES {
            if self.fragments.len() < FRAGMENT_BUFFERS_KEPT {
                self.fragments.push(buffer);
            }
        } else if (64 * 1024..=8 << 20).contains(&capacity) && self.pool.len() < 3 {
            self.pool.push(buffer);
        }
    }

    /// D5: nothing that was not synced before is believed; the segment is left for good.
    fn poison(&mut self, segment: u64, error: io::Error, now: Duration) {
        self.events.push_back(LogEvent::Poisoned { segment, error });
        let from = Offset::new(self.high_water_mark);
        let to = Offset::new(self.next);
        if from < to {
            self.events.push_back(LogEvent::Failed { from, to });
        }
        self.gather.set_len(0);
        self.gather_reach = u64::MAX;
        for (flight, _) in self.outgoing.drain(..) {
            self.waiting_bytes -= flight.len;
        }
        for flight in &mut self.writing {
            flight.orphan = true;
        }
        if let Some(syncing) = &mut self.syncing {
            syncing.orphan = true;
        }
        let mut left: Vec<_> = self.closing.drain(..).chain(self.active.take()).collect();
        let last = left.pop();
        let next = self.next;
        let mut seals: Vec<_> = left.iter().map(|active| self.cut(active, 0)).collect();
        seals.extend(last.iter().map(|active| self.cut(active, next - active.synced.0)));
        // What the syncs covered stays readable; the seals say where that ends.
        self.poisoned.extend(seals.iter().map(|seal| seal.number));
        self.unsealed.extend(seals.iter().map(|seal| seal.number));
        self.events.extend(seals.into_iter().map(LogEvent::Sealed));
        self.closed = self.next;
        self.high_water_mark = self.next;
        self.poisonings.retain(|at| now.saturating_sub(*at) < POISON_WINDOW);
        self.poisonings.push(now);
        self.read_only |= self.poisonings.len() >= POISONINGS_MAX;
    }

    /// The seal of this segment is durable.
    pub fn handle_sealed(&mut self, number: u64) {
        self.unsealed.retain(|unsealed| *unsealed != number);
    }

    fn seal_of(&self, active: &Active) -> Seal {
        Seal {
            number: active.number,
            nonce: active.nonce,
            first_offset: active.first_offset,
            end_offset: active.end_offset,
            end_position: active.position,
            damaged: false,
            skipped: 0,
            reach: Some(active.reach),
            removed: false,
        }
    }

    /// The seal of a segment of which nothing counts but what was synced.
    fn cut(&self, active: &Active, skipped: u64) -> Seal {
        // No sync of it has returned: its header may never reach the disk. Nothing in it was
        // acknowledged, so it counts as never used, and its offsets are left out.
        let unused = active.synced == (active.first_offset, BLOCK as u64);
        Seal {
            end_offset: active.synced.0,
            end_position: if unused { 0 } else { active.synced.1 },
            skipped: u32::try_from(skipped).unwrap_or(u32::MAX),
            removed: unused,
            ..self.seal_of(active)
        }
    }

    /// The seal of the active segment, when nothing is under way any more: it is left for good. What
    /// was written last may be fragments of a message that never ended, which no sync has covered:
    /// they are left out, because power can still take them.
    pub fn seal(&mut self) -> Option<Seal> {
        if !self.is_idle() {
            return None;
        }
        let active = self.active.take()?;
        Some(self.cut(&active, 0))
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<LogEvent> {
        self.events.pop_front()
    }
}
