//! Segments and other files that are lost, cut short, doubled or from another log: what the start,
//! `verify` and readers report for each, and that nothing is lost silently.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::PathBuf,
};

use super::*;

/// Three sealed segments of 40 records each; the data directory's lock is free again.
struct Sample {
    _dir: tempfile::TempDir,
    data: PathBuf,
    shard: PathBuf,
    identity: Identity,
}

impl Sample {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        for _ in 0..3 {
            write_and_close(&data, 40);
        }
        let node = DataDir::open(&data).unwrap().node;
        let (shard, identity) = (shard_dir(&data, 0), Identity { node, shard: 0 });
        assert!(recover(&shard, identity).unwrap().damage.is_empty());
        Self { _dir: dir, data, shard, identity }
    }

    fn segments(&self) -> Vec<SegmentFacts> {
        Log::open(&self.data).unwrap().segments(0).unwrap()
    }

    fn path(&self, at: usize) -> PathBuf {
        segment_path(&self.shard, self.segments()[at].number)
    }

    fn recover(&self) -> Recovery {
        recover(&self.shard, self.identity).unwrap()
    }

    /// What a start says, each fault's kind and segment.
    fn faults(&self) -> Vec<(FaultKind, u64)> {
        self.recover().damage.iter().map(|fault| (fault.kind, fault.segment)).collect()
    }

    fn verified(&self) -> Vec<(Severity, u64, String)> {
        struct All(Vec<(Severity, u64, String)>);
        impl Witness for All {
            fn found(&mut self, found: Finding) -> io::Result<()> {
                self.0.push((found.severity, found.segment, found.what));
                Ok(())
            }
        }
        let mut all = All(Vec::new());
        verify(&Log::open(&self.data).unwrap(), &[0], &mut all).unwrap();
        all.0
    }

    /// Segments that `verify` calls corrupt.
    fn corrupt(&self) -> Vec<u64> {
        let corrupt = |(severity, segment, _): (Severity, u64, String)| {
            (severity == Severity::Corrupt).then_some(segment)
        };
        self.verified().into_iter().filter_map(corrupt).collect()
    }

    /// What a reader from an offset sees, and the gaps it names.
    fn read(&self, from: u64) -> (Vec<u64>, Vec<Damage>) {
        let log = Log::open(&self.data).unwrap();
        let mut follower = Follower::new(&log, 0, from).unwrap().patient_for(Duration::ZERO);
        let mut seen = Vec::new();
        let mut damage = Vec::new();
        for _ in 0..2 {
            damage.extend(
                follower
                    .poll(&mut |offset, _| {
                        seen.push(offset);
                        Ok(())
                    })
                    .unwrap(),
            );
        }
        (seen, damage)
    }
}

fn ends(damage: &[Damage]) -> Vec<(u64, Option<u64>)> {
    damage.iter().map(|damage| (damage.offset, damage.end)).collect()
}

#[test]
fn each_missing_segment_is_named_by_start_verify_and_readers() {
    for at in 0..3 {
        let sample = Sample::new();
        let segment = sample.segments()[at].clone();
        fs::remove_file(sample.path(at)).unwrap();
        for _ in 0..2 {
            assert_eq!(sample.faults(), [(FaultKind::Missing, segment.number)], "at every start");
        }
        assert_eq!(sample.corrupt(), [segment.number]);
        let recovery = sample.recover();
        assert_eq!((recovery.next_offset.get(), recovery.lost_records), (120, 40));
        let first = segment.base_offset;
        let what = format!("is missing, and with it records {first}..{}", first + 40);
        assert!(recovery.damage[0].what.contains(&what), "{}", recovery.damage[0]);
        let (seen, damage) = sample.read(0);
        let there: Vec<u64> = (0..120).filter(|at| !(first..first + 40).contains(at)).collect();
        assert_eq!(seen, there);
        assert_eq!(ends(&damage), [(first, Some(first + 40))]);
        assert!(damage[0].missing, "{}", damage[0]);
        // Begun in the middle of what is lost, and behind it.
        assert_eq!(ends(&sample.read(first + 5).1), [(first + 5, Some(first + 40))]);
        assert!(sample.read(first + 40).1.is_empty());
        let log = Log::open(&sample.data).unwrap();
        let walked = log.walk(0, 0, u64::MAX, &mut |_, _| Ok(true)).unwrap();
        let gap = WalkEnd::Corrupt { offset: first, position: 0 };
        assert_eq!(walked, [(segment.number, gap)]);
    }
}

#[test]
fn the_last_segment_is_missed_though_it_has_no_seal() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    write_files(&data, 40);
    let node = DataDir::open(&data).unwrap().node;
    let (shard, identity) = (shard_dir(&data, 0), Identity { node, shard: 0 });
    // The server was killed: nothing is sealed.
    fs::remove_file(segment_path(&shard, 1)).unwrap();
    for _ in 0..2 {
        let recovery = recover(&shard, identity).unwrap();
        assert_eq!(recovery.damage.len(), 1, "{:?}", recovery.damage);
        assert_eq!(recovery.damage[0].kind, FaultKind::Missing);
        assert!(recovery.damage[0].what.contains("records around offset 0"));
        assert!(recovery.next_offset.get() > 40, "no offset is used twice");
    }
}

/// What was written down of a number while its file was away does not count against the mail in it.
#[test]
fn a_segment_that_is_put_back_is_recovered_whatever_was_recorded_of_it() {
    for (case, headless) in [
        ("manifest", false),
        ("unused", false),
        ("lost", false),
        ("manifest", true),
        ("unused", true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        write_files(&data, 40);
        let node = DataDir::open(&data).unwrap().node;
        let (shard, identity) = (shard_dir(&data, 0), Identity { node, shard: 0 });
        let (path, aside) = (segment_path(&shard, 1), dir.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        let manifest = shard.join("manifest");
        match case {
            "manifest" => fs::remove_file(&manifest).unwrap(),
            "unused" => Manifest::open(&manifest).unwrap().remove(&[1]).unwrap(),
            _ => {}
        }
        let before = recover(&shard, identity).unwrap().next_offset;
        if headless {
            let file = fs::File::options().write(true).open(&aside).unwrap();
            file.write_all_at(&[0x55; frame::BLOCK], 0).unwrap();
        }
        fs::rename(&aside, &path).unwrap();
        let mut seals = 0;
        for round in 0..2 {
            let recovery = recover(&shard, identity).unwrap();
            assert!(path.exists(), "{case}, headless: {headless}");
            assert_eq!(recovery.lost_records > 0, headless, "{case}: {recovery:?}");
            assert!(recovery.next_offset >= before, "no offset is used twice");
            let now = recovery.manifest.seals().len();
            assert!(round == 0 || now == seals, "{case}: judged once");
            seals = now;
        }
        let mut seen = Vec::new();
        let log = Log::open(&data).unwrap();
        log.walk(0, 0, u64::MAX, &mut |offset, _| {
            seen.push(offset);
            Ok(true)
        })
        .unwrap();
        let expected = if headless { 0..0 } else { 0..40 };
        assert_eq!(seen, expected.collect::<Vec<_>>(), "{case}, headless: {headless}");
    }
}

/// A number that was never used is deleted as before, and so is what retention was about to delete.
#[test]
fn leftovers_without_mail_are_deleted() {
    let sample = Sample::new();
    let last = sample.segments().last().unwrap().number;
    let blank = segment_path(&sample.shard, last + 1);
    fs::write(&blank, [0; 3 * frame::BLOCK]).unwrap();
    // Groups beyond two blocks of zeros.
    let wiped = segment_path(&sample.shard, last + 2);
    let mut octets = fs::read(sample.path(0)).unwrap();
    octets[..2 * frame::BLOCK].fill(0);
    fs::write(&wiped, octets).unwrap();
    // Of another log: whatever the mark says, it is not ours to delete.
    let foreign = segment_path(&sample.shard, last + 3);
    fs::copy(Sample::new().path(0), &foreign).unwrap();
    let unused = [last + 1, last + 2, last + 3];
    Manifest::open(&sample.shard.join("manifest")).unwrap().remove(&unused).unwrap();
    assert_eq!(sample.faults(), [(FaultKind::Foreign, last + 3)]);
    assert!(!blank.exists() && wiped.exists() && foreign.exists());
}

/// A segment that could not be finished is removed again: a process that dies then leaves nothing to
/// miss. Of one that was handed over the file is missed. Found by the simulator.
#[test]
fn a_segment_that_was_taken_back_is_not_missed() {
    for (taken_back, first) in [(true, false), (true, true), (false, false)] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        if !first {
            write_files(&data, 40);
        }
        let data = DataDir::open(&data).unwrap();
        let (shard, identity) =
            (data.make_shard(0).unwrap(), Identity { node: data.node, shard: 0 });
        let next = recover(&shard, identity).unwrap().next_segment;
        prepare_segment(&shard, next, SEGMENT).unwrap();
        match taken_back {
            true => discard_segment(&shard, next).unwrap(),
            false => fs::remove_file(segment_path(&shard, next)).unwrap(),
        }
        let recovery = recover(&shard, identity).unwrap();
        let missed = recovery.damage.iter().any(|fault| fault.segment == next);
        assert_eq!(missed, !taken_back, "{:?}", recovery.damage);
        // Its number is used after all.
        if taken_back {
            assert_eq!(recovery.next_segment, next);
            prepare_segment(&shard, next, SEGMENT).unwrap();
            fs::remove_file(segment_path(&shard, next)).unwrap();
            assert!(!recover(&shard, identity).unwrap().damage.is_empty(), "it is missed now");
        }
    }
}

/// A name that is taken is left alone, and what is written down as made has no gap there.
#[test]
fn a_segment_is_never_made_over_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    write_files(&data, 40);
    let node = DataDir::open(&data).unwrap().node;
    let (shard, identity) = (shard_dir(&data, 0), Identity { node, shard: 0 });
    // The second is ready for use.
    let taken = segment_path(&shard, 3);
    fs::write(&taken, "not a segment").unwrap();
    let refused = prepare_segment(&shard, 3, SEGMENT).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&taken).unwrap(), b"not a segment");
    prepare_segment(&shard, 4, SEGMENT).unwrap();
    fs::remove_file(segment_path(&shard, 1)).unwrap();
    let damage = recover(&shard, identity).unwrap().damage;
    let missing = |fault: &Fault| (fault.kind, fault.segment) == (FaultKind::Missing, 1);
    assert!(damage.iter().any(missing), "{damage:?}");
}

#[test]
fn damage_before_an_error_is_reported_and_then_the_error() {
    let sample = Sample::new();
    let (first, second) = (sample.path(0), sample.path(1));
    let mut octets = fs::read(&first).unwrap();
    let at = groups(&octets)[6].0;
    octets[at + 20] ^= 1;
    fs::write(&first, octets).unwrap();
    let aside = sample.data.join("aside");
    fs::rename(&second, &aside).unwrap();
    fs::create_dir(&second).unwrap();
    let log = Log::open(&sample.data).unwrap();
    let mut follower = Follower::new(&log, 0, 0).unwrap();
    let mut seen = Vec::new();
    let mut poll = || {
        follower.poll(&mut |offset, _| {
            seen.push(offset);
            Ok(())
        })
    };
    let damage = poll().unwrap();
    assert_eq!(damage.len(), 1, "{damage:?}");
    let error = poll().unwrap_err().to_string();
    assert!(error.contains(second.to_str().unwrap()), "{error}");
    fs::remove_dir(&second).unwrap();
    fs::rename(&aside, &second).unwrap();
    assert_eq!(poll().unwrap(), [], "it is reported once");
    let lost = damage[0].offset;
    assert_eq!(seen, (0..120).filter(|&offset| offset != lost).collect::<Vec<_>>());
}

#[test]
fn what_is_deleted_on_purpose_is_not_missed_whenever_the_process_dies() {
    for step in 0..4 {
        let sample = Sample::new();
        let numbers: Vec<u64> = sample.segments().iter().map(|s| s.number).collect();
        let gone = &numbers[..2];
        let path = sample.shard.join("manifest");
        let before = fs::read(&path).unwrap();
        Manifest::open(&path).unwrap().remove(gone).unwrap();
        if step == 0 {
            // The record was torn: nothing is deleted yet.
            let torn = fs::read(&path).unwrap();
            fs::write(&path, &torn[..before.len() + 70]).unwrap();
        }
        // Unlinks reach the disk in any order, or not at all.
        for &number in match step {
            0 | 1 => &[][..],
            2 => &gone[1..],
            _ => gone,
        } {
            fs::remove_file(segment_path(&sample.shard, number)).unwrap();
        }
        for _ in 0..2 {
            assert_eq!(sample.faults(), [], "step {step}");
            assert_eq!(sample.corrupt(), [0_u64; 0], "step {step}");
        }
        assert!(sample.read(0).1.is_empty(), "step {step}");
        assert_eq!(sample.recover().next_offset.get(), 120);
    }
}

#[test]
fn what_an_earlier_version_deleted_is_not_missed() {
    let sample = Sample::new();
    // Its manifest had neither mark: only seals.
    let path = sample.shard.join("manifest");
    let octets = fs::read(&path).unwrap();
    let seals: Vec<_> = octets.chunks(64).filter(|record| record[8..16] != [0; 8]).collect();
    fs::write(&path, seals.concat()).unwrap();
    fs::remove_file(sample.shard.join("shard.meta")).unwrap();
    fs::remove_file(sample.path(0)).unwrap();
    assert_eq!(sample.corrupt(), [0_u64; 0]);
    assert!(sample.read(0).1.is_empty());
    let first = sample.recover();
    assert!(first.damage.is_empty() && first.notices.len() == 1, "{first:?}");
    assert!(sample.recover().notices.iter().all(|notice| !notice.contains("earlier version")));
    // From now on deletions are recorded.
    let lost = sample.segments()[0].number;
    fs::remove_file(sample.path(0)).unwrap();
    assert_eq!(sample.faults(), [(FaultKind::Missing, lost)]);
}

#[test]
fn a_segment_that_was_cut_short_is_named() {
    for bytes in [0, 100, 4_096, 40_000] {
        let sample = Sample::new();
        let segment = sample.segments()[1].clone();
        fs::File::options().write(true).open(sample.path(1)).unwrap().set_len(bytes).unwrap();
        assert_eq!(sample.faults(), [(FaultKind::Truncated, segment.number)], "{bytes}");
        assert_eq!(sample.corrupt(), [segment.number], "{bytes}");
        let (seen, damage) = sample.read(0);
        assert!(seen.starts_with(&[0, 1]) && seen.ends_with(&[118, 119]), "{bytes}: {seen:?}");
        assert!(seen.len() < 120 && seen.len() >= 80, "{bytes}");
        assert_eq!(damage.len(), 1, "{bytes}: {damage:?}");
    }
    // The one that was in use when the server was killed.
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    write_files(&data, 40);
    let node = DataDir::open(&data).unwrap().node;
    let (shard, identity) = (shard_dir(&data, 0), Identity { node, shard: 0 });
    let path = segment_path(&shard, 1);
    fs::File::options().write(true).open(path).unwrap().set_len(30_000).unwrap();
    let recovery = recover(&shard, identity).unwrap();
    assert_eq!(recovery.damage.len(), 1, "{:?}", recovery.damage);
    assert!(recovery.next_offset.get() > 40, "no offset is used twice");
    assert_eq!(recover(&shard, identity).unwrap().damage.len(), 1, "at every start");
}

#[test]
fn a_segment_that_cannot_be_read_is_named() {
    let sample = Sample::new();
    let segment = sample.segments()[1].clone();
    let path = sample.path(1);
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(sample.faults(), [(FaultKind::Unreadable, segment.number)]);
    assert_eq!(sample.corrupt(), [segment.number]);
    let (seen, damage) = sample.read(0);
    assert_eq!(seen.len(), 80);
    assert_eq!(ends(&damage), [(40, Some(80))]);
    // Once it can be read again all is well.
    fs::remove_dir(&path).unwrap();
    fs::write(&path, whole).unwrap();
    assert_eq!((sample.faults(), sample.corrupt()), (vec![], vec![]));
    assert_eq!(sample.read(0).0.len(), 120);
    // What is not sealed yet is not gone on without: whether it holds mail cannot be said.
    write_files(&sample.data, 5);
    let last = sample.segments().last().unwrap().number;
    let path = segment_path(&sample.shard, last);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let refused = recover(&sample.shard, sample.identity).unwrap_err().to_string();
    assert!(refused.contains(".seg cannot be read") && refused.contains("move it away"));
}

#[test]
fn doubled_segments_and_those_of_another_log_are_named_and_not_read() {
    let sample = Sample::new();
    fs::copy(sample.path(0), segment_path(&sample.shard, 900)).unwrap();
    assert_eq!(sample.faults(), [(FaultKind::Copy, 900)]);
    assert_eq!(sample.corrupt(), [900]);
    assert_eq!(sample.read(0).0, (0..120).collect::<Vec<_>>());
    fs::remove_file(segment_path(&sample.shard, 900)).unwrap();

    let other = Sample::new();
    fs::copy(other.path(1), segment_path(&sample.shard, 901)).unwrap();
    assert_eq!(sample.faults(), [(FaultKind::Foreign, 901)]);
    assert_eq!(sample.corrupt(), [901]);
    assert_eq!(sample.read(0).0, (0..120).collect::<Vec<_>>());
    fs::remove_file(segment_path(&sample.shard, 901)).unwrap();

    // In the place of one of ours.
    let number = sample.segments()[2].number;
    fs::copy(sample.path(0), sample.path(2)).unwrap();
    assert_eq!(sample.faults(), [(FaultKind::Copy, number)]);
    assert_eq!(sample.corrupt(), [number]);
    let (seen, damage) = sample.read(0);
    assert_eq!((seen.len(), ends(&damage)), (80, vec![(80, Some(120))]));

    // A whole shard of another node: nothing is concluded from it.
    let strange = Identity { node: [9; 6], shard: 0 };
    let refused = recover(&sample.shard, strange).unwrap_err().to_string();
    assert!(refused.contains("holds the log of node") && refused.contains("adopt"), "{refused}");
}

#[test]
fn two_segments_with_the_same_offsets_are_named() {
    let sample = Sample::new();
    // A copy with a header of its own, as a restored backup may have it.
    let mut octets = fs::read(sample.path(1)).unwrap();
    let (header, _) = frame::SegmentHeader::decode(&octets).unwrap();
    frame::SegmentHeader { number: 77, ..header }.encode(&mut octets[..frame::BLOCK]);
    fs::write(segment_path(&sample.shard, 77), &octets[..frame::BLOCK]).unwrap();
    let overlap = |sample: &Sample| {
        sample.faults().iter().any(|(kind, segment)| (*kind, *segment) == (FaultKind::Overlap, 77))
    };
    assert!(!overlap(&sample), "it holds no record");
    let seal = Seal {
        number: 77,
        nonce: header.nonce,
        first_offset: 40,
        end_offset: 60,
        end_position: frame::BLOCK as u64,
        damaged: false,
        skipped: 0,
        reach: None,
        removed: false,
    };
    Manifest::open(&sample.shard.join("manifest")).unwrap().append(&seal).unwrap();
    assert!(overlap(&sample));
    assert!(sample.corrupt().contains(&77), "{:?}", sample.verified());
}

#[test]
fn a_lost_or_foreign_manifest_is_named_and_the_segments_are_judged_again() {
    let sample = Sample::new();
    let path = sample.shard.join("manifest");
    let ours = fs::read(&path).unwrap();
    let manifest = |sample: &Sample| {
        let faults = sample.faults();
        faults.iter().any(|(kind, _)| *kind == FaultKind::Manifest)
    };
    for empty in [false, true] {
        match empty {
            true => fs::write(&path, "").unwrap(),
            false => fs::remove_file(&path).unwrap(),
        }
        assert_eq!(sample.corrupt(), [0], "verify cannot vouch for it");
        assert!(manifest(&sample), "empty: {empty}");
        assert!(!manifest(&sample), "it is there again");
        assert_eq!(sample.read(0).0.len(), 120);
    }
    let other = Sample::new();
    fs::copy(other.shard.join("manifest"), &path).unwrap();
    assert!(sample.corrupt().contains(&0));
    assert_eq!(sample.read(0).0.len(), 120, "readers go by the frames then");
    assert!(manifest(&sample));
    let aside = sample.shard.join("manifest.foreign-1");
    assert!(fs::read(aside).unwrap() == fs::read(other.shard.join("manifest")).unwrap());
    assert_eq!(sample.read(0).0.len(), 120);
    // A damaged record in its middle hides none of those behind it.
    let mut damaged = ours.clone();
    damaged[64 + 20] ^= 1;
    fs::write(&path, &damaged).unwrap();
    assert!(sample.verified().iter().any(|(how, _, what)| {
        *how == Severity::Warning && what.contains("damaged records are skipped")
    }));
    let recovery = sample.recover();
    assert!(recovery.damage.is_empty() && recovery.next_offset.get() == 120, "{recovery:?}");
    assert!(recovery.notices.iter().any(|notice| notice.contains("damaged records")));
}

#[test]
fn a_lost_node_file_is_never_made_anew() {
    let sample = Sample::new();
    let node = sample.data.join("node");
    let id = fs::read_to_string(&node).unwrap();
    fs::remove_file(&node).unwrap();
    let refused = DataDir::open(&sample.data).unwrap_err().to_string();
    let known = hex(sample.identity.node);
    for part in [node.to_str().unwrap(), "is missing", &known, "mailrace log adopt"] {
        assert!(refused.contains(part), "{part:?} is missing in {refused}");
    }
    assert!(!node.exists(), "no new id is drawn");
    let refused = Log::open(&sample.data).unwrap_err().to_string();
    assert!(refused.contains("mailrace log adopt"), "{refused}");
    // Another node's.
    fs::write(&node, "0123456789ab\n").unwrap();
    let refused = DataDir::open(&sample.data).unwrap_err().to_string();
    assert!(refused.contains("it holds 0123456789ab") && refused.contains(&known), "{refused}");
    // All segments name one id.
    let evidence = Evidence::gather(&sample.data).unwrap();
    assert_eq!((evidence.node(), evidence.unknown), (Some(sample.identity.node), 0));
    write_node(&sample.data, sample.identity.node).unwrap();
    assert_eq!(fs::read_to_string(&node).unwrap(), id);
    assert!(!DataDir::open(&sample.data).unwrap().fresh);
    // Where retention has deleted every segment the manifest still names it.
    for segment in sample.segments() {
        fs::remove_file(segment_path(&sample.shard, segment.number)).unwrap();
    }
    fs::remove_file(&node).unwrap();
    assert!(DataDir::open(&sample.data).is_err());
}

#[test]
fn a_lost_lock_file_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let _held = DataDir::open(dir.path()).unwrap();
    fs::remove_file(dir.path().join("LOCK")).unwrap();
    let second = DataDir::open(dir.path()).unwrap_err();
    assert!(second.to_string().contains("in use by another process"), "{second}");
}

#[test]
fn files_are_private_whoever_made_the_directory_and_those_of_earlier_versions_become_so() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    write_files(&data, 200);
    let groups = data.join("groups/g");
    CommittedOffset::open(&groups.join("shard-000.offset")).unwrap();
    let letter = DeadLetter {
        offset: 1,
        at: 0,
        class: "refused".to_owned(),
        text: String::new(),
        attempts: 1,
        rcpt: None,
    };
    DeadLetters::open(&groups.join("shard-000.dead")).unwrap().add([letter]).unwrap();
    fn all(dir: &Path, found: &mut Vec<(PathBuf, u32)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let facts = entry.metadata().unwrap();
            found.push((entry.path(), facts.permissions().mode() & 0o777));
            if facts.is_dir() {
                all(&entry.path(), found);
            }
        }
    }
    let open = || {
        let mut found = Vec::new();
        all(&data, &mut found);
        assert!(found.len() >= 9, "{found:?}");
        found.retain(|(_, mode)| mode & 0o077 != 0);
        found
    };
    assert!(open().is_empty(), "{:?}", open());
    let shard = shard_dir(&data, 0);
    for path in [segment_path(&shard, 1), groups.join("shard-000.dead")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(&groups, fs::Permissions::from_mode(0o755)).unwrap();
    // A file that is none of ours stays as it is.
    fs::write(data.join("README"), "").unwrap();
    fs::set_permissions(data.join("README"), fs::Permissions::from_mode(0o644)).unwrap();
    let notices = DataDir::open(&data).unwrap().notices;
    assert!(notices[0].contains("chmod 700") && notices[1].contains("3 files"), "{notices:?}");
    assert_eq!(open(), [(data.join("README"), 0o644)]);
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(DataDir::open(&data).unwrap().notices.is_empty());
}

/// Retention keeps a manifest open beside the shard, which goes on sealing.
#[test]
fn a_removal_knows_what_was_sealed_since_the_manifest_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("manifest");
    let mut open = Manifest::open(&path).unwrap();
    let seal = Seal {
        number: 7,
        nonce: [7; 16],
        first_offset: 3,
        end_offset: 9,
        end_position: 8_192,
        damaged: false,
        skipped: 0,
        reach: Some(7),
        removed: false,
    };
    Manifest::open(&path).unwrap().append(&seal).unwrap();
    open.remove(&[7]).unwrap();
    let removed = Seal { removed: true, ..seal };
    assert_eq!(Manifest::open(&path).unwrap().seals(), [seal, removed]);
    open.remove(&[7]).unwrap();
    assert_eq!(Manifest::open(&path).unwrap().seals().len(), 2, "once");
}
