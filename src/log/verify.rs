//! Checks everything: headers, the chain of groups, each checksum, offsets, seals, the index.
//!
//! One pass in file order. Fragments are remembered as they are read, so that the record that names
//! them needs no second read of them; those that are no longer remembered are read again.
//!
//! While a server runs, the last segments grow as they are read. A break in a segment without a
//! seal is its end, unless a later group proves that the one at the break was acknowledged. Since
//! such a proof may just have been written, the break is then checked once more before it counts.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
};

use super::{
    Condition, End, Fault, FaultKind, FragmentAt, Log, Operation, ReadError, RecordView, Seal,
    Seals, SegmentFacts,
    cursor::{Cursor, Step, entries},
    files::{read_index, shard_dir},
    frame::{BLOCK, EntryFrame, EntryKind, GROUP_FRAME, GroupFrame, SegmentHeader},
    inventory::{Inventory, lost, owner},
    reader::find_seal,
    recovery::{Octets, judge},
};

/// Fragments remembered: 16 GiB of mail under way at 256 KiB each, 4 MiB of memory.
const FRAGMENTS_MAX: usize = 1 << 16;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Acknowledged mail may be lost.
    Corrupt,
    /// Advice (an index) is wrong; no mail is.
    Warning,
    /// Nothing is wrong.
    Note,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Shard.
    pub shard: u16,
    /// Number of the segment.
    pub segment: u64,
    /// First offset concerned.
    pub offset: u64,
    /// In the segment file.
    pub position: Option<u64>,
    /// A sentence.
    pub what: String,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Segments.
    pub segments: u64,
    /// Groups.
    pub groups: u64,
    /// Records.
    pub records: u64,
    /// Fragments of large messages.
    pub fragments: u64,
    /// Octets of segment files.
    pub bytes: u64,
}

/// Receives the findings of a verification.
pub trait Witness {
    /// Something was found.
    ///
    /// # Errors
    /// Ends the verification.
    fn found(&mut self, finding: Finding) -> io::Result<()>;

    /// So much is checked.
    ///
    /// # Errors
    /// Ends the verification.
    fn progress(&mut self, checked: &Checked) -> io::Result<()> {
        let _ = checked;
        Ok(())
    }
}

/// Where a segment breaks.
struct Break {
    offset: u64,
    position: u64,
    what: String,
}

struct Verifier<'a> {
    log: &'a Log,
    shard: u16,
    checked: Checked,
    witness: &'a mut dyn Witness,
    fragments: HashMap<(u64, u64), (u32, u32)>,
    order: VecDeque<(u64, u64)>,
}

/// Checks the logs of some shards; of each segment the first break is reported.
///
/// # Errors
/// What the file system or the witness says.
pub fn verify(log: &Log, shards: &[u16], witness: &mut dyn Witness) -> Result<Checked, ReadError> {
    let mut checked = Checked::default();
    for &shard in shards {
        let (fragments, order) = (HashMap::new(), VecDeque::new());
        let mut verifier = Verifier { log, shard, checked, witness, fragments, order };
        verifier.shard()?;
        checked = verifier.checked;
    }
    Ok(checked)
}

/// Checks one segment.
///
/// # Errors
/// What the file system or the witness says.
pub(super) fn verify_segment(
    log: &Log,
    segment: &SegmentFacts,
    witness: &mut dyn Witness,
) -> Result<Checked, ReadError> {
    let (fragments, order) = (HashMap::new(), VecDeque::new());
    let (shard, checked) = (segment.shard, Checked::default());
    let mut verifier = Verifier { log, shard, checked, witness, fragments, order };
    verifier.segment(segment)?;
    Ok(verifier.checked)
}

impl Verifier<'_> {
    fn shard(&mut self) -> Result<(), ReadError> {
        let (inventory, seals) = self.log.inventory(self.shard)?;
        self.manifest(&inventory, &seals)?;
        let mut behind: Option<(u64, u64)> = None;
        for item in &inventory.items {
            if let Some(Fault { segment, offset, kind, what, .. }) = inventory.fault(item)
                && (kind != FaultKind::Truncated || item.header.is_none() || item.seal.is_none())
            {
                self.tell(Severity::Corrupt, segment, offset, None, what)?;
                continue;
            }
            if matches!(item.condition, Condition::Gone | Condition::Leftover) {
                continue;
            }
            let number = item.number;
            // A server may have sealed it since.
            let seal = item.seal.or(find_seal(&self.log.seals(self.shard)?, number));
            let Some(segment) = self.log.facts(self.shard, number, seal)? else {
                self.headless(number)?;
                continue;
            };
            if let Some((number, end)) = behind
                && segment.base_offset != end
            {
                let base = segment.base_offset;
                let (severity, what) = if base > end {
                    // Left out after a torn tail or a failed write: never used again (D5, D8).
                    (Severity::Note, format!("no segment holds offsets {end}..{base}"))
                } else {
                    let what =
                        format!("begins at offset {base}, but segment {number} ends at {end}");
                    (Severity::Corrupt, what)
                };
                self.tell(severity, segment.number, end, None, what)?;
            }
            let end = self.segment(&segment)?;
            self.checked.segments += 1;
            behind = Some((number, end.max(segment.base_offset)));
        }
        Ok(())
    }

    /// Whether the manifest can be relied on.
    fn manifest(&mut self, inventory: &Inventory, seals: &Seals) -> Result<(), ReadError> {
        let path = shard_dir(&self.log.dir, self.shard).join("manifest");
        let named = path.display();
        let identity = self.log.identity(self.shard);
        let unknown = "segments that are missing cannot be detected";
        let (severity, what) = match seals.owner {
            Some(whose) if whose != identity => {
                (Severity::Corrupt, format!("{named} belongs to {}: {unknown}", owner(whose)))
            }
            None if inventory.begun.is_some() && seals.all.is_empty() => {
                (Severity::Corrupt, format!("{named} is missing or empty: {unknown}"))
            }
            _ if seals.damaged > 0 => {
                let bad = seals.damaged;
                (Severity::Warning, format!("{named}: {bad} damaged records are skipped"))
            }
            _ => return Ok(()),
        };
        self.tell(severity, 0, 0, None, what)
    }

    fn tell(
        &mut self,
        severity: Severity,
        segment: u64,
        offset: u64,
        position: Option<u64>,
        what: String,
    ) -> Result<(), ReadError> {
        let shard = self.shard;
        let finding = Finding { severity, shard, segment, offset, position, what };
        self.witness.found(finding).map_err(ReadError::of_visitor)
    }

    /// A file without header and seal: prepared ahead, or its header is damaged.
    fn headless(&mut self, number: u64) -> Result<(), ReadError> {
        let path = self.log.path(self.shard, number);
        let Ok(file) = File::open(&path) else { return Ok(()) };
        let mut blocks = [0; 2 * BLOCK];
        file.read_at(0, &mut blocks).map_err(ReadError::io(Operation::Read, &path))?;
        let (header, group) = blocks.split_at(BLOCK);
        // A server may have written it a moment ago.
        if SegmentHeader::decode(header).is_some() {
            return Ok(());
        }
        if let Some((frame, _)) = GroupFrame::decode(group) {
            let what = "the segment's header is damaged".to_owned();
            self.tell(Severity::Corrupt, number, frame.first_offset, Some(0), what)?;
        } else if header.iter().any(|&octet| octet != 0) {
            let what = "a torn header: the segment was never used".to_owned();
            self.tell(Severity::Note, number, 0, Some(0), what)?;
        }
        Ok(())
    }

    /// Returns the offset after the segment's last record.
    fn segment(&mut self, segment: &SegmentFacts) -> Result<u64, ReadError> {
        // Deleted since it was listed, or what `Inventory` says of it.
        let opened = match self.log.cursor(segment) {
            Err(error) if error.is_not_found() => return Ok(segment.base_offset),
            opened => opened?,
        };
        let Some(mut cursor) = opened else {
            let what = "the segment's header is damaged".to_owned();
            self.tell(Severity::Corrupt, segment.number, segment.base_offset, Some(0), what)?;
            return Ok(segment.seal.map_or(segment.base_offset, |seal| seal.end_offset));
        };
        let read = read_index(&shard_dir(&self.log.dir, self.shard), segment.number);
        let (index, bad) = read.unwrap_or_default();
        // An entry of a running server may be half written.
        if bad > 0 && segment.seal.is_some() {
            let what = format!("{bad} bytes of the index are not valid entries");
            self.tell(Severity::Warning, segment.number, segment.base_offset, None, what)?;
        }
        let mut index: HashMap<u64, u64> =
            index.iter().map(|entry| (entry.position, entry.offset)).collect();
        let mut broken = check_header(&cursor, segment, self.log, self.shard);
        while broken.is_none() {
            broken = match self.walk(&mut cursor, segment, &mut index) {
                Err(error) if error.is_lost() => {
                    let (offset, position) = (cursor.next_offset(), cursor.position());
                    let what = format!("the file cannot be read: {error}");
                    Some(Break { offset, position, what })
                }
                walked => walked?,
            };
            if broken.is_some() || segment.seal.is_some() {
                break;
            }
            match self.tail(&mut cursor, segment)? {
                Tail::Grown => {}
                Tail::End => break,
                Tail::Broken(found) => broken = Some(found),
            }
        }
        let end_position = cursor.position();
        let end = match &broken {
            Some(_) => segment.seal.map_or(cursor.next_offset(), |seal| seal.end_offset),
            None => cursor.next_offset(),
        };
        match broken {
            Some(Break { offset, position, what }) => {
                self.tell(Severity::Corrupt, segment.number, offset, Some(position), what)?;
            }
            None => {
                index.retain(|&position, _| position < end_position);
                if let Some((&position, &offset)) = index.iter().min() {
                    let what = format!("{} wrong index entries, the first here", index.len());
                    self.tell(Severity::Warning, segment.number, offset, Some(position), what)?;
                }
            }
        }
        self.log.keep_buffer(cursor);
        Ok(end)
    }

    /// Walks from the cursor to the end or the first break.
    fn walk(
        &mut self,
        cursor: &mut Cursor,
        segment: &SegmentFacts,
        index: &mut HashMap<u64, u64>,
    ) -> Result<Option<Break>, ReadError> {
        loop {
            let (offset, position) = (cursor.next_offset(), cursor.position());
            let broken = |what: &str| Some(Break { offset, position, what: what.to_owned() });
            let frame = match cursor.peek()? {
                Step::Group(frame) => frame,
                Step::End => break,
                Step::Corrupt if segment.seal.is_some_and(|s| s.end_position > cursor.bytes()) => {
                    let (seal, bytes) = (segment.seal, cursor.bytes());
                    let needed = seal.map_or(0, |seal| seal.end_position);
                    return Ok(broken(&format!(
                        "the file was truncated: {bytes} of {needed} bytes are left; {} are lost \
                         from here on",
                        lost(seal.map(|seal| Seal { first_offset: offset, ..seal }).as_ref())
                    )));
                }
                Step::Corrupt => return Ok(broken("a group's frame or chain is damaged")),
            };
            if frame.first_offset != offset {
                return Ok(broken("offsets are not contiguous"));
            }
            let (payload, good) = cursor.payload(&frame)?;
            if !good && segment.seal.is_none() {
                break;
            }
            if let Some(found) = self.group(segment.number, position, &frame, payload, good)? {
                return Ok(Some(found));
            }
            if index.get(&position) == Some(&frame.first_offset) {
                index.remove(&position);
            }
            cursor.pass(&frame);
            self.checked.groups += 1;
            self.checked.bytes += frame.span();
            self.witness.progress(&self.checked).map_err(ReadError::of_visitor)?;
        }
        let Some(seal) = segment.seal else { return Ok(None) };
        let (offset, position) = (cursor.next_offset(), cursor.position());
        let broken = |what: String| Ok(Some(Break { offset, position, what }));
        if seal.damaged {
            return broken(
                "sealed as damaged: acknowledged records after this point are lost".into(),
            );
        }
        if offset != seal.end_offset || position != seal.end_position {
            let (end, at) = (seal.end_offset, seal.end_position);
            return broken(format!("the seal records end offset {end} at position {at}"));
        }
        if position < cursor.bytes() && !is_zero(cursor.block_at(position)?) {
            let what = "a torn tail, never acknowledged, was dropped".to_owned();
            self.tell(Severity::Note, segment.number, offset, Some(position), what)?;
        }
        Ok(None)
    }

    /// Checks each entry of a group.
    fn group(
        &mut self,
        segment: u64,
        position: u64,
        frame: &GroupFrame,
        payload: &[u8],
        good: bool,
    ) -> Result<Option<Break>, ReadError> {
        let mut due = frame.first_offset;
        let position = position + GROUP_FRAME as u64;
        for entry in entries(payload) {
            let position = position + entry.at as u64;
            let broken = |what: &str| Some(Break { offset: due, position, what: what.into() });
            let Some(head) = entry.frame else {
                let rest = payload.get(entry.at..).unwrap_or_default();
                return Ok(match EntryFrame::unknown_kind(rest) {
                    Some(kind) => broken(&format!(
                        "an entry of kind {kind}: a newer version of Mailrace wrote it, and this \
                         one cannot read it"
                    )),
                    None => broken("the frame of an entry is damaged"),
                });
            };
            let Some(content) = entry.content else {
                return Ok(broken(match head.kind {
                    EntryKind::RecordV1 | EntryKind::RecordV2 => "a record fails its checksum",
                    EntryKind::Fragment => "a fragment of mail data fails its checksum",
                }));
            };
            if head.kind == EntryKind::Fragment {
                self.remember((segment, position), (head.bytes, head.crc));
                self.checked.fragments += 1;
                continue;
            }
            if head.offset != due {
                return Ok(broken("offsets are not contiguous"));
            }
            let Some(record) = RecordView::new(head.kind, content) else {
                return Ok(broken("a record cannot be decoded"));
            };
            if let Some(what) = self.record(record)? {
                return Ok(broken(&what));
            }
            due += 1;
            self.checked.records += 1;
        }
        let behind = frame.first_offset + u64::from(frame.records);
        let broken = |what: &str| Some(Break { offset: due, position, what: what.into() });
        if due != behind {
            return Ok(broken("the number of records in a group is not the one in its frame"));
        }
        Ok(if good { None } else { broken("a group fails its checksum") })
    }

    fn remember(&mut self, at: (u64, u64), what: (u32, u32)) {
        if self.order.len() == FRAGMENTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.fragments.remove(&oldest);
        }
        self.order.push_back(at);
        self.fragments.insert(at, what);
    }

    /// Checks that a record's mail data is there in full; what is wrong, if it is not.
    fn record(&mut self, record: RecordView<'_>) -> Result<Option<String>, ReadError> {
        let mut bytes = record.inline().len() as u64;
        for fragment in record.fragments() {
            bytes += u64::from(fragment.bytes);
            if let Some(what) = self.fragment(fragment)? {
                return Ok(Some(what));
            }
        }
        let short = bytes != record.bytes();
        Ok(short.then(|| format!("mail data of {bytes} bytes, not {}", record.bytes())))
    }

    fn fragment(&mut self, fragment: FragmentAt) -> Result<Option<String>, ReadError> {
        let known = self.fragments.get(&(fragment.segment, fragment.position));
        if known == Some(&(fragment.bytes, fragment.crc)) {
            return Ok(None);
        }
        match self.log.check_fragment(self.shard, fragment) {
            Ok(()) => Ok(None),
            Err(error) if error.is_damage() => Ok(Some(format!(
                "a fragment of the record's mail data in segment {} is damaged or missing",
                fragment.segment
            ))),
            Err(error) => Err(error),
        }
    }

    /// Judges the end of a segment without a seal.
    fn tail(&mut self, cursor: &mut Cursor, segment: &SegmentFacts) -> Result<Tail, ReadError> {
        let (offset, position) = (cursor.next_offset(), cursor.position());
        cursor.refresh();
        let path = self.log.path(self.shard, segment.number);
        let file = File::open(&path).map_err(ReadError::io(Operation::Open, &path))?;
        let mut block = [0; BLOCK];
        let judged = file
            .read_at(position, &mut block)
            .and_then(|_| judge(&file, segment.bytes, cursor.header(), position, offset, &block));
        match judged.map_err(ReadError::io(Operation::Read, &path))? {
            End::Clean => Ok(Tail::End),
            End::Torn => {
                // A group whose write is under way looks the same.
                let what = "a group is incomplete: a torn tail, never acknowledged".to_owned();
                self.tell(Severity::Note, segment.number, offset, Some(position), what)?;
                Ok(Tail::End)
            }
            End::Damaged { acknowledged } => {
                // The proof was written after what it proves: if that is whole, it shows now.
                cursor.refresh();
                if let Step::Group(frame) = cursor.peek()?
                    && cursor.payload(&frame)?.1
                {
                    return Ok(Tail::Grown);
                }
                let what =
                    format!("a group is damaged, records up to {acknowledged} were acknowledged");
                Ok(Tail::Broken(Break { offset, position, what }))
            }
        }
    }
}

enum Tail {
    Grown,
    End,
    Broken(Break),
}

fn is_zero(octets: &[u8]) -> bool {
    octets.iter().all(|&octet| octet == 0)
}

fn check_header(cursor: &Cursor, segment: &SegmentFacts, log: &Log, shard: u16) -> Option<Break> {
    let header = cursor.header();
    let foreign = header.identity.node != log.node
        || header.identity.shard != shard
        || header.number != segment.number;
    let other = segment
        .seal
        .is_some_and(|seal| seal.nonce != header.nonce || seal.first_offset != header.first_offset);
    let what = match (foreign, other) {
        (false, false) => return None,
        (true, _) => "a segment of another log or another number",
        (_, true) => "the header is not that of the segment that was sealed",
    };
    Some(Break { offset: segment.base_offset, position: 0, what: what.to_owned() })
}
