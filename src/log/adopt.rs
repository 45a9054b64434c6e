//! Finds out which node a data directory belongs to, from what is in it: the way back when the
//! `node` file is lost.
//!
//! Each segment's header names the node, and so does a shard's manifest. A new id over old segments
//! would turn all of them into another log's, so none is drawn where one of them names an id.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use super::{
    files::{segment_numbers, segment_path, sync_dir},
    frame::{BLOCK, SegmentHeader},
    manifest::read_seals,
    private::private_file,
};

/// A node's id, and what names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// How many segments and manifests name each id.
    pub nodes: BTreeMap<[u8; 6], u64>,
    /// Segments that hold something and name no id.
    pub unknown: u64,
    /// Shards looked at.
    pub shards: u64,
}

impl Evidence {
    /// Reads the header of every segment of a data directory.
    ///
    /// # Errors
    /// What the file system says where a directory cannot be listed.
    pub fn gather(dir: &Path) -> io::Result<Self> {
        let mut evidence = Self::default();
        let unlisted =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
        for entry in fs::read_dir(dir).map_err(unlisted)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("shard-"));
            if number.is_none_or(|digits| digits.parse::<u16>().is_err()) {
                continue;
            }
            evidence.shards += 1;
            evidence.shard(&entry.path())?;
        }
        Ok(evidence)
    }

    fn shard(&mut self, dir: &Path) -> io::Result<()> {
        if let Ok(seals) = read_seals(&dir.join("manifest"))
            && let Some(owner) = seals.owner
        {
            *self.nodes.entry(owner.node).or_default() += 1;
        }
        for number in segment_numbers(dir)? {
            let mut block = [0; BLOCK];
            let read = File::open(segment_path(dir, number)).and_then(|file| {
                let mut file = file.take(BLOCK as u64);
                let mut read = 0;
                while let Some(rest) = block.get_mut(read..).filter(|rest| !rest.is_empty()) {
                    match file.read(rest)? {
                        0 => break,
                        more => read += more,
                    }
                }
                Ok(read)
            });
            match (read, SegmentHeader::decode(&block)) {
                (Ok(_), Some((header, _))) => {
                    *self.nodes.entry(header.identity.node).or_default() += 1;
                }
                // Made ahead, and never used.
                (Ok(_), None) if block.iter().all(|&octet| octet == 0) => {}
                _ => self.unknown += 1,
            }
        }
        Ok(())
    }

    /// The one id that all of them name.
    #[must_use]
    pub fn node(&self) -> Option<[u8; 6]> {
        match self.nodes.iter().collect::<Vec<_>>().as_slice() {
            [(node, _)] => Some(**node),
            _ => None,
        }
    }

    /// Nothing in the directory names an id, or might.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.unknown == 0
    }

    /// `7f3a9c21b04e (5 segments or manifests)`, each id.
    #[must_use]
    pub fn list(&self) -> String {
        let one = |(node, count): (&[u8; 6], &u64)| {
            let plural = if *count == 1 { "" } else { "s" };
            format!("{} ({count} segment{plural} or manifest{plural})", hex(*node))
        };
        match self.nodes.is_empty() {
            true => format!("none ({} segments without a readable header)", self.unknown),
            false => self.nodes.iter().map(one).collect::<Vec<_>>().join(", "),
        }
    }
}

/// Twelve hexadecimal digits.
#[must_use]
pub fn hex(node: [u8; 6]) -> String {
    node.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Writes the node's id, durably.
///
/// # Errors
/// What the file system says.
pub fn write_node(dir: &Path, node: [u8; 6]) -> io::Result<()> {
    let new = dir.join("node.new");
    let mut file = private_file().create(true).truncate(true).write(true).open(&new)?;
    writeln!(file, "{}", hex(node))?;
    file.sync_all()?;
    fs::rename(&new, dir.join("node"))?;
    sync_dir(dir)
}
