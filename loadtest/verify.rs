//! Reads the log of the loaded server back: each 250 exactly once, octets equal, nothing invented.
//!
//! The sequence number in a record's first line says which message it claims to be; envelope and
//! mail data are computed again from it.

use std::{io, path::Path};

use super::{
    ledger::{Fate, Ledger},
    mail::{Mail, Sequence},
    report::Verify,
};
use mailrace_log::{Log, RecordView, WalkEnd};

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
            Err(error) if error.is_damage() => true,
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::FileExt};

    use super::*;
    use mailrace_log::{
        self as log, Appender, DataDir, Identity, Offset, Options, prepare_segment, segment_path,
        testing,
    };

    use crate::mail::{Sizes, tests::options};

    /// A message as it is to stand in the log.
    #[derive(Clone)]
    struct Stored {
        mail_from: String,
        rcpts: String,
        mail_data: Vec<u8>,
    }

    fn mail() -> Mail {
        let mut options = options(Sizes::Between(2_000, 9_000));
        options.recipients = (2, 2);
        Mail::new(options, 7)
    }

    fn stored(sequence: Sequence) -> Stored {
        let mail = mail();
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut octets = Vec::new();
            write(&mut octets);
            octets
        };
        let path = |write: &dyn Fn(&mut Vec<u8>)| String::from_utf8(text(write)).unwrap();
        let rcpt = |index| path(&|out| mail.forward_path(sequence, index, out));
        Stored {
            mail_from: path(&|out| mail.reverse_path(sequence, out)),
            rcpts: format!("{}\n{}", rcpt(0), rcpt(1)),
            mail_data: text(&|out| mail.render(sequence, out)),
        }
    }

    /// Writes a log as the server does, checksums and all.
    fn write_log(dir: &Path, records: &[Stored]) {
        let data = DataDir::open(dir).unwrap();
        let shard = data.make_shard(0).unwrap();
        let identity = Identity { node: data.node, shard: 0 };
        let mut appender = Appender::new(identity, Options::default(), Offset::new(0));
        appender.handle_segment(prepare_segment(&shard, 1, 1 << 20).unwrap());
        let file = fs::File::options().write(true).open(segment_path(&shard, 1)).unwrap();
        for Stored { mail_from, rcpts, mail_data } in records {
            let mail = log::Mail { mail_from, rcpts, ..testing::mail("mx") };
            appender.append(&mail, &[mail_data], &[]).unwrap();
        }
        testing::complete(&mut appender, |_, position, buffer| {
            file.write_all_at(buffer.octets(), position).unwrap();
        });
    }

    /// What is said of these records when messages 0, 1 and 2 were acknowledged, 3 failed.
    fn check(records: &[Stored]) -> Verify {
        let dir = tempfile::tempdir().unwrap();
        write_log(dir.path(), records);
        check_dir(dir.path())
    }

    fn check_dir(dir: &Path) -> Verify {
        let mut ledger = Ledger::default();
        for sequence in 0..4 {
            ledger.sent(sequence);
            if sequence < 3 { ledger.acked(sequence) } else { ledger.failed(sequence) }
        }
        verify(dir, &mail(), &ledger).unwrap()
    }

    fn sound() -> Vec<Stored> {
        vec![stored(1), stored(0), stored(2)]
    }

    const SOUND: Verify = Verify {
        acked: 3,
        found: 3,
        lost: 0,
        duplicated: 0,
        corrupt: 0,
        invented: 0,
        unacknowledged: 0,
        damaged_segments: 0,
    };

    #[test]
    fn a_sound_log_is_sound() {
        assert_eq!(check(&sound()), SOUND);
        assert!(SOUND.holds());
        let mut records = sound();
        records.push(Stored { mail_data: b"Subject: of another\r\n\r\n".to_vec(), ..stored(0) });
        assert_eq!(check(&records), SOUND);
        // It failed towards the client; the server may hold it.
        records.push(stored(3));
        let told = check(&records);
        assert_eq!(told, Verify { unacknowledged: 1, ..SOUND });
        assert!(told.holds());
    }

    #[test]
    fn a_lost_message_is_missed() {
        let told = check(&sound()[1..]);
        assert_eq!(told, Verify { found: 2, lost: 1, ..SOUND });
        assert!(!told.holds());
    }

    #[test]
    fn altered_mail_is_corrupt_though_its_checksums_are_right() {
        let alter: [fn(&mut Stored); 6] = [
            |record| *record.mail_data.last_mut().unwrap() ^= 1,
            |record| record.mail_data[60] ^= 0x20,
            |record| record.mail_data.truncate(1_000),
            |record| record.mail_data.extend_from_slice(b"x\r\n"),
            |record| record.mail_from.push('x'),
            |record| record.rcpts.truncate(record.rcpts.find('\n').unwrap()),
        ];
        for (at, alter) in alter.iter().enumerate() {
            let mut records = sound();
            alter(&mut records[1]);
            let told = check(&records);
            assert_eq!(told, Verify { corrupt: 1, ..SOUND }, "{at}");
            assert!(!told.holds());
        }
    }

    #[test]
    fn a_message_stored_twice_is_a_duplicate() {
        let mut records = sound();
        records.push(stored(1));
        let told = check(&records);
        assert_eq!(told, Verify { duplicated: 1, ..SOUND });
        assert!(!told.holds());
    }

    #[test]
    fn a_message_never_sent_is_invented() {
        let mut records = sound();
        records.push(stored(4));
        records.push(stored(1 << 40));
        let told = check(&records);
        assert_eq!(told, Verify { invented: 2, ..SOUND });
        assert!(!told.holds());
    }

    #[test]
    fn a_segment_that_fails_its_checks_is_told() {
        let dir = tempfile::tempdir().unwrap();
        write_log(dir.path(), &sound());
        let path = segment_path(&log::shard_dir(dir.path(), 0), 1);
        let octets = fs::read(&path).unwrap();
        let at = octets.windows(10).position(|found| found == b"X-Loadtest").unwrap();
        fs::File::options().write(true).open(&path).unwrap().write_all_at(b"x", at as u64).unwrap();
        let told = check_dir(dir.path());
        assert!(told.lost > 0, "{told:?}");
        assert!(!told.holds());
    }
}
