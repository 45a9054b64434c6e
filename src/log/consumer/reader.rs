//! Follows one shard's log.

use std::{io, path::Path, sync::Arc};

use crate::{Damage, Follower, HighWaterMarks, Log, ReadError, RecordView, Visit};

/// Shows the records of one shard in order, each once, for as long as it is polled.
///
/// Its methods block. If a record is damaged, the reader continues after it and reports it; it
/// never repairs.
#[derive(Debug)]
pub struct Reader {
    follower: Follower,
    shard: u16,
    marks: Option<Arc<HighWaterMarks>>,
    /// Where damage was last reported. A poll that ends in a damaged group meets it again in the
    /// next.
    damage_told: Option<u64>,
}

impl Reader {
    /// Begins at an offset of a shard's log. An offset below the log start begins there.
    ///
    /// # Errors
    /// [`ReadError::NoDataDir`] where `dir` is none; [`ReadError::Io`].
    pub fn open(dir: &Path, shard: u16, from: u64) -> Result<Self, ReadError> {
        let log = Log::open(dir)?;
        Ok(Self {
            follower: Follower::new(&log, shard, from)?,
            shard,
            marks: None,
            damage_told: None,
        })
    }

    /// Within the server: shows nothing at or above the shard's high-water mark.
    #[must_use]
    pub fn below(mut self, marks: Arc<HighWaterMarks>) -> Self {
        self.marks = Some(marks);
        self
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// The next offset it will look for. Offsets have gaps: those a failed write had taken.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.follower.next_offset()
    }

    /// The log it reads.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.follower.log()
    }

    /// Moves to another offset.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn seek(&mut self, offset: u64) -> Result<(), ReadError> {
        self.follower = Follower::new(&self.follower.log().clone(), self.shard, offset)?;
        self.damage_told = None;
        Ok(())
    }

    /// Shows what is there and not yet shown, until the visitor has enough. Damage on the way is
    /// reported once.
    ///
    /// The visitor gets the log, the offset and the record; [`Log::mail_data`] shows the mail data
    /// of large records.
    ///
    /// # Errors
    /// [`ReadError::Io`]; what the visitor says, where a record whose visit failed is shown again.
    pub fn poll(
        &mut self,
        visit: &mut dyn FnMut(&Log, u64, RecordView<'_>) -> io::Result<Visit>,
    ) -> Result<Vec<Damage>, ReadError> {
        let limit = self.marks.as_ref().map_or(u64::MAX, |marks| marks.get(self.shard));
        let mut damage = self.follower.poll_below(limit, visit)?;
        damage.retain(|damage| self.damage_told.is_none_or(|told| damage.offset > told));
        self.damage_told = damage.last().map(|last| last.offset).or(self.damage_told);
        Ok(damage)
    }
}
