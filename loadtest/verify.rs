//! Reads the log of the loaded server back: each 250 exactly once, octets equal, nothing invented.
//!
//! The sequence number in a record's first line tells which message it claims to be; envelope and
//! mail data are computed again from it.

use std::{io, path::Path};

use super::{
    ledger::{Fate, Ledger},
    mail::{Mail, Sequence},
    report::Verify,
};
use crate::log::{Log, RecordView, WalkEnd};

/// Walks the whole log.
///
/// # Errors
/// Where the directory is no data directory, or the file system refuses to read.
pub(super) fn verify(dir: &Path, mail: &Mail, ledger: &Ledger) -> io::Result<Verify> {
    let log = Log::open(dir)?;
    let mut check = Check {
        mail,
        ledger,
        seen: vec![false; ledger.len()],
        stored: Vec::new(),
        wanted: Vec::new(),
        verify: Verify::default(),
    };
    for shard in log.shards()? {
        for segment in log.segments(shard)? {
            let end = log.walk_segment(&segment, None, 0, &mut |_, record| {
                check.record(&log, shard, record)?;
                Ok(true)
            })?;
            if let WalkEnd::Corrupt { .. } = end {
                check.verify.damaged_segments += 1;
            }
        }
    }
    for sequence in ledger.acked_sequences() {
        check.verify.acked += 1;
        if check.seen[sequence as usize] {
            check.verify.found += 1;
        } else {
            check.verify.lost += 1;
        }
    }
    Ok(check.verify)
}

struct Check<'a> {
    mail: &'a Mail,
    ledger: &'a Ledger,
    seen: Vec<bool>,
    stored: Vec<u8>,
    wanted: Vec<u8>,
    verify: Verify,
}

impl Check<'_> {
    fn record(&mut self, log: &Log, shard: u16, record: RecordView<'_>) -> io::Result<()> {
        let is_whole = record.fragments().next().is_none();
        if is_whole && self.mail.sequence_of(record.inline()).is_none() {
            return Ok(());
        }
        self.stored.clear();
        let stored = &mut self.stored;
        let read = log.mail_data(shard, record, |chunk| {
            stored.extend_from_slice(chunk);
            Ok(())
        });
        // A damaged fragment is what is looked for here, not a reason to stop looking.
        let is_damaged = match read {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => true,
            read => {
                read?;
                false
            }
        };
        let Some(sequence) = self.mail.sequence_of(&self.stored) else { return Ok(()) };
        match self.ledger.fate(sequence) {
            Fate::Unsent => {
                self.verify.invented += 1;
                return Ok(());
            }
            Fate::Acked => {}
            Fate::Sent | Fate::Failed => self.verify.unacknowledged += 1,
        }
        if std::mem::replace(&mut self.seen[sequence as usize], true) {
            self.verify.duplicated += 1;
        }
        if is_damaged || !self.is_equal(sequence, record) {
            self.verify.corrupt += 1;
        }
        Ok(())
    }

    fn is_equal(&mut self, sequence: Sequence, record: RecordView<'_>) -> bool {
        self.wanted.clear();
        self.mail.render(sequence, &mut self.wanted);
        if self.wanted != self.stored {
            return false;
        }
        self.wanted.clear();
        self.mail.reverse_path(sequence, &mut self.wanted);
        if self.wanted != record.mail_from().as_bytes() {
            return false;
        }
        let mut paths = record.forward_paths();
        for index in 0..self.mail.recipients(sequence) {
            self.wanted.clear();
            self.mail.forward_path(sequence, index, &mut self.wanted);
            if paths.next().map(str::as_bytes) != Some(&self.wanted[..]) {
                return false;
            }
        }
        paths.next().is_none()
    }
}
