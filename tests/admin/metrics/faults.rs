//! What is counted of segments that were lost or damaged while the server was down: each kind of
//! fault is made, and the start that follows shows it.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::Moves;

use crate::support::{Launch, Server, machine, segments, send};

pub const MOVES: Moves = &[
    (
        "log_faulty_segments",
        "kind",
        &[
            "missing",
            "unreadable",
            "truncated",
            "header",
            "replaced",
            "copy",
            "foreign",
            "overlap",
            "corrupt",
            "manifest",
        ],
    ),
    ("log_corrupt_records_total", "stage", &["recovery"]),
];

fn start(dir: &Path) -> Server {
    Launch::new(dir).set("server.shards=1").set("log.segment_size=1MiB").start()
}

/// A log of so many sealed segments with so many records each, of this node or one of its own.
fn log(dir: &Path, node: Option<&Path>, count: u32, records: u64) -> Vec<PathBuf> {
    fs::create_dir_all(dir).unwrap();
    if let Some(node) = node {
        fs::copy(node.join("node"), dir.join("node")).unwrap();
    }
    for _ in 0..count {
        let server = start(dir);
        send(&server, records, 2_000);
        assert_eq!(server.stop(), Some(0));
    }
    let mut found = segments(dir);
    // What was made ready and not used is there too.
    found.retain(|path| has_records(path));
    assert_eq!(found.len(), count as usize, "{found:?}");
    found
}

fn has_records(path: &Path) -> bool {
    fs::read(path).unwrap().iter().skip(4_096).any(|octet| *octet != 0)
}

fn zero(path: &Path, from: u64, count: usize) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&vec![0; count], from).unwrap();
}

/// How many segments the next start finds faulty in this way.
#[track_caller]
fn faulty(dir: &Path, kind: &str) {
    let server = start(dir);
    let (_, page) = server.page("/metrics");
    let line = format!("mailrace_log_faulty_segments{{kind=\"{kind}\"}} 1\n");
    let faults: Vec<_> = page.lines().filter(|line| line.contains("log_faulty")).collect();
    assert!(page.contains(&line), "{kind}: {faults:#?}; {}", server.errors());
    let (status, text) = server.page("/readyz");
    assert!(status == 200 && text.starts_with("ready, degraded\n"), "{kind}: {text}");
}

#[test]
fn each_kind_of_fault_is_counted_at_the_start() {
    let dirs = tempfile::tempdir().unwrap();
    let (ours, twin) = (dirs.path().join("ours"), dirs.path().join("twin"));
    let stranger = dirs.path().join("stranger");
    log(&ours, None, 2, 5);
    // Another log of the same node, as a restored backup may be: ten records, but more segments.
    let twins = log(&twin, Some(&ours), 5, 2);
    let strangers = log(&stranger, None, 1, 5);
    type Harm<'a> = (&'a str, &'a dyn Fn(&[PathBuf]));
    let harms: [Harm<'_>; 9] = [
        ("missing", &|ours| fs::remove_file(&ours[0]).unwrap()),
        ("unreadable", &|ours| {
            fs::remove_file(&ours[0]).unwrap();
            fs::create_dir(&ours[0]).unwrap();
        }),
        ("truncated", &|ours| {
            OpenOptions::new().write(true).open(&ours[0]).unwrap().set_len(8_192).unwrap();
        }),
        ("header", &|ours| zero(&ours[0], 0, 4_096)),
        ("replaced", &|ours| _ = fs::copy(&twins[0], &ours[0]).unwrap()),
        ("copy", &|ours| _ = fs::copy(&ours[0], &ours[1]).unwrap()),
        ("foreign", &|ours| {
            fs::copy(&strangers[0], ours[0].with_file_name("0000000900.seg")).unwrap();
        }),
        // Of a number that ours does not have yet, with offsets that it has.
        ("overlap", &|ours| {
            let later = twins.iter().find(|twin| twin.file_name() > ours[1].file_name()).unwrap();
            fs::copy(later, ours[0].with_file_name(later.file_name().unwrap())).unwrap();
        }),
        ("manifest", &|ours| fs::remove_file(ours[0].with_file_name("manifest")).unwrap()),
    ];
    for (kind, harm) in harms {
        let harmed = dirs.path().join(kind);
        machine::run("cp", &["-r", ours.to_str().unwrap(), harmed.to_str().unwrap()]);
        let mut there = segments(&harmed);
        there.retain(|path| has_records(path));
        harm(&there);
        faulty(&harmed, kind);
    }
}

/// A kill, and then damage in front of what was acknowledged later: records are lost, and counted.
#[test]
fn records_that_recovery_finds_damaged_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    send(&server, 5, 2_000);
    server.kill();
    let mut there = segments(dir.path());
    there.retain(|path| has_records(path));
    let octets = fs::read(&there[0]).unwrap();
    let end = octets.iter().rposition(|octet| *octet != 0).unwrap() as u64;
    let file = File::options().write(true).open(&there[0]).unwrap();
    // In the second of the groups.
    file.write_all_at(b"rotten", (4_096 + (end - 4_096) * 3 / 10) & !63).unwrap();
    faulty(dir.path(), "corrupt");
    let server = start(dir.path());
    let lost = server.metric("mailrace_log_corrupt_records_total", &["stage=\"recovery\""]);
    assert!(lost >= 1.0, "{lost}; {}", server.errors());
}
