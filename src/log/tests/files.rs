//! The log over files: what was written is read back, recovery is repeatable.

use super::*;

#[test]
fn what_was_written_is_read_back_over_starts() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    for _ in 0..3 {
        written.extend(write_files(dir.path(), 200));
    }
    let log = Log::open(dir.path()).unwrap();
    assert_eq!(log.shards().unwrap(), [0]);
    for (id, octets) in &written {
        let read = log
            .get(*id, |log, record| {
                assert_eq!(record.mail_from(), "a@x.test");
                assert_eq!(record.forward_paths().collect::<Vec<_>>(), ["b@x.test", "c@x.test"]);
                assert_eq!(record.bytes(), octets.len() as u64);
                let mut read = Vec::new();
                log.mail_data(id.shard, record, |chunk| {
                    read.extend_from_slice(chunk);
                    Ok(())
                })?;
                Ok(read)
            })
            .unwrap();
        assert_eq!(&read, octets, "{id}");
    }
    let missing = RecordId { offset: Offset::new(1 << 40), ..written[0].0 };
    assert!(log.get(missing, |_, _| Ok(())).is_err());
    let mut seen = 0;
    for segment in log.segments(0).unwrap() {
        let end = log.walk_segment(&segment, None, 0, &mut |_, _| {
            seen += 1;
            Ok(true)
        });
        assert_eq!(end.unwrap(), WalkEnd::End);
    }
    assert_eq!(seen, written.len());
}

#[test]
fn a_second_server_is_refused_and_a_second_recovery_agrees() {
    let dir = tempfile::tempdir().unwrap();
    write_files(dir.path(), 50);
    let data = DataDir::open(dir.path()).unwrap();
    let second = DataDir::open(dir.path()).unwrap_err();
    assert!(second.to_string().contains("in use by another process"), "{second}");
    let shard = data.make_shard(0).unwrap();
    let identity = Identity { node: data.node, shard: 0 };
    let first = recover(&shard, identity).unwrap();
    let again = recover(&shard, identity).unwrap();
    assert_eq!(first.next_offset, again.next_offset);
    // Without the manifest the segments are judged by what is in them: no offset is used twice. That
    // it is missing is said, and that the segment made ready last may have been used.
    std::fs::remove_file(shard.join("manifest")).unwrap();
    let anew = recover(&shard, identity).unwrap();
    assert!(anew.next_offset >= first.next_offset);
    let kinds: Vec<_> = anew.damage.iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds[0], FaultKind::Manifest, "{:?}", anew.damage);
}

/// Copies a shard's files but for its manifest.
fn copy_segments(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|name| name == "seg") {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// A shard with three segments nobody sealed, each of two groups; gives its directory.
fn three_segments(dir: &Path) -> (std::path::PathBuf, Identity) {
    let shard = shard_dir(dir, 0);
    std::fs::create_dir_all(&shard).unwrap();
    let mut next = 0;
    for number in 1..=3 {
        let mut appender = Appender::new(IDENTITY, Options::default(), Offset::new(next));
        let nonce = [number as u8; 16];
        appender.handle_segment(Spare { number, nonce, bytes: 64 * 1024 });
        let mut octets = vec![0; 64 * 1024];
        for seed in 0..3 {
            next = appender.append(&mail("a@x.test"), &[&body(seed)], &[]).unwrap().next().get();
            testing::complete(&mut appender, |_, position, buffer| {
                octets[position as usize..][..buffer.len()].copy_from_slice(buffer.octets());
            });
        }
        std::fs::write(segment_path(&shard, number), octets).unwrap();
    }
    (shard, IDENTITY)
}

/// Recovers, then again from every octet at which the manifest may have been cut by a crash:
/// the seals, the next offset and segment are the same each time (I7).
fn recover_again_and_again(shard: &Path, identity: Identity) -> Recovery {
    let first = recover(shard, identity).unwrap();
    let manifest = std::fs::read(shard.join("manifest")).unwrap();
    let copies = tempfile::tempdir().unwrap();
    for cut in 0..=manifest.len() {
        let copy = copies.path().join(cut.to_string());
        copy_segments(shard, &copy);
        std::fs::write(copy.join("manifest"), &manifest[..cut]).unwrap();
        for round in 0..1 + usize::from(cut % 16 == 0) {
            let again = recover(&copy, identity).unwrap();
            assert_eq!(
                (again.next_offset, again.next_segment),
                (first.next_offset, first.next_segment),
                "cut at {cut}, round {round}"
            );
            let sealed = std::fs::read(copy.join("manifest")).unwrap();
            assert!(sealed == manifest, "cut at {cut}, round {round}: the same seals");
        }
    }
    first
}

#[test]
fn t10_an_interrupted_recovery_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let (shard, identity) = three_segments(dir.path());
    let recovery = recover_again_and_again(&shard, identity);
    assert_eq!((recovery.next_offset.get(), recovery.next_segment), (9 + 65_536, 4));
}

#[test]
fn t10_recovery_never_writes_to_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (shard, identity) = three_segments(dir.path());
    let path = segment_path(&shard, 3);
    let mut octets = std::fs::read(&path).unwrap();
    octets[2 * frame::BLOCK + 200] ^= 1;
    std::fs::write(&path, &octets).unwrap();
    let recovery = recover(&shard, identity).unwrap();
    assert!(recovery.next_offset.get() >= 9, "no offset is used twice");
    assert!(std::fs::read(&path).unwrap() == octets);
}

#[test]
fn t10_a_second_recovery_leaves_out_the_same_offsets() {
    // The last segment ends in a torn tail, or is damaged in the middle.
    for flip in [3 * frame::BLOCK + 200, 2 * frame::BLOCK + 200] {
        let dir = tempfile::tempdir().unwrap();
        let (shard, identity) = three_segments(dir.path());
        let path = segment_path(&shard, 3);
        let mut octets = std::fs::read(&path).unwrap();
        octets[flip] ^= 1;
        std::fs::write(&path, &octets).unwrap();
        recover_again_and_again(&shard, identity);
    }
}
