//! The segment walker and the reading of records, over hostile octets with true checksums: the
//! frames are built here from the format's description, apart from the library's own code.

use mailrace::log::{Log, walk};

const BLOCK: usize = 4096;

fn crc(octets: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, octets) as u32
}

/// Puts the checksum of what stands before it at `at`.
fn sum(octets: &mut [u8], at: usize) -> u32 {
    let sum = crc(&octets[..at]);
    octets[at..at + 4].copy_from_slice(&sum.to_le_bytes());
    sum
}

/// The first octet chooses: raw octets, a good header before them, or whole frames around them.
pub fn run(octets: &[u8]) {
    let [mode, content @ ..] = octets else { return };
    let mut segment = vec![0; BLOCK];
    segment[..8].copy_from_slice(b"MRSEGM01");
    segment[32] = 1;
    let chain = sum(&mut segment, 48);
    match mode % 3 {
        0 => segment = content.to_vec(),
        1 => segment.extend_from_slice(content),
        _ => {
            let mut entry = vec![0; 24];
            entry[0] = 1;
            entry[4..8].copy_from_slice(&(content.len() as u32).to_le_bytes());
            entry[16..20].copy_from_slice(&crc(content).to_le_bytes());
            sum(&mut entry, 20);
            entry.extend_from_slice(content);
            let mut group = vec![0; 80];
            group[..8].copy_from_slice(b"MRGROUP1");
            group[56] = 1;
            group[60..64].copy_from_slice(&(entry.len() as u32).to_le_bytes());
            group[64..68].copy_from_slice(&crc(&entry).to_le_bytes());
            group[68..72].copy_from_slice(&chain.to_le_bytes());
            sum(&mut group, 72);
            group.extend(entry);
            group.resize(group.len().next_multiple_of(BLOCK), 0);
            segment.extend(group);
        }
    }
    let walked = walk(segment.as_slice(), segment.len() as u64).expect("memory can be read");
    if let Some(walked) = walked {
        assert!(walked.end_position <= (segment.len() as u64).next_multiple_of(BLOCK as u64));
        if mode % 3 == 2 {
            assert_eq!((walked.end_offset, walked.end_position), (1, segment.len() as u64));
        }
    }
    read(&segment);
}

/// Reads every record as `log cat` does.
fn read(segment: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory");
    let shard = dir.path().join("shard-000");
    std::fs::create_dir(&shard).expect("a directory");
    std::fs::write(dir.path().join("node"), "000000000000\n").expect("written");
    std::fs::write(shard.join("0000000001.seg"), segment).expect("written");
    let log = Log::open(dir.path()).expect("a data directory");
    for facts in log.segments(0).expect("a shard") {
        let walked = log.walk_segment(&facts, None, 0, &mut |_, record| {
            let texts = [record.mail_from(), record.helo(), record.listener()];
            let mut read: usize = texts.iter().map(|text| text.chars().count()).sum();
            read += record.forward_paths().map(|path| path.chars().count()).sum::<usize>();
            read += record.inline().len() + usize::from(record.client().port());
            // A record may claim fragments of 4 GiB each; whether they are there is asked first.
            if record.fragments().all(|at| at.bytes < 1 << 16) {
                let _ = log.mail_data(0, record, |_| Ok(()));
            }
            assert!(read < usize::MAX);
            Ok(true)
        });
        assert!(walked.is_ok());
    }
}
