//! Each [`ReadError`], met in a real directory: what a caller can match on, what a person reads, and
//! what is left of it as an [`io::Error`].

use std::{
    error::Error,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    frame::{ENTRY_FRAME, GROUP_FRAME, GroupFrame, crc},
    *,
};

/// A sealed segment of 40 records.
struct Sample {
    _dir: tempfile::TempDir,
    data: PathBuf,
    shard: PathBuf,
    segment: PathBuf,
    log: Log,
}

impl Sample {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        write_and_close(&data, 40);
        let (shard, log) = (shard_dir(&data, 0), Log::open(&data).unwrap());
        recover(&shard, log.identity(0)).unwrap();
        Self { _dir: dir, segment: segment_path(&shard, 1), data, shard, log }
    }

    fn id(&self, offset: u64) -> RecordId {
        self.log.identity(0).record_id(Offset::new(offset))
    }

    /// Reads a record with its mail data.
    fn get(&self, offset: u64) -> Result<(), ReadError> {
        self.log.get(self.id(offset), |log, record| Ok(log.mail_data(0, record, |_| Ok(()))?))
    }

    /// The position of a record's entry, the first in its group.
    fn position(&self, offset: u64) -> u64 {
        let ends = groups(&fs::read(&self.segment).unwrap());
        let at = ends.iter().rev().find(|(_, end)| *end <= offset).unwrap().0;
        (at + GROUP_FRAME) as u64
    }

    fn write(&self, octets: &[u8], position: u64) {
        let file = fs::File::options().write(true).open(&self.segment).unwrap();
        file.write_all_at(octets, position).unwrap();
    }
}

/// The text names every part; as an I/O error it has the same text, the kind, and itself inside.
#[track_caller]
fn check(error: ReadError, kind: io::ErrorKind, parts: &[&dyn std::fmt::Display]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(&part.to_string()), "{text} without {part}");
    }
    let error = io::Error::from(error);
    assert_eq!((error.kind(), error.to_string()), (kind, text));
    error.downcast::<ReadError>().unwrap();
}

#[test]
fn a_directory_that_is_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let away = dir.path().join("away");
    let refused = Log::open(&away).unwrap_err();
    assert!(matches!(&refused, ReadError::NoDataDir { source, .. } if source.is_not_found()));
    let cause = refused.source().and_then(Error::source).unwrap();
    assert!(cause.downcast_ref::<io::Error>().is_some(), "{cause}");
    check(
        refused,
        io::ErrorKind::NotFound,
        &[&away.display(), &"is not a mailrace data directory"],
    );
    assert!(read_node(&away).unwrap_err().is_not_found());
}

#[test]
fn a_node_that_is_lost_or_damaged() {
    let sample = Sample::new();
    let node = sample.data.join("node");
    fs::write(&node, "no id").unwrap();
    let damaged = read_node(&sample.data).unwrap_err();
    assert!(matches!(damaged, ReadError::NodeDamaged { .. }));
    check(damaged, io::ErrorKind::InvalidData, &[&node.display(), &"not a node id"]);
    fs::remove_file(&node).unwrap();
    let missing = Log::open(&sample.data).unwrap_err();
    assert!(matches!(missing, ReadError::NodeMissing { .. }));
    check(missing, io::ErrorKind::NotFound, &[&node.display(), &"mailrace log adopt --dir"]);
}

#[test]
fn a_record_that_is_not_there() {
    let sample = Sample::new();
    let never = sample.get(40).unwrap_err();
    assert!(matches!(never, ReadError::NoRecord { has_shard: true, .. }) && !never.is_damage());
    check(never, io::ErrorKind::NotFound, &[&sample.id(40)]);
    let id = RecordId { shard: 7, ..sample.id(3) };
    let elsewhere = sample.log.get(id, |_, _| Ok(())).unwrap_err();
    assert!(matches!(elsewhere, ReadError::NoRecord { has_shard: false, .. }));
    check(elsewhere, io::ErrorKind::NotFound, &[&id, &"there is no shard 7"]);
    let id = RecordId { node: [9; 6], ..sample.id(3) };
    let strange = sample.log.get(id, |_, _| Ok(())).unwrap_err();
    assert!(matches!(strange, ReadError::OtherNode { .. }));
    check(strange, io::ErrorKind::NotFound, &[&"belongs to node 090909090909"]);
    let unknown = sample.log.shards_among(&[7]).unwrap_err();
    assert!(matches!(unknown, ReadError::NoShard { shard: 7, .. }));
    check(unknown, io::ErrorKind::InvalidInput, &[&sample.data.display(), &"no shard 7"]);
}

#[test]
fn a_segment_that_was_deleted_and_one_that_is_missing() {
    let sample = Sample::new();
    fs::remove_file(&sample.segment).unwrap();
    let missing = sample.get(3).unwrap_err();
    let ReadError::Missing { shard: 0, ref offsets, .. } = missing else { panic!("{missing}") };
    assert!(*offsets == (0..40) && missing.is_damage());
    let named = sample.segment.display();
    check(missing, io::ErrorKind::NotFound, &[&"records 0:0..40 are lost", &named]);
    Manifest::open(&sample.shard.join("manifest")).unwrap().remove(&[1]).unwrap();
    let deleted = sample.get(3).unwrap_err();
    assert!(matches!(deleted, ReadError::Deleted { offset: 3, segment: 1, .. }));
    assert!(!deleted.is_damage(), "on purpose");
    check(deleted, io::ErrorKind::NotFound, &[&"record 0:3 no longer exists"]);
}

#[test]
fn a_record_and_a_fragment_that_are_damaged() {
    let sample = Sample::new();
    let at = sample.position(3);
    sample.write(b"damage", at + ENTRY_FRAME as u64 + 40);
    let damaged = sample.get(3).unwrap_err();
    let ReadError::Damaged { position, .. } = damaged else { panic!("{damaged}") };
    assert!(position == at && damaged.is_damage());
    let named = sample.segment.display();
    let (place, id) = (format!("at position {at}"), sample.id(3));
    check(damaged, io::ErrorKind::InvalidData, &[&named, &place, &id]);
    // The large record's first fragment: the record itself is whole.
    let mut at = 0;
    let large = sample.id(10);
    let found = sample.log.get(large, |_, record| {
        at = record.fragments().next().unwrap().position;
        Ok(())
    });
    found.unwrap();
    sample.write(b"damage", at + ENTRY_FRAME as u64);
    let damaged = sample.get(10).unwrap_err();
    assert!(matches!(damaged, ReadError::Damaged { position, .. } if position == at));
    check(damaged, io::ErrorKind::InvalidData, &[&named, &format!("position {at}: a fragment")]);
}

#[test]
fn a_record_of_a_newer_version() {
    let sample = Sample::new();
    let at = sample.position(3);
    let octets = fs::read(&sample.segment).unwrap();
    let mut head = octets[at as usize..][..ENTRY_FRAME].to_vec();
    head[0] = 77;
    // Its checksum still that of the old kind: damage.
    sample.write(&head, at);
    assert!(matches!(sample.get(3).unwrap_err(), ReadError::Damaged { .. }));
    let sum = crc(&head[..20]);
    head[20..].copy_from_slice(&sum.to_le_bytes());
    sample.write(&head, at);
    let newer = sample.get(3).unwrap_err();
    assert!(matches!(newer, ReadError::Unsupported { kind: 77, position, .. } if position == at));
    assert!(newer.is_damage(), "an exporter goes on without it");
    let named = sample.segment.display();
    check(newer, io::ErrorKind::InvalidData, &[&named, &"kind 77", &at, &"newer version"]);
}

/// As after a way back to a former program: what only the newer one can read is named, everything else
/// is read, a start deletes and renumbers nothing, and the next upgrade finds all of it.
#[test]
fn a_former_program_keeps_what_a_newer_one_wrote() {
    struct Found(Vec<Finding>);
    impl Witness for Found {
        fn found(&mut self, finding: Finding) -> io::Result<()> {
            self.0.push(finding);
            Ok(())
        }
    }
    let sample = Sample::new();
    let at = sample.position(3) as usize;
    let whole = fs::read(&sample.segment).unwrap();
    let group = at - GROUP_FRAME;
    let (mut frame, _) = GroupFrame::decode(&whole[group..]).unwrap();
    let end = at + frame.payload_bytes as usize;
    let mut octets = whole.clone();
    octets[at] = 77;
    let sum = crc(&octets[at..at + 20]);
    octets[at + 20..at + ENTRY_FRAME].copy_from_slice(&sum.to_le_bytes());
    // With the checksum of its group, as the newer program wrote it. Those behind hang on it.
    frame.payload_crc = crc(&octets[at..end]);
    let mut chain = frame.encode(&mut octets[group..]);
    let mut next = group + frame.span() as usize;
    while let Some((mut frame, _)) = GroupFrame::decode(&octets[next..]) {
        frame.chain = chain;
        chain = frame.encode(&mut octets[next..]);
        next += frame.span() as usize;
    }
    fs::write(&sample.segment, &octets).unwrap();
    let mut found = Found(Vec::new());
    verify(&sample.log, &[0], &mut found).unwrap();
    let named = found.0.iter().find(|finding| finding.what.contains("newer version"));
    assert!(named.is_some_and(|finding| finding.offset == 3), "{:?}", found.0);
    let read = || {
        let mut follower = Follower::new(&sample.log, 0, 0).unwrap();
        let mut offsets = Vec::new();
        let damage = follower.poll_below(u64::MAX, &mut |_, offset, _| {
            offsets.push(offset);
            Ok(Visit::More)
        });
        (offsets, damage.unwrap())
    };
    let (offsets, damage) = read();
    assert_eq!(damage[0].offset, 3, "it goes to the dead letters");
    assert!(!offsets.contains(&3) && offsets.contains(&0) && offsets.contains(&39), "{offsets:?}");
    let recovered = recover(&sample.shard, sample.log.identity(0)).unwrap();
    assert_eq!((recovered.next_offset.get(), recovered.lost_records), (40, 0));
    assert_eq!(fs::read(&sample.segment).unwrap(), octets, "as it was");
    // The newer program comes back.
    fs::write(&sample.segment, &whole).unwrap();
    assert_eq!(read(), ((0..40).collect::<Vec<_>>(), Vec::new()));
    sample.get(3).unwrap();
}

#[test]
fn mail_data_whose_file_is_missing() {
    let sample = Sample::new();
    let lost = sample.log.get(sample.id(10), |log, record| {
        fs::remove_file(&sample.segment)?;
        Ok(log.mail_data(0, record, |_| Ok(()))?)
    });
    let lost = lost.unwrap_err();
    assert!(matches!(&lost, ReadError::Unreadable { path, .. } if *path == sample.segment));
    assert!(lost.is_damage() && lost.source().is_some());
    check(lost, io::ErrorKind::InvalidData, &[&sample.segment.display(), &"cannot be read"]);
}

#[test]
fn what_recovery_refuses() {
    let sample = Sample::new();
    write_files(&sample.data, 1);
    let fresh = segment_path(&sample.shard, sample.log.segments(0).unwrap()[1].number);
    let whole = fs::read(&fresh).unwrap();
    fs::remove_file(&fresh).unwrap();
    fs::create_dir(&fresh).unwrap();
    let refused = recover(&sample.shard, sample.log.identity(0)).unwrap_err();
    assert!(matches!(&refused, ReadError::Unsealed { path, .. } if *path == fresh));
    check(refused, io::ErrorKind::InvalidData, &[&fresh.display(), &"not a regular file"]);
    fs::remove_dir(&fresh).unwrap();
    fs::write(&fresh, whole).unwrap();
    let other = Identity { node: [9; 6], shard: 0 };
    let refused = recover(&sample.shard, other).unwrap_err();
    assert!(matches!(refused, ReadError::OtherLog { ours, .. } if ours == other));
    check(
        refused,
        io::ErrorKind::InvalidData,
        &[&sample.shard.display(), &"not that of node 0909"],
    );
    // Moved back where it belongs, it is as it was.
    assert!(!sample.shard.join("manifest.foreign-1").exists());
    assert!(recover(&sample.shard, sample.log.identity(0)).is_ok_and(|it| it.damage.is_empty()));
}

/// What the operating system refuses names what was tried on which file.
#[test]
fn a_file_that_the_system_refuses() {
    let sample = Sample::new();
    let refused = |error: ReadError, wanted: Operation, path: &Path| {
        let ReadError::Io { operation, path: ref named, .. } = error else { panic!("{error}") };
        assert_eq!((operation, named.as_path()), (wanted, path));
        assert!(error.source().is_some() && !error.is_damage());
        let text = format!("cannot {operation} {}: ", path.display());
        let kind = io::Error::from(error);
        let inner = kind.downcast::<ReadError>().unwrap();
        assert!(inner.to_string().starts_with(&text), "{inner}");
    };
    let shard = shard_dir(&sample.data, 5);
    refused(sample.log.segments(5).unwrap_err(), Operation::List, &shard);
    let manifest = sample.shard.join("manifest");
    fs::remove_file(&manifest).unwrap();
    fs::create_dir(&manifest).unwrap();
    refused(sample.log.segments(0).unwrap_err(), Operation::Read, &manifest);
    refused(
        recover(&sample.shard, sample.log.identity(0)).unwrap_err(),
        Operation::Open,
        &manifest,
    );
}

/// A visitor's error comes back as it is; one of a read within the visit as that.
#[test]
fn what_a_visitor_says() {
    let sample = Sample::new();
    let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
    let mut follower = Follower::new(&sample.log, 0, 0).unwrap();
    let said = follower.poll(&mut |_, _| Err(broken())).unwrap_err();
    let ReadError::Visitor(inner) = said else { panic!("{said}") };
    assert_eq!(inner.kind(), io::ErrorKind::BrokenPipe);
    let error = io::Error::from(ReadError::Visitor(io::Error::from_raw_os_error(libc::ENOSPC)));
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "not wrapped");
    let inner = sample.log.get(sample.id(3), |log, _| Ok(log.get(sample.id(40), |_, _| Ok(()))?));
    assert!(matches!(inner.unwrap_err(), ReadError::NoRecord { .. }));
}
