//! `--e2e`: from the 250 to a consumer of the log.

use super::*;

#[test]
fn the_consumer_sees_every_message_and_tells_when() {
    let dir = tempfile::tempdir().unwrap();
    // Small segments, so that the consumer goes from one to the next; two shards.
    let server = Server::start_with(dir.path(), &["server.shards=2", "log.segment_size=16MiB"]);
    let log = dir.path().to_str().unwrap();
    // Mail from before the run is none of its business.
    report(server.smtp, &["-n", "20", "-c", "2"]);
    for arguments in [
        &["-n", "600", "-c", "8", "--threads", "2", "--size", "mix:4k=95,400k=5"][..],
        &["-r", "300", "-z", "2s", "--warmup", "0.5s", "-c", "4"],
    ] {
        let common = ["--e2e", "--verify", "--log-dir", log];
        let report = report(server.smtp, &[&common, arguments].concat());
        let acked = count(&report, "/totals/acked");
        assert!(acked >= 590, "{acked}");
        assert_eq!(count(&report, "/e2e/unseen"), 0);
        assert_eq!(count(&report, "/e2e/latency/count"), acked);
        assert_eq!(count(&report, "/verify/lost"), 0);
        let seconds = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap();
        assert!(seconds("/e2e/latency/p50") <= seconds("/e2e/latency/p99"));
        // Seen while the run went on, not by the last look at its end; and not all before the
        // reply, or nothing was measured.
        assert!(seconds("/e2e/latency/p50") < 0.2, "{}", report["e2e"]);
        assert!(seconds("/e2e/latency/max") > 0.0, "{}", report["e2e"]);
        assert!(report["intervals"][0]["e2e_p99"].is_f64(), "{}", report["intervals"]);
    }
}

#[test]
fn every_form_of_the_report_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let saved = dir.path().join("run.json");
    let saved = saved.to_str().unwrap();
    let log = dir.path().join("data");
    let (target, log) = (format!("smtp://{}", server.smtp), log.to_str().unwrap().to_owned());
    let run = [&target[..], "-n", "50", "-c", "2", "--e2e", "--log-dir", &log, "--save", saved];
    let output = bench(&[&run[..], &["--fail-if", "e2e.p99>60s"]].concat());
    assert!(is_made(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with(" e2e")).unwrap();
    assert!(line.contains("p99 ") && line.ends_with("(from the 250 to a consumer)"), "{line}");
    let output = bench(&["report", saved, "--format", "csv"]);
    let csv = String::from_utf8(output.stdout).unwrap();
    let mut lines = csv.lines();
    assert!(lines.next().unwrap().ends_with(",e2e_p50,e2e_p99,e2e_max"), "{csv}");
    let last = lines.next().unwrap().rsplit(',').next().unwrap();
    assert!(last.parse::<f64>().is_ok(), "{csv}");
    let output = bench(&["report", saved, "--format", "html"]);
    let html = String::from_utf8(output.stdout).unwrap();
    assert!(html.contains("<figcaption>From the 250 to a consumer</figcaption>"), "no plot");
    let output = bench(&[&run[..], &["--fail-if", "e2e.max>=0s"]].concat());
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn what_the_consumer_never_sees_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("full"));
    // The log of a server that takes no mail.
    let other = Server::start(&dir.path().join("empty"));
    let log = dir.path().join("empty");
    let arguments = ["-n", "20", "-c", "2", "--e2e", "--log-dir", log.to_str().unwrap()];
    let (output, report) = outcome(server.smtp, &arguments);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(count(&report, "/e2e/unseen"), 20);
    drop(other);
    let nowhere = dir.path().join("nowhere");
    let arguments = ["-n", "5", "-c", "1", "--e2e", "--log-dir", nowhere.to_str().unwrap()];
    let (output, _) = outcome(server.smtp, &arguments);
    assert_eq!(output.status.code(), Some(1));
}
