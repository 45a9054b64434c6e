//! Compares the segments that must exist in a shard with those that do, one by one.
//!
//! The manifest says which segments are sealed and which were deleted on purpose, and `shard.meta`
//! which was made last. The directory says what is under each number. [`judge`] is the table of all
//! combinations.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{
    Identity, ReadError, Seal, Seals,
    adopt::hex,
    files::{read_index, segment_numbers, segment_path},
    frame::{BLOCK, SegmentHeader},
    manifest::read_seals,
    meta::{Begun, last_begun},
    recovery::Octets,
};

/// What is written down of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Nothing.
    Nothing,
    /// It was made, and may have been used.
    Begun,
    /// It has a seal.
    Sealed,
    /// It was deleted on purpose, or is about to be.
    Removed,
}

/// What lies under a segment's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// Something that cannot be read.
    Unreadable,
    /// A file shorter than what was written to it.
    Short,
    /// A file that begins with zeros.
    Blank,
    /// A file whose first block is no header.
    Headless,
    /// This segment, as far as its header says.
    Whole,
    /// A segment of this number, but not the one that was sealed.
    OtherNonce,
    /// A segment of this shard, but of another number.
    OtherNumber,
    /// A segment of another shard or another node.
    OtherLog,
}

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Sealed, and there.
    Good,
    /// Not sealed yet: in use, ready for use, or what a dead process left.
    Open,
    /// Deleted, or never there.
    Gone,
    /// Marked as deleted; its file is still there and good for nothing.
    Leftover,
    /// Something is wrong with it.
    Faulty(FaultKind),
}

/// What can be wrong with a segment, or with what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// There is no file.
    Missing,
    /// The file cannot be read.
    Unreadable,
    /// The file is shorter than what was written to it.
    Truncated,
    /// The file has no header.
    Header,
    /// The file is not the segment that was sealed.
    Replaced,
    /// The file is a copy of another segment.
    Copy,
    /// The file is a segment of another shard or node.
    Foreign,
    /// Two segments hold the same offsets.
    Overlap,
    /// Records or mail data in it are damaged.
    Corrupt,
    /// The manifest is missing, damaged, or another log's.
    Manifest,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Missing,
        Self::Unreadable,
        Self::Truncated,
        Self::Header,
        Self::Replaced,
        Self::Copy,
        Self::Foreign,
        Self::Overlap,
        Self::Corrupt,
        Self::Manifest,
    ];

    /// The metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Truncated => "truncated",
            Self::Header => "header",
            Self::Replaced => "replaced",
            Self::Copy => "copy",
            Self::Foreign => "foreign",
            Self::Overlap => "overlap",
            Self::Corrupt => "corrupt",
            Self::Manifest => "manifest",
        }
    }
}

/// Something wrong with a shard's log, for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The shard.
    pub shard: u16,
    /// Number of the segment; 0: none in particular.
    pub segment: u64,
    /// First offset concerned.
    pub offset: u64,
    /// What is wrong.
    pub kind: FaultKind,
    /// A sentence.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, segment, what, .. } = self;
        match segment {
            0 => write!(f, "shard {shard}: {what}"),
            _ => write!(f, "shard {shard}, segment {segment}: {what}"),
        }
    }
}

/// What a segment is: a pure function of what is written down of it and what lies under its name.
///
/// | recorded: | nothing | begun | sealed | removed |
/// |---|---|---|---|---|
/// | nothing there | gone | missing | missing | gone |
/// | unreadable | unreadable | unreadable | unreadable | leftover |
/// | short | open | truncated | truncated | leftover |
/// | blank or no header | open | open | header | leftover |
/// | whole | open | open | good | good |
/// | another nonce | open | open | replaced | leftover |
/// | another number | copy | copy | copy | leftover |
/// | another log | foreign | foreign | foreign | leftover |
///
/// *Open* is for recovery to judge by its frames. A removed segment that is whole was about to be
/// deleted when the process died, or was put back: it is part of the log until it is deleted again.
#[must_use]
pub(crate) fn judge(recorded: Recorded, held: Held) -> Condition {
    use Condition::{Faulty, Gone, Good, Leftover, Open};
    match (recorded, held) {
        (Recorded::Nothing | Recorded::Removed, Held::Nothing) => Gone,
        (Recorded::Sealed | Recorded::Removed, Held::Whole) => Good,
        (Recorded::Removed, _) => Leftover,
        (Recorded::Begun | Recorded::Sealed, Held::Nothing) => Faulty(FaultKind::Missing),
        (_, Held::Unreadable) => Faulty(FaultKind::Unreadable),
        (_, Held::OtherLog) => Faulty(FaultKind::Foreign),
        (_, Held::OtherNumber) => Faulty(FaultKind::Copy),
        (Recorded::Begun | Recorded::Sealed, Held::Short) => Faulty(FaultKind::Truncated),
        (Recorded::Sealed, Held::Blank | Held::Headless) => Faulty(FaultKind::Header),
        (Recorded::Sealed, Held::OtherNonce) => Faulty(FaultKind::Replaced),
        (Recorded::Nothing | Recorded::Begun, _) => Open,
    }
}

/// One number of a shard, looked at.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) number: u64,
    pub(super) condition: Condition,
    pub(super) seal: Option<Seal>,
    /// Octets of the file.
    pub(super) bytes: u64,
    /// Octets that the file must have.
    pub(super) needed: u64,
    /// Its header, where it has one.
    pub(super) header: Option<SegmentHeader>,
    /// Why it cannot be read.
    pub(super) error: Option<String>,
}

/// Everything under a shard's directory, and what is missing there, by number.
#[derive(Debug)]
pub(super) struct Inventory {
    pub(super) items: Vec<Item>,
    pub(super) begun: Option<Begun>,
    dir: PathBuf,
    shard: u16,
}

impl Inventory {
    /// Looks at the first blocks of every segment. Safe while a server runs.
    pub(super) fn take(dir: &Path, identity: Identity, seals: &Seals) -> Result<Self, ReadError> {
        let begun = last_begun(dir)?;
        let numbers = segment_numbers(dir)?;
        let mut latest: BTreeMap<u64, Option<Seal>> =
            seals.all.iter().map(|seal| (seal.number, Some(*seal))).collect();
        // Without a manifest nobody knows which of those that were made are gone on purpose.
        let known = seals.owner.is_some() || !seals.all.is_empty();
        let made = begun.filter(|_| known).map(|begun| begun.from..=begun.number);
        for number in numbers.iter().copied().chain(made.into_iter().flatten()) {
            latest.entry(number).or_default();
        }
        let first = numbers.first().copied().unwrap_or(u64::MAX);
        let mut items = Vec::new();
        for (number, seal) in latest {
            let made = begun.filter(|begun| begun.covers(number));
            // A log remembers far more deleted segments than it has: those are not looked for.
            let there = numbers.binary_search(&number).is_ok();
            let mut item = look(dir, identity, number, there, seal, made);
            if item.condition == Condition::Faulty(FaultKind::Missing) {
                // What an earlier version deleted: it kept no record.
                let unrecorded = seals.owner.is_none() && number < first;
                // Retention records what it deletes before it deletes it.
                let by_now = read_seals(&dir.join("manifest"))?;
                if unrecorded || by_now.find(number).is_some_and(|seal| seal.removed) {
                    item.condition = Condition::Gone;
                }
            }
            items.push(item);
        }
        Ok(Self { items, begun, dir: dir.to_owned(), shard: identity.shard })
    }

    /// What is wrong with a segment, if anything is.
    pub(super) fn fault(&self, item: &Item) -> Option<Fault> {
        let Condition::Faulty(kind) = item.condition else { return None };
        let what = self.sentence(item, kind);
        let offset = item.seal.map_or(0, |seal| seal.first_offset);
        Some(Fault { shard: self.shard, segment: item.number, offset, kind, what })
    }

    fn sentence(&self, item: &Item, kind: FaultKind) -> String {
        let path = segment_path(&self.dir, item.number);
        let path = path.display();
        let lost = lost(item.seal.as_ref());
        match kind {
            FaultKind::Missing => format!("{path} is missing, and with it {lost}"),
            FaultKind::Unreadable => {
                let error = item.error.as_deref().unwrap_or_default();
                format!("{path} cannot be read ({error}), and with it {lost}")
            }
            FaultKind::Truncated => format!(
                "{path} was truncated: {} of {} bytes are left; it held {lost}",
                item.bytes, item.needed
            ),
            FaultKind::Header => format!("{path}: the segment's header is damaged; it held {lost}"),
            FaultKind::Replaced => {
                format!("{path} is not the segment that was sealed, which held {lost}")
            }
            FaultKind::Copy => {
                let of = item.header.map_or(0, |header| header.number);
                format!(
                    "{path} is a copy of segment {of} and is ignored; move it away{}",
                    instead(item)
                )
            }
            FaultKind::Foreign => {
                let of = item.header.map_or_else(String::new, |header| owner(header.identity));
                format!("{path} is a segment of {of} and is ignored; move it away{}", instead(item))
            }
            FaultKind::Overlap | FaultKind::Corrupt | FaultKind::Manifest => path.to_string(),
        }
    }
}

/// `node 7f3a9c21b04e, shard 0`
pub(super) fn owner(identity: Identity) -> String {
    format!("node {}, shard {}", hex(identity.node), identity.shard)
}

/// The records of a segment that is not there.
pub(super) fn lost(seal: Option<&Seal>) -> String {
    match seal {
        None => "its contents, if any".to_owned(),
        Some(seal) if seal.end_offset > seal.first_offset => {
            format!("records {}..{}", seal.first_offset, seal.end_offset)
        }
        Some(seal) if seal.damaged => {
            format!("its contents, if any: records around offset {}", seal.first_offset)
        }
        Some(_) => "possibly mail data of later records".to_owned(),
    }
}

fn instead(item: &Item) -> String {
    match item.seal {
        Some(seal) if seal.end_offset > seal.first_offset => {
            format!(". The segment that belongs here held {}", lost(Some(&seal)))
        }
        _ => String::new(),
    }
}

/// Looks at one number.
fn look(
    dir: &Path,
    identity: Identity,
    number: u64,
    there: bool,
    seal: Option<Seal>,
    made: Option<Begun>,
) -> Item {
    let mut item = Item {
        number,
        condition: Condition::Gone,
        seal,
        bytes: 0,
        needed: 0,
        header: None,
        error: None,
    };
    let read = match there {
        true => read_front(&segment_path(dir, number), &mut item),
        false => Err(io::ErrorKind::NotFound.into()),
    };
    let held = match read {
        Ok(held) => held,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Held::Nothing,
        Err(error) => {
            item.error = Some(error.to_string());
            Held::Unreadable
        }
    };
    // A file is there after all: it is judged by what it holds, for it may hold acknowledged mail.
    let ours =
        item.header.is_some_and(|header| (header.identity, header.number) == (identity, number));
    let used = item.header.is_some() || held == Held::Headless;
    let belied = |seal: &Seal| seal.is_of_no_segment() && (ours || seal.removed && used);
    let seal = seal.filter(|seal| !belied(seal));
    item.seal = seal;
    item.needed = seal.map_or(made.map_or(0, |begun| begun.bytes), |seal| seal.end_position);
    let needed = item.needed;
    let recorded = match (seal, made) {
        (Some(seal), _) if seal.removed => Recorded::Removed,
        (Some(_), _) => Recorded::Sealed,
        (None, Some(_)) => Recorded::Begun,
        (None, None) => Recorded::Nothing,
    };
    let held = match (held, item.header) {
        (_, Some(header)) if header.identity != identity => Held::OtherLog,
        (_, Some(header)) if header.number != number => Held::OtherNumber,
        (_, Some(header)) if seal.is_some_and(|seal| seal.nonce != header.nonce) => {
            Held::OtherNonce
        }
        (Held::Nothing | Held::Unreadable, _) => held,
        _ if item.bytes < needed => Held::Short,
        (_, Some(_)) => Held::Whole,
        // Zeros where the index knows of groups: it was used, and wiped.
        (Held::Blank, None) if made.is_some() && indexed(dir, number) => Held::Short,
        _ => held,
    };
    item.condition = judge(recorded, held);
    // An empty segment holds nothing that could be missed.
    let empty = seal.is_some_and(|seal| {
        seal.end_offset == seal.first_offset && seal.end_position <= BLOCK as u64 && !seal.damaged
    });
    if empty && matches!(item.condition, Condition::Faulty(FaultKind::Missing)) {
        item.condition = Condition::Gone;
    }
    item
}

fn indexed(dir: &Path, number: u64) -> bool {
    read_index(dir, number).is_some_and(|(entries, _)| !entries.is_empty())
}

fn read_front(path: &Path, item: &mut Item) -> io::Result<Held> {
    let file = File::open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    item.bytes = facts.len();
    let mut blocks = [0; 2 * BLOCK];
    file.read_at(0, &mut blocks)?;
    item.header = SegmentHeader::decode(&blocks).map(|(header, _)| header);
    let blank = blocks.iter().all(|&octet| octet == 0);
    Ok(match item.header {
        Some(_) => Held::Whole,
        None if blank => Held::Blank,
        None => Held::Headless,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination() {
        use Condition::{Faulty, Gone, Good, Leftover, Open};
        use FaultKind::{Copy, Foreign, Header, Missing, Replaced, Truncated, Unreadable};
        let recorded = [Recorded::Nothing, Recorded::Begun, Recorded::Sealed, Recorded::Removed];
        for (held, expected) in [
            (Held::Nothing, [Gone, Faulty(Missing), Faulty(Missing), Gone]),
            (
                Held::Unreadable,
                [Faulty(Unreadable), Faulty(Unreadable), Faulty(Unreadable), Leftover],
            ),
            (Held::Short, [Open, Faulty(Truncated), Faulty(Truncated), Leftover]),
            (Held::Blank, [Open, Open, Faulty(Header), Leftover]),
            (Held::Headless, [Open, Open, Faulty(Header), Leftover]),
            (Held::Whole, [Open, Open, Good, Good]),
            (Held::OtherNonce, [Open, Open, Faulty(Replaced), Leftover]),
            (Held::OtherNumber, [Faulty(Copy), Faulty(Copy), Faulty(Copy), Leftover]),
            (Held::OtherLog, [Faulty(Foreign), Faulty(Foreign), Faulty(Foreign), Leftover]),
        ] {
            for (recorded, expected) in recorded.into_iter().zip(expected) {
                assert_eq!(judge(recorded, held), expected, "{recorded:?} {held:?}");
            }
        }
    }

    #[test]
    fn labels_are_distinct() {
        let mut names = FaultKind::ALL.map(FaultKind::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FaultKind::ALL.len());
    }
}
