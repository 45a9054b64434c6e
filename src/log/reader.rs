//! The reading side: lock-free, and safe while a server runs. It relies on the frames and never
//! repairs.
//!
//! This module lists and walks segments and puts mail data together. `lookup` finds records by
//! offset and time, `follow` keeps a position at the end, `verify` checks everything.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use super::{
    Fault, FragmentAt, Identity, Operation, ReadError, RecordView, Seal, Seals, Verdict,
    VerdictReader,
    adopt::Evidence,
    buffer::AlignedBuffer,
    chunk::read_again,
    cursor::{Cursor, Step, entries},
    faults::fault_of,
    files::{read_node, segment_numbers, segment_path, shard_dir},
    frame::{BLOCK, ENTRY_FRAME, EntryFrame, EntryKind, GroupFrame, SegmentHeader},
    inventory::Inventory,
    manifest::read_seals,
    recovery::Octets,
};

/// A data directory, opened for reading. Bulky buffers are kept from one walk to the next.
pub struct Log {
    pub(super) dir: PathBuf,
    pub(super) node: [u8; 6],
    buffer: Cell<AlignedBuffer>,
    fragment: Cell<Vec<u8>>,
    verdicts: Cell<Option<Box<VerdictReader>>>,
}

impl Clone for Log {
    fn clone(&self) -> Self {
        let (buffer, fragment, verdicts) = (Cell::default(), Cell::default(), Cell::default());
        Self { dir: self.dir.clone(), node: self.node, buffer, fragment, verdicts }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({})", self.dir.display())
    }
}

/// What of a shard's log somebody has still to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Offsets from the first record that is pending to the end, without those that recovery left out.
    pub records: u64,
    /// When that record was received, microseconds since 1970.
    pub oldest: i64,
}

/// Offsets that recovery left out, and that no record ever has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut(Vec<Range<u64>>);

impl LeftOut {
    /// How many of these offsets it holds.
    #[must_use]
    pub fn count(&self, offsets: Range<u64>) -> u64 {
        let common = |range: &Range<u64>| {
            range.end.min(offsets.end).saturating_sub(range.start.max(offsets.start))
        };
        self.0.iter().map(common).sum()
    }
}

/// What is known of one segment.
#[derive(Clone, Debug)]
pub struct SegmentFacts {
    /// Shard.
    pub shard: u16,
    /// Number.
    pub number: u64,
    /// Of the first record.
    pub base_offset: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Its seal, if it has one.
    pub seal: Option<Seal>,
}

impl SegmentFacts {
    /// `active`, `sealed` or `damaged`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.seal {
            None => "active",
            Some(seal) if seal.damaged => "damaged",
            Some(_) => "sealed",
        }
    }
}

/// What a walk over records found after the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkEnd {
    /// Stopped by the visitor, nothing damaged until there.
    Stopped,
    /// The end of what was written.
    End,
    /// A group or record fails its checksum though it is sealed. What is intact after it was
    /// visited; this is the first.
    Corrupt {
        /// First offset that is missing.
        offset: u64,
        /// Of the group or entry, in the segment file.
        position: u64,
    },
}

/// How much a segment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Records.
    pub records: u64,
    /// Behind the last record.
    pub end_offset: u64,
    /// Octets in use.
    pub bytes: u64,
    /// When its first and its last group was written, microseconds since 1970.
    pub written: Option<(i64, i64)>,
}

impl Log {
    /// Opens a data directory.
    ///
    /// # Errors
    /// [`ReadError::NoDataDir`] where it is none; [`ReadError::NodeMissing`] where the file that names
    /// its node is lost.
    pub fn open(dir: &Path) -> Result<Self, ReadError> {
        let node = read_node(dir).map_err(|error| {
            let lost = error.is_not_found()
                && Evidence::gather(dir).is_ok_and(|evidence| !evidence.is_empty());
            match lost {
                true => ReadError::NodeMissing { dir: dir.to_owned() },
                false => ReadError::NoDataDir { dir: dir.to_owned(), source: Box::new(error) },
            }
        })?;
        Ok(Self::at(dir, node))
    }

    /// A data directory whose node is known.
    pub(super) fn at(dir: &Path, node: [u8; 6]) -> Self {
        Self {
            dir: dir.to_owned(),
            node,
            buffer: Cell::default(),
            fragment: Cell::default(),
            verdicts: Cell::default(),
        }
    }

    /// The verdict on a record; `None`: there is none (yet).
    ///
    /// # Errors
    /// What the file system says.
    pub fn verdict(
        &self,
        shard: u16,
        offset: u64,
        record: RecordView<'_>,
    ) -> io::Result<Option<Verdict>> {
        let reader = self.verdicts.take();
        let mut reader = reader.unwrap_or_else(|| Box::new(VerdictReader::new(self, None)));
        let found = reader.get(shard, record.segment(), offset);
        self.verdicts.set(Some(reader));
        found
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The node's id.
    #[must_use]
    pub fn node(&self) -> [u8; 6] {
        self.node
    }

    /// The shards that have a log here.
    ///
    /// # Errors
    /// What the file system says.
    pub fn shards(&self) -> Result<Vec<u16>, ReadError> {
        let mut shards = Vec::new();
        let listing = |error| ReadError::io(Operation::List, &self.dir)(error);
        for entry in fs::read_dir(&self.dir).map_err(listing)? {
            let name = entry.map_err(listing)?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_prefix("shard-"));
            shards.extend(digits.and_then(|digits| digits.parse::<u16>().ok()));
        }
        shards.sort_unstable();
        Ok(shards)
    }

    /// Those of the shards that are wanted; of none in particular: all.
    ///
    /// # Errors
    /// [`ReadError::NoShard`] where one is wanted that is not there; [`ReadError::Io`].
    pub fn shards_among(&self, wanted: &[u16]) -> Result<Vec<u16>, ReadError> {
        let mut shards = self.shards()?;
        if let Some(&shard) = wanted.iter().find(|shard| !shards.contains(shard)) {
            return Err(ReadError::NoShard { shard, dir: self.dir.clone() });
        }
        shards.retain(|shard| wanted.is_empty() || wanted.contains(shard));
        Ok(shards)
    }

    /// The segments of a shard that are sealed or hold a header, in order. A sealed one is known
    /// from the manifest; its file is not opened.
    ///
    /// # Errors
    /// What the file system says.
    pub fn segments(&self, shard: u16) -> Result<Vec<SegmentFacts>, ReadError> {
        let seals = self.seals(shard)?;
        let mut facts = Vec::new();
        for number in segment_numbers(&shard_dir(&self.dir, shard))? {
            facts.extend(self.facts(shard, number, find_seal(&seals, number))?);
        }
        Ok(facts)
    }

    /// The seals of a shard. Read before the directory is listed: what is sealed has a file.
    pub(super) fn seals(&self, shard: u16) -> Result<Vec<Seal>, ReadError> {
        let seals = read_seals(&shard_dir(&self.dir, shard).join("manifest"))?;
        // Another log's manifest says nothing of these segments: recovery sets it aside.
        let ours = seals.owner.is_none_or(|owner| owner == self.identity(shard));
        Ok(if ours { seals.all } else { Vec::new() })
    }

    /// What recovery left out after the ends of segments.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn left_out(&self, shard: u16) -> Result<LeftOut, ReadError> {
        let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
        for seal in self.seals(shard)?.iter().filter(|seal| !seal.damaged && seal.skipped > 0) {
            // A seal is written again when its segment is deleted.
            let end = ends.entry(seal.end_offset).or_default();
            *end = seal.next_offset().max(*end);
        }
        Ok(LeftOut(ends.into_iter().map(|(from, to)| from..to).collect()))
    }

    /// What of the offsets `from..to` is left from the first record among them on.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn pending(&self, shard: u16, from: u64, to: u64) -> Result<Option<Pending>, ReadError> {
        let mut first = None;
        if from < to {
            self.walk(shard, from, to, &mut |offset, record| {
                first = Some((offset, record.received_at()));
                Ok(false)
            })?;
        }
        let Some((offset, oldest)) = first else { return Ok(None) };
        let left_out = self.left_out(shard)?.count(offset..to);
        Ok(Some(Pending { records: to.saturating_sub(offset).saturating_sub(left_out), oldest }))
    }

    pub(super) fn identity(&self, shard: u16) -> Identity {
        Identity { node: self.node, shard }
    }

    /// Looks at what must be there of a shard, and at what is.
    pub(super) fn inventory(&self, shard: u16) -> Result<(Inventory, Seals), ReadError> {
        let dir = shard_dir(&self.dir, shard);
        let mut seals = read_seals(&dir.join("manifest"))?;
        let identity = self.identity(shard);
        if seals.owner.is_some_and(|owner| owner != identity) {
            seals.all.clear();
        }
        Ok((Inventory::take(&dir, identity, &seals)?, seals))
    }

    /// What is wrong with a shard's log, as far as the manifest and the front of each segment show.
    ///
    /// # Errors
    /// What the file system says.
    pub fn faults(&self, shard: u16) -> Result<Vec<Fault>, ReadError> {
        let dir = shard_dir(&self.dir, shard);
        let (inventory, _) = self.inventory(shard)?;
        let found = inventory.items.iter().map(|item| fault_of(&dir, shard, &inventory, item).0);
        Ok(found.flatten().collect())
    }

    /// Sealed segments whose files are missing, though nobody deleted them on purpose, by number.
    ///
    /// # Errors
    /// What the file system says.
    pub fn gaps(&self, shard: u16) -> Result<Vec<Seal>, ReadError> {
        let dir = shard_dir(&self.dir, shard);
        let read = || read_seals(&dir.join("manifest"));
        let missing = |seals: &Seals, numbers: &[u64]| {
            let first = numbers.first().copied().unwrap_or(u64::MAX);
            let mut missing = Vec::new();
            if seals.owner.is_some_and(|owner| owner != self.identity(shard)) {
                return missing;
            }
            let latest: BTreeMap<u64, &Seal> =
                seals.all.iter().map(|seal| (seal.number, seal)).collect();
            for (number, seal) in latest {
                // An earlier version kept no record of what it deleted from the front.
                let unrecorded = seals.owner.is_none() && number < first;
                if !seal.removed && !unrecorded && numbers.binary_search(&number).is_err() {
                    missing.push(*seal);
                }
            }
            missing
        };
        let seals = read()?;
        let numbers = segment_numbers(&dir)?;
        let mut gaps = missing(&seals, &numbers);
        if !gaps.is_empty() {
            // Retention records what it deletes before it deletes it: what is missing by now and
            // not recorded by now is lost.
            gaps.retain(|seal| !self.path(shard, seal.number).exists());
            let seals = read()?;
            gaps.retain(|gap| seals.find(gap.number).is_none_or(|seal| !seal.removed));
        }
        Ok(gaps)
    }

    /// Facts of one segment; `None` where it is gone, or has neither seal nor header, or its header
    /// is another log's or number's.
    pub(super) fn facts(
        &self,
        shard: u16,
        number: u64,
        seal: Option<Seal>,
    ) -> Result<Option<SegmentFacts>, ReadError> {
        let path = self.path(shard, number);
        let gone = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Ok(None),
            _ => Err(ReadError::io(Operation::Read, &path)(error)),
        };
        let (base_offset, bytes) = match seal {
            // Made ready and never used.
            Some(seal) if seal.removed && seal.end_position == 0 => return Ok(None),
            Some(seal) => match fs::metadata(&path) {
                Ok(metadata) => (seal.first_offset, metadata.len()),
                Err(error) => return gone(error),
            },
            None => {
                let mut block = [0; BLOCK];
                let opened = File::open(&path).and_then(|file| {
                    file.read_at(0, &mut block)?;
                    Ok(file.metadata()?.len())
                });
                let bytes = match opened {
                    Ok(bytes) => bytes,
                    // Start and `log verify` name it.
                    Err(error) if is_lost(&error) => return Ok(None),
                    Err(error) => return gone(error),
                };
                let Some((header, _)) = SegmentHeader::decode(&block) else { return Ok(None) };
                if header.identity != self.identity(shard) || header.number != number {
                    return Ok(None);
                }
                (header.first_offset, bytes)
            }
        };
        Ok(Some(SegmentFacts { shard, number, base_offset, bytes, seal }))
    }

    /// Whether nothing was written to the beginning of a segment yet.
    pub(super) fn is_blank(&self, shard: u16, number: u64) -> bool {
        let mut block = [0; BLOCK];
        let read =
            File::open(self.path(shard, number)).and_then(|file| file.read_at(0, &mut block));
        read.is_ok() && block.iter().all(|&octet| octet == 0)
    }

    pub(super) fn path(&self, shard: u16, number: u64) -> PathBuf {
        segment_path(&shard_dir(&self.dir, shard), number)
    }

    pub(super) fn cursor(&self, segment: &SegmentFacts) -> Result<Option<Cursor>, ReadError> {
        let path = self.path(segment.shard, segment.number);
        Cursor::open(&path, segment.seal, self.buffer.take())
    }

    pub(super) fn keep_buffer(&self, cursor: Cursor) {
        self.buffer.set(cursor.into_buffer());
    }

    /// Visits the records of a segment from an offset on, until the visitor says `false`.
    ///
    /// `hint` is a position from the sparse index; where no group lies there, the walk begins at
    /// the front.
    ///
    /// # Errors
    /// What the file system or the visitor says.
    pub fn walk_segment(
        &self,
        segment: &SegmentFacts,
        hint: Option<u64>,
        from: u64,
        visit: &mut dyn FnMut(u64, RecordView<'_>) -> io::Result<bool>,
    ) -> Result<WalkEnd, ReadError> {
        let corrupt = WalkEnd::Corrupt { offset: segment.base_offset, position: 0 };
        let path = self.path(segment.shard, segment.number);
        let mut cursor = match Cursor::open(&path, segment.seal, self.buffer.take()) {
            Ok(Some(cursor)) => cursor,
            Ok(None) => return Ok(if segment.seal.is_some() { corrupt } else { WalkEnd::End }),
            Err(error) if segment.seal.is_some() && error.is_lost() => return Ok(corrupt),
            Err(error) => return Err(error),
        };
        if let Some(hint) = hint {
            cursor.jump(hint)?;
        }
        let end = walk(&mut cursor, segment.seal, from, &mut |offset, record| {
            visit(offset, record.in_segment(segment.number))
        });
        self.keep_buffer(cursor);
        end
    }

    /// Measures a segment: by its seal, or by walking an active one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn extent(&self, segment: &SegmentFacts) -> Result<Extent, ReadError> {
        let base = segment.base_offset;
        let mut extent = Extent { end_offset: base, ..Extent::default() };
        if let Some(seal) = segment.seal {
            extent.records = seal.end_offset - seal.first_offset;
            extent.end_offset = seal.end_offset;
            extent.bytes = seal.end_position;
        }
        let mut cursor = match self.cursor(segment) {
            Ok(Some(cursor)) => cursor,
            Ok(None) => return Ok(extent),
            // What is sealed is known without its file.
            Err(_) if segment.seal.is_some() => return Ok(extent),
            Err(error) => return Err(error),
        };
        while let Step::Group(frame) = cursor.peek()? {
            let first = extent.written.map_or(frame.written_at, |(first, _)| first);
            if segment.seal.is_some() {
                extent.written = Some((first, frame.written_at));
                break;
            }
            if !cursor.payload(&frame)?.1 {
                break;
            }
            extent.written = Some((first, frame.written_at));
            cursor.pass(&frame);
        }
        if segment.seal.is_none() {
            extent.end_offset = cursor.next_offset();
            extent.records = extent.end_offset - base;
            extent.bytes = cursor.position();
        }
        self.keep_buffer(cursor);
        Ok(extent)
    }

    /// Shows the mail data of a record, chunk by chunk.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] where a fragment fails its checksum, [`ReadError::Unreadable`] where its
    /// file is missing or cannot be read; what the visitor says.
    pub fn mail_data(
        &self,
        shard: u16,
        record: RecordView<'_>,
        mut visit: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), ReadError> {
        let mut open: Option<(u64, File)> = None;
        let mut octets = self.fragment.take();
        for fragment in record.fragments() {
            if open.as_ref().is_none_or(|(number, _)| *number != fragment.segment) {
                let path = self.path(shard, fragment.segment);
                let file = open_fragment(&path)?;
                open = Some((fragment.segment, file));
            }
            if let Some((number, file)) = &open {
                let path = || self.path(shard, *number);
                let read = read_fragment(file, &path, fragment, &mut octets)?;
                visit(read).map_err(ReadError::of_visitor)?;
            }
        }
        self.fragment.set(octets);
        visit(record.inline()).map_err(ReadError::of_visitor)
    }

    /// Reads one fragment for its checksum's sake.
    pub(super) fn check_fragment(&self, shard: u16, fragment: FragmentAt) -> Result<(), ReadError> {
        let mut octets = self.fragment.take();
        let path = self.path(shard, fragment.segment);
        read_fragment(&open_fragment(&path)?, &|| path.clone(), fragment, &mut octets)?;
        self.fragment.set(octets);
        Ok(())
    }
}

pub(super) fn find_seal(seals: &[Seal], number: u64) -> Option<Seal> {
    seals.iter().rev().find(|seal| seal.number == number).copied()
}

/// Whether an error of a file's says that its content is out of reach, and not that the process or
/// the machine is short of something.
pub(super) fn is_lost(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory
    ) || matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG | libc::ENODATA | libc::ENXIO | libc::ELOOP)
    )
}

/// Whether an error says so of a file that this process may be kept from reading as well.
pub(super) fn is_out_of_reach(error: &io::Error) -> bool {
    is_lost(error) || error.kind() == io::ErrorKind::PermissionDenied
}

impl ReadError {
    /// See [`is_lost`].
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_lost(source))
    }

    /// See [`is_out_of_reach`].
    pub(super) fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_out_of_reach(source))
    }
}

/// Walks a cursor to the end of its segment.
fn walk(
    cursor: &mut Cursor,
    seal: Option<Seal>,
    from: u64,
    visit: &mut dyn FnMut(u64, RecordView<'_>) -> io::Result<bool>,
) -> Result<WalkEnd, ReadError> {
    let mut end = WalkEnd::End;
    let note = |end: &mut WalkEnd, offset, position| {
        if *end == WalkEnd::End {
            *end = WalkEnd::Corrupt { offset, position };
        }
    };
    loop {
        let (offset, position) = (cursor.next_offset(), cursor.position());
        let frame = match cursor.peek()? {
            Step::Group(frame) => frame,
            Step::End => break,
            Step::Corrupt => {
                note(&mut end, offset, position);
                if cursor.resync()? {
                    continue;
                }
                break;
            }
        };
        if frame.records > 0 && frame.first_offset + u64::from(frame.records) > from {
            let (payload, good) = cursor.payload(&frame)?;
            if !good && seal.is_none() {
                break;
            }
            match visit_group(&frame, payload, from, visit)? {
                // A record that is asked for and not found lies where the damage is.
                GroupEnd::Stopped if end == WalkEnd::End => return Ok(WalkEnd::Stopped),
                GroupEnd::Stopped => return Ok(end),
                GroupEnd::Last { offset, at } => {
                    note(&mut end, offset, position + at);
                    return Ok(end);
                }
                GroupEnd::Good => {}
                GroupEnd::Bad { offset, at } => note(&mut end, offset, position + at),
            }
        }
        cursor.pass(&frame);
    }
    if seal.is_some_and(|seal| seal.damaged) {
        note(&mut end, cursor.next_offset(), cursor.position());
    }
    Ok(end)
}

/// What a group's records came to.
pub(super) enum GroupEnd {
    /// The visitor has had enough.
    Stopped,
    /// The visitor has had enough, after this damage.
    Last {
        /// As below.
        offset: u64,
        /// As below.
        at: u64,
    },
    /// Each was visited.
    Good,
    /// This one is the first that was not.
    Bad {
        /// Its offset.
        offset: u64,
        /// Its entry, from the start of the group.
        at: u64,
    },
}

/// Visits the records of one group. A damaged group's whole records are shown as well: each has a
/// checksum of its own, and its offset must be the one that is due, so remains of an older use of
/// the block are not taken for records.
pub(super) fn visit_group(
    frame: &GroupFrame,
    payload: &[u8],
    from: u64,
    visit: &mut dyn FnMut(u64, RecordView<'_>) -> io::Result<bool>,
) -> Result<GroupEnd, ReadError> {
    let behind = frame.first_offset + u64::from(frame.records);
    let mut due = frame.first_offset;
    let mut bad = None;
    for entry in entries(payload) {
        let position = (super::frame::GROUP_FRAME + entry.at) as u64;
        let Some(head) = entry.frame else {
            bad.get_or_insert((due, position));
            break;
        };
        if head.kind == EntryKind::Fragment {
            continue;
        }
        if head.offset < due || head.offset >= behind {
            bad.get_or_insert((due, position));
            continue;
        }
        due = head.offset + 1;
        if head.offset < from {
            continue;
        }
        match entry.content.and_then(|content| RecordView::new(head.kind, content)) {
            Some(record) => {
                if !visit(head.offset, record).map_err(ReadError::of_visitor)? {
                    return Ok(
                        bad.map_or(GroupEnd::Stopped, |(offset, at)| GroupEnd::Last { offset, at })
                    );
                }
            }
            None => {
                bad.get_or_insert((head.offset, position));
            }
        }
    }
    if due < behind {
        bad.get_or_insert((due, 0));
    }
    Ok(bad.map_or(GroupEnd::Good, |(offset, at)| GroupEnd::Bad { offset, at }))
}

/// Reads a fragment, once more where its checksum fails (D10).
fn read_fragment<'a>(
    file: &File,
    path: &dyn Fn() -> PathBuf,
    fragment: FragmentAt,
    octets: &'a mut Vec<u8>,
) -> Result<&'a [u8], ReadError> {
    let len = ENTRY_FRAME + fragment.bytes as usize;
    if octets.len() < len {
        octets.resize(len, 0);
    }
    let octets = octets.get_mut(..len).unwrap_or_default();
    let whole = |octets: &[u8], read: usize| {
        read == len
            && EntryFrame::decode(octets).is_some_and(|(frame, content)| {
                frame.kind == EntryKind::Fragment
                    && frame.crc == fragment.crc
                    && content.len() == fragment.bytes as usize
            })
    };
    let failed = |error| out_of_reach(Operation::Read, &path(), error);
    let mut read = file.read_at(fragment.position, octets).map_err(failed)?;
    if !whole(octets, read) {
        read = read_again(file, fragment.position, octets).map_err(failed)?;
    }
    if whole(octets, read) {
        return Ok(octets.get(ENTRY_FRAME..).unwrap_or_default());
    }
    let what = "a fragment of mail data fails its checksum".to_owned();
    Err(ReadError::Damaged { path: path(), position: fragment.position, what })
}

fn open_fragment(path: &Path) -> Result<File, ReadError> {
    File::open(path).map_err(|error| out_of_reach(Operation::Open, path, error))
}

/// Mail data that is not there, or cannot be read, is damage.
fn out_of_reach(operation: Operation, path: &Path, source: io::Error) -> ReadError {
    match is_out_of_reach(&source) {
        true => ReadError::Unreadable { path: path.to_owned(), source },
        false => ReadError::io(operation, path)(source),
    }
}
