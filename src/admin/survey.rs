//! Where the exporters and consumer groups are, and whom a drain waits for.

use std::io;

use serde_json::{Value, json};

use crate::{
    consumer::Group,
    log::{HighWaterMarks, Log, format_time},
};

/// Whom [`crate::cli`]'s `drain --until-exported` waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Awaited {
    /// The exporters of the configuration.
    pub exporters: Vec<String>,
    /// Every other group too: retention waits for each (`log.retention.require_consumed`).
    pub every_group: bool,
}

/// An exporter or a consumer group.
pub(super) struct Surveyed {
    pub(super) name: String,
    pub(super) is_exporter: bool,
    /// A drain waits for it.
    pub(super) is_awaited: bool,
    pub(super) shards: Vec<Place>,
}

/// Its place in one shard.
pub(super) struct Place {
    pub(super) shard: u16,
    /// The next record wanted.
    committed: u64,
    /// First offset not yet synced.
    end: u64,
    /// Offsets from the first record in between to the end.
    pub(super) left: u64,
    oldest_pending: Option<i64>,
    dead: u64,
}

/// Reads files: for the blocking pool.
pub(super) fn survey(
    log: &Log,
    marks: &HighWaterMarks,
    awaited: &Awaited,
) -> io::Result<Vec<Surveyed>> {
    let dir = log.dir();
    let shards = log.shards()?;
    let mut groups = Group::list(dir)?;
    for name in &awaited.exporters {
        if !groups.iter().any(|group| group.name() == name) {
            groups.push(Group::new(dir, name).map_err(io::Error::other)?);
        }
    }
    let mut surveyed = Vec::new();
    for group in groups {
        let is_exporter = awaited.exporters.iter().any(|name| name == group.name());
        let places = shards.iter().map(|&shard| place(log, &group, shard, marks.get(shard)));
        surveyed.push(Surveyed {
            name: group.name().to_owned(),
            is_exporter,
            is_awaited: is_exporter || awaited.every_group,
            shards: places.collect::<io::Result<_>>()?,
        });
    }
    Ok(surveyed)
}

fn place(log: &Log, group: &Group, shard: u16, mark: u64) -> io::Result<Place> {
    let start = log.segments(shard)?.first().map_or(0, |first| first.base_offset);
    let committed = group.committed(shard)?.map_or(start, |committed| committed.offset).max(start);
    let end = mark.max(start);
    let pending = log.pending(shard, committed, end)?;
    let left = pending.map_or(0, |pending| pending.records);
    let oldest_pending = pending.map(|pending| pending.oldest);
    let dead = group.dead_letters(shard)?.pending().count() as u64;
    Ok(Place { shard, committed, end, left, oldest_pending, dead })
}

impl Surveyed {
    pub(super) fn left(&self) -> u64 {
        self.shards.iter().map(|place| place.left).sum()
    }

    pub(super) fn dead(&self) -> u64 {
        self.shards.iter().map(|place| place.dead).sum()
    }

    pub(super) fn oldest_pending(&self) -> Option<String> {
        self.shards.iter().filter_map(|place| place.oldest_pending).min().map(format_time)
    }

    /// Its places in shards where records are left.
    pub(super) fn rest(&self) -> impl Iterator<Item = Value> {
        self.shards.iter().filter(|place| place.left > 0).map(|place| {
            json!({
                "group": self.name,
                "shard": place.shard,
                "committed": place.committed,
                "end": place.end,
                "left": place.left,
                "oldest_pending": place.oldest_pending.map(format_time),
            })
        })
    }
}
