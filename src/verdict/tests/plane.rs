//! The plane over a log on disk: every record gets its verdict once, whatever ends the process.

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use mailrace_dns::{Dns, DnsOptions};
use mailrace_log::{
    DataDir, HighWaterMarks, Log, Mail, Verdict, VerdictMarks, VerdictReader, Writer, testing::mail,
};
use mailrace_metrics::{DnsMetrics, VerdictMetrics};

use super::{
    NONE, dkim,
    zone::{Data, Responder},
};
use crate::{Judge, ListenerRules, Methods, OwnDomains, Plane, PlaneOptions};

/// A log that is written, and what its readers wait for.
struct Shard {
    writer: Writer,
    marks: Arc<HighWaterMarks>,
    log: Log,
    _data: DataDir,
}

impl Shard {
    fn new(dir: &Path) -> Self {
        let data = DataDir::open(dir).unwrap();
        let writer = Writer::open(&data, 0, 1 << 20).unwrap().without_sync();
        let (marks, _) = HighWaterMarks::new(1);
        let shard =
            Self { writer, marks: Arc::new(marks), log: Log::open(dir).unwrap(), _data: data };
        shard.marks.publish(0, shard.writer.high_water_mark());
        shard
    }

    fn receive(&mut self, listener: &str, mail_from: &str, data: &[u8]) -> u64 {
        let mail = Mail {
            mail_from,
            rcpts: "b@ours.test",
            helo: "mx.signer.test",
            client: "192.0.2.1:25".parse().unwrap(),
            received_at: 5,
            ..mail(listener)
        };
        let offset = self.writer.append(&mail, data).unwrap().get();
        self.writer.commit().unwrap();
        self.marks.publish(0, self.writer.high_water_mark());
        offset
    }

    fn plane(&self, dns: &Responder, queue_max: u64) -> (Plane, VerdictMetrics) {
        let counted = DnsMetrics::new();
        let metrics = VerdictMetrics::new(&counted, &[]);
        let attempt = Duration::from_millis(300);
        let options = DnsOptions { attempt, retries: 0, ..DnsOptions::new(vec![dns.address]) };
        let rules = ListenerRules {
            methods: Methods { spf: true, dkim: true, ..NONE },
            own: OwnDomains(Arc::new(|_| false)),
        };
        let plane = Plane::start(PlaneOptions {
            log: self.log.clone(),
            shards: 1,
            marks: self.marks.clone(),
            begin: Vec::new(),
            visible: Arc::default(),
            judge: Arc::new(Judge::new(Dns::start(&options, counted).unwrap()).unwrap()),
            receiver: "us.test".to_owned(),
            queue_max,
            metrics: metrics.clone(),
            rules: HashMap::from([("mx".to_owned(), rules)]),
        });
        (plane.unwrap(), metrics)
    }

    /// The verdict on a record, as soon as it is visible.
    fn verdict(&self, visible: &Arc<VerdictMarks>, offset: u64) -> Verdict {
        let began = Instant::now();
        let mut reader = VerdictReader::new(&self.log, Some(visible.clone()));
        loop {
            if let Some(verdict) = reader.get(0, self.segment(offset), offset).unwrap() {
                return verdict;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "no verdict on {offset}");
            visible.wait(Duration::from_millis(50));
        }
    }

    fn segment(&self, offset: u64) -> u64 {
        let mut segment = 0;
        let walked = self.log.walk(0, offset, offset + 1, &mut |_, record| {
            segment = record.segment();
            Ok(false)
        });
        walked.unwrap();
        segment
    }

    /// Verdicts in the journal, by offset.
    fn lines(&self) -> Vec<u64> {
        let dir = self.log.dir().join("shard-000");
        let mut offsets = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "ver") {
                let text = std::fs::read_to_string(path).unwrap();
                offsets.extend(text.lines().map(|line| {
                    let value: serde_json::Value = serde_json::from_str(&line[9..]).unwrap();
                    value["offset"].as_u64().unwrap()
                }));
            }
        }
        offsets.sort_unstable();
        offsets
    }
}

fn zone() -> super::Zone {
    let mut zone = dkim::zone();
    zone.txt("signer.test", "v=spf1 ip4:192.0.2.1 -all");
    zone
}

#[test]
fn every_record_of_a_listener_that_verifies_gets_its_verdict_once() {
    let dir = tempfile::tempdir().unwrap();
    let dns = Responder::start(zone());
    let mut shard = Shard::new(dir.path());
    let mail = dkim::signed("Hello\r\n", true);
    let before = shard.receive("mx", "ann@signer.test", mail.as_bytes());
    let (plane, metrics) = shard.plane(&dns, 1000);
    let large = dkim::signed(&"A line of text.\r\n".repeat(20_000), false);
    let mut wanted = Vec::new();
    for round in 0..30 {
        shard.receive("other", "ann@signer.test", mail.as_bytes());
        let mail = if round % 10 == 9 { &large } else { &mail };
        wanted.push(shard.receive("mx", "ann@signer.test", mail.as_bytes()));
    }
    for &offset in &wanted {
        let verdict = shard.verdict(&plane.visible(), offset);
        let words: Vec<_> = verdict.words().map(|(method, word)| (method, word.name())).collect();
        assert_eq!(words, [("spf", "pass"), ("spf", "none"), ("dkim", "pass")], "{verdict:?}");
    }
    assert_eq!(metrics.count("dkim", "pass"), 30);
    assert!(!wanted.contains(&before), "what came before verdicts were wanted gets none");
    drop(plane);
    assert_eq!(shard.lines(), wanted);
    // The next start goes on where this one ended.
    let (plane, metrics) = shard.plane(&dns, 1000);
    wanted.push(shard.receive("mx", "ann@other.test", mail.as_bytes()));
    shard.verdict(&plane.visible(), *wanted.last().unwrap());
    assert_eq!(metrics.count("dkim", "pass"), 1);
    drop(plane);
    assert_eq!(shard.lines(), wanted);
}

/// The process ends between a verdict's sync and the offset's, or before the verdict is written.
#[test]
fn a_crash_costs_no_verdict_and_makes_none_twice() {
    let dir = tempfile::tempdir().unwrap();
    let dns = Responder::start(zone());
    let mut shard = Shard::new(dir.path());
    drop(shard.plane(&dns, 1000));
    let offset_file = dir.path().join("shard-000/verdicts.offset");
    let at_start = std::fs::read(&offset_file).unwrap();
    let mail = dkim::signed("Hello\r\n", true);
    let wanted: Vec<_> =
        (0..10).map(|_| shard.receive("mx", "ann@signer.test", mail.as_bytes())).collect();
    let (plane, _) = shard.plane(&dns, 1000);
    for &offset in &wanted {
        shard.verdict(&plane.visible(), offset);
    }
    drop(plane);
    // As after a crash: the offset is an old one, and the last lines were not written.
    std::fs::write(&offset_file, at_start).unwrap();
    let journal = dir.path().join(format!("shard-000/{:010}.ver", shard.segment(wanted[9])));
    let text = std::fs::read_to_string(&journal).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let kept = [&lines[..7].concat(), &lines[7][..20]].concat();
    std::fs::write(&journal, &kept).unwrap();
    let (plane, metrics) = shard.plane(&dns, 1000);
    for &offset in &wanted {
        shard.verdict(&plane.visible(), offset);
    }
    assert_eq!(metrics.count("dkim", "pass"), 3, "those that were lost are judged again");
    drop(plane);
    assert_eq!(shard.lines(), wanted);
}

/// DNS is silent, and mail goes on: the oldest is given up, and says so.
#[test]
fn what_waits_too_long_is_not_judged_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut silent = super::Zone::default();
    silent.add("signer.test", Data::Silence);
    let dns = Responder::start(silent);
    let mut shard = Shard::new(dir.path());
    drop(shard.plane(&dns, 5));
    let all: Vec<_> = (0..20)
        .map(|_| shard.receive("mx", "ann@signer.test", b"From: a@signer.test\r\n\r\n"))
        .collect();
    let (plane, metrics) = shard.plane(&dns, 5);
    for &offset in &all {
        let verdict = shard.verdict(&plane.visible(), offset);
        match offset < all[15] {
            true => assert_eq!(verdict.skipped, "too many messages were waiting"),
            false => assert_eq!(verdict.spf[0].result.name(), "temperror"),
        }
    }
    assert_eq!(metrics.skipped(), 15);
    drop(plane);
    assert_eq!(shard.lines(), all);
}
