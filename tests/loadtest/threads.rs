//! Several threads give the load of one.

use super::*;

use crate::support;

#[test]
fn threads_send_each_message_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["server.shards=1", "log.segment_size=256MiB"]);
    let log = dir.path().to_str().unwrap();
    for arguments in [&["-c", "7"][..], &["-c", "3", "-r", "2k"], &["-c", "8", "--in-flight", "4"]]
    {
        let common = ["-n", "400", "--threads", "3", "--verify", "--log-dir", log];
        let report = report(server.smtp, &[&common, arguments].concat());
        assert_eq!(count(&report, "/errors/total"), 0, "{arguments:?}");
        assert_eq!(count(&report, "/totals/acked"), 400, "{arguments:?}");
        assert_eq!(count(&report, "/verify/found"), 400, "{arguments:?}");
        for none in ["lost", "duplicated", "corrupt", "invented", "unacknowledged"] {
            assert_eq!(count(&report, &format!("/verify/{none}")), 0, "{arguments:?} {none}");
        }
    }
}

#[test]
fn threads_share_the_rate_and_measure_together() {
    let sink = Sink::start();
    let hdr = tempfile::NamedTempFile::new().unwrap();
    let hdr_log = hdr.path().to_str().unwrap();
    let arguments = ["-r", "600", "-z", "3s", "--warmup", "0.5s", "-c", "10", "--size", "1k"];
    let more = ["--threads", "3", "--messages-per-connection", "10000", "--hdr-log", hdr_log];
    let report = report(sink.1, &[&arguments[..], &more].concat());
    let acked = count(&report, "/totals/acked");
    assert!((1_795..=1_805).contains(&acked), "{acked}");
    assert_eq!(count(&report, "/latency/response/count"), acked);
    assert_eq!(count(&report, "/generator/schedule_lag/count"), acked);
    assert_eq!(count(&report, "/totals/connections"), 10);
    let intervals = report["intervals"].as_array().unwrap();
    assert_eq!(intervals.len(), 3);
    let mut sum = 0;
    for interval in intervals {
        let acked = interval["acked"].as_u64().unwrap();
        assert!((590..=610).contains(&acked), "{acked}");
        let times = ["p50", "p99", "max"].map(|name| interval[name].as_f64().unwrap());
        assert!(0.0 < times[0] && times.is_sorted(), "{times:?}");
        sum += acked;
    }
    assert_eq!(sum, acked);
    let max = intervals.iter().map(|interval| interval["max"].as_f64().unwrap());
    let response_max = report["latency"]["response"]["max"].as_f64().unwrap();
    assert!((max.fold(0.0, f64::max) / response_max - 1.0).abs() < 1e-9);
    let shares = report["generator"]["cpu_shares"].as_array().unwrap();
    let shares = shares.iter().map(|share| share.as_f64().unwrap()).collect::<Vec<_>>();
    assert_eq!(shares.len(), 3);
    let worst = shares.iter().copied().fold(0.0, f64::max);
    assert_eq!(report["generator"]["cpu_share"].as_f64(), Some(worst));
    let log = fs::read_to_string(hdr.path()).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains(",HIST")).count(), 3, "{log}");
}

#[test]
fn threads_give_up_together() {
    let nobody = support::machine::closed_port();
    let started = Instant::now();
    let (output, _) = outcome(nobody.address, &["-z", "1s", "--threads", "4"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("refused"));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn misbehaving_clients_are_shared_out() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let scenario = dir.path().join("scenario.toml");
    fs::write(&scenario, "[[client]]\nbehaviour = \"aborting\"\nshare = 0.2\npause = \"20ms\"\n")
        .unwrap();
    let scenario = scenario.to_str().unwrap();
    let arguments = ["-z", "0.5s", "--warmup", "0s", "-c", "10", "--threads", "4"];
    let report = report(server.smtp, &[&arguments[..], &["--scenario", scenario]].concat());
    assert_eq!(count(&report, "/errors/total"), 0);
    assert!(count(&report, "/totals/acked") > 0);
    assert!(count(&report, "/scenario/aborting/left") > 2, "{}", report["scenario"]);
    assert_eq!(count(&report, "/scenario/aborting/acked"), 0);
}
