//! The reading side: lock-free, safe beside a running server. Goes by the frames; never repairs.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    FragmentAt, RecordId, RecordView, Seal,
    files::{look_up_index, read_node, read_seals, segment_numbers, segment_path, shard_dir},
    frame::{
        BLOCK, ENTRY_FRAME, EntryFrame, EntryKind, GROUP_FRAME, GroupFrame, SegmentHeader, crc,
    },
    recovery::Octets,
};

/// A data directory, opened for reading.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    node: [u8; 6],
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

/// What a walk over records found behind its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkEnd {
    /// Stopped by the visitor.
    Stopped,
    /// The end of what was written.
    End,
    /// A group or record fails its checksum though it is sealed.
    Corrupt {
        /// First offset that is missing.
        offset: u64,
        /// Of the group, in the segment file.
        position: u64,
    },
}

impl Log {
    /// Opens a data directory.
    ///
    /// # Errors
    /// `NotFound` where it is none.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let node = read_node(dir).map_err(|error| {
            let what = format!("{} is not a mailrace data directory: {error}", dir.display());
            io::Error::new(error.kind(), what)
        })?;
        Ok(Self { dir: dir.to_owned(), node })
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
    pub fn shards(&self) -> io::Result<Vec<u16>> {
        let mut shards = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_prefix("shard-"));
            shards.extend(digits.and_then(|digits| digits.parse::<u16>().ok()));
        }
        shards.sort_unstable();
        Ok(shards)
    }

    /// The segments of a shard that hold a header, in order.
    ///
    /// # Errors
    /// What the file system says.
    pub fn segments(&self, shard: u16) -> io::Result<Vec<SegmentFacts>> {
        let dir = shard_dir(&self.dir, shard);
        let seals = match File::open(dir.join("manifest")) {
            Ok(file) => read_seals(&file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut facts = Vec::new();
        let mut block = vec![0; BLOCK];
        for number in segment_numbers(&dir)? {
            let Ok(file) = File::open(segment_path(&dir, number)) else { continue };
            block.fill(0);
            file.read_at(0, &mut block)?;
            let Some((header, _)) = SegmentHeader::decode(&block) else { continue };
            facts.push(SegmentFacts {
                shard,
                number,
                base_offset: header.first_offset,
                bytes: file.metadata()?.len(),
                seal: seals.iter().rev().find(|seal| seal.number == number).copied(),
            });
        }
        Ok(facts)
    }

    /// Finds a record and shows it.
    ///
    /// # Errors
    /// `NotFound` where there is no such record; what the file system says.
    pub fn get<T>(
        &self,
        id: RecordId,
        mut show: impl FnMut(&Self, RecordView<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no record {id}"));
        if id.node != self.node {
            return Err(missing());
        }
        let offset = id.offset.get();
        let segments = self.segments(id.shard)?;
        let at = segments.partition_point(|segment| segment.base_offset <= offset);
        // Segments that were left without a record share their base with the next.
        for segment in segments[..at].iter().rev() {
            let mut found = None;
            let from = look_up_index(&shard_dir(&self.dir, id.shard), segment.number, offset);
            for from in [from, None] {
                self.walk_segment(segment, from, offset, &mut |at, record| {
                    if at == offset {
                        found = Some(show(self, record)?);
                    }
                    Ok(at < offset)
                })?;
                if let Some(found) = found.take() {
                    return Ok(found);
                }
                if from.is_none() {
                    break;
                }
            }
            if segment.base_offset < offset {
                break;
            }
        }
        Err(missing())
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
    ) -> io::Result<WalkEnd> {
        let file = File::open(segment_path(&shard_dir(&self.dir, segment.shard), segment.number))?;
        let mut block = vec![0; BLOCK];
        file.read_at(0, &mut block)?;
        let Some((header, sum)) = SegmentHeader::decode(&block) else { return Ok(WalkEnd::End) };
        let mut position = BLOCK as u64;
        // Known from the group before; unknown after a jump.
        let mut expected = Some((0, sum));
        if let Some(hint) = hint {
            block.fill(0);
            file.read_at(hint, &mut block)?;
            if GroupFrame::decode(&block).is_some_and(|(frame, _)| frame.nonce == header.nonce) {
                position = hint;
                expected = None;
            }
        }
        let end = segment.seal.map_or(segment.bytes, |seal| seal.end_position);
        let mut next = header.first_offset;
        let mut group = Vec::new();
        while position < end {
            block.fill(0);
            file.read_at(position, &mut block)?;
            let frame = GroupFrame::decode(&block).filter(|(frame, _)| {
                frame.nonce == header.nonce
                    && expected.is_none_or(|(number, chain)| {
                        frame.number == number && frame.chain == chain
                    })
                    && position + frame.span() <= segment.bytes
            });
            let corrupt = WalkEnd::Corrupt { offset: next, position };
            let unsealed = segment.seal.is_none();
            let Some((frame, sum)) = frame else {
                return Ok(if unsealed { WalkEnd::End } else { corrupt });
            };
            let behind = frame.first_offset + u64::from(frame.records);
            if frame.records > 0 && behind > from {
                group.resize(frame.payload_bytes as usize, 0);
                let read = file.read_at(position + GROUP_FRAME as u64, &mut group)?;
                if read < group.len() || crc(&group) != frame.payload_crc {
                    return Ok(if unsealed { WalkEnd::End } else { corrupt });
                }
                let mut at = 0;
                while let Some((entry, content)) = group.get(at..).and_then(EntryFrame::decode) {
                    at += entry.span();
                    if entry.kind != EntryKind::RecordV1 || entry.offset < from {
                        continue;
                    }
                    let Some(record) = RecordView::new(content) else { return Ok(corrupt) };
                    if !visit(entry.offset, record)? {
                        return Ok(WalkEnd::Stopped);
                    }
                }
            }
            next = next.max(behind);
            expected = Some((frame.number + 1, sum));
            position += frame.span();
        }
        Ok(match segment.seal {
            Some(seal) if seal.damaged => WalkEnd::Corrupt { offset: next, position },
            _ => WalkEnd::End,
        })
    }

    /// Shows the mail data of a record, chunk by chunk.
    ///
    /// # Errors
    /// `InvalidData` where a fragment fails its checksum; what the visitor says.
    pub fn mail_data(
        &self,
        shard: u16,
        record: RecordView<'_>,
        mut visit: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let dir = shard_dir(&self.dir, shard);
        let mut open: Option<(u64, File)> = None;
        let mut octets = Vec::new();
        for at in record.fragments() {
            if open.as_ref().is_none_or(|(number, _)| *number != at.segment) {
                open = Some((at.segment, File::open(segment_path(&dir, at.segment))?));
            }
            if let Some((_, file)) = &open {
                read_fragment(file, at, &mut octets)?;
                visit(octets.get(ENTRY_FRAME..).unwrap_or_default())?;
            }
        }
        visit(record.inline())
    }
}

fn read_fragment(file: &File, at: FragmentAt, octets: &mut Vec<u8>) -> io::Result<()> {
    octets.resize(ENTRY_FRAME + at.bytes as usize, 0);
    let read = file.read_at(at.position, octets)?;
    let whole = read == octets.len()
        && EntryFrame::decode(octets).is_some_and(|(frame, content)| {
            frame.kind == EntryKind::Fragment
                && frame.crc == at.crc
                && content.len() == at.bytes as usize
        });
    if whole {
        return Ok(());
    }
    let what = format!("segment {}: damaged fragment at position {}", at.segment, at.position);
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}
