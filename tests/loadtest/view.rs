//! What is to be seen while a run goes on: the live view, and the metrics.

use std::{
    fs::File,
    io::Read,
    os::fd::{FromRawFd, OwnedFd},
};

use super::{support::machine::promtool, *};

use crate::support;

/// Both ends of a pseudo terminal: the user's, the program's.
fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut user, mut program) = (-1, -1);
    let nothing = std::ptr::null_mut();
    // SAFETY: the descriptors are written to; the rest may be null.
    let made = unsafe {
        libc::openpty(&raw mut user, &raw mut program, nothing, nothing.cast(), nothing.cast())
    };
    assert_eq!(made, 0);
    // SAFETY: both are new and nobody else's.
    unsafe { (OwnedFd::from_raw_fd(user), OwnedFd::from_raw_fd(program)) }
}

/// All that a run drew on its terminal, and its report, which went elsewhere.
fn draw(arguments: &[&str]) -> (String, String) {
    let (user, program) = terminal();
    let child = loadtest()
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::from(program))
        .spawn()
        .unwrap();
    let reader = thread::spawn(move || {
        let mut octets = Vec::new();
        // It ends with EIO, when the program's end is closed.
        let _ = File::from(user).read_to_end(&mut octets);
        String::from_utf8(octets).unwrap()
    });
    let output = child.wait_with_output().unwrap();
    assert!(is_made(&output), "{arguments:?}");
    let drawn = reader.join().unwrap();
    // What is said of a machine that was too busy comes last, and is not the view's.
    let drawn = drawn.split("mailrace bench: the run is INVALID").next().unwrap().to_owned();
    (drawn, String::from_utf8(output.stdout).unwrap())
}

/// What a terminal line shows after these octets: `\r` goes back, `ESC [ K` wipes to the end.
fn left_on_the_line(text: &str) -> String {
    let mut line: Vec<char> = Vec::new();
    let mut column = 0;
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("\x1b[K") {
            line.truncate(column);
            rest = behind;
            continue;
        }
        match next {
            '\r' => column = 0,
            _ => {
                line.truncate(column);
                line.push(next);
                column += 1;
            }
        }
        rest = &rest[next.len_utf8()..];
    }
    line.into_iter().collect()
}

#[test]
fn the_live_view_shows_progress_and_leaves_nothing() {
    let sink = Sink::start();
    let target = format!("smtp://{}", sink.1);
    let run = [&target[..], "-r", "200", "-z", "2s", "--warmup", "1s", "-c", "4", "--threads", "2"];
    let began = Instant::now();
    let (drawn, report) = draw(&run);
    let seconds = began.elapsed().as_secs_f64();
    let frames: Vec<&str> = drawn.split("\r\x1b[K").filter(|frame| !frame.is_empty()).collect();
    // Three seconds at four a second; a busy machine may miss some, and none comes sooner.
    assert!((5..=(4.0 * seconds) as usize).contains(&frames.len()), "{seconds} s: {frames:?}");
    assert!(frames[0].starts_with("warm-up 1 s"), "{frames:?}");
    let acked = |frame: &str| -> Option<u64> {
        frame.split_once(" acked")?.0.rsplit(' ').next()?.replace(',', "").parse().ok()
    };
    let acked: Vec<u64> = frames.iter().filter_map(|frame| acked(frame)).collect();
    assert!(acked.len() >= 3 && acked.is_sorted(), "{frames:?}");
    assert!(*acked.last().unwrap() >= 250, "{frames:?}");
    let last = frames.last().unwrap();
    for shown in ["/s", "0 failed", "p50 ", "p99 ", "max "] {
        assert!(last.contains(shown), "{last}");
    }
    assert_eq!(left_on_the_line(&drawn), "");
    assert!(report.starts_with("mailrace bench  smtp://") && !report.contains('\x1b'), "{report}");
    let (drawn, _) = draw(&[&run[..], &["--no-tui"]].concat());
    assert_eq!(drawn, "");
}

fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, content) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    content.to_owned()
}

fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} in {page}")).parse().unwrap()
}

#[test]
fn metrics_are_served_while_it_runs() {
    let sink = Sink::start();
    let target = format!("smtp://{}", sink.1);
    let mut child = loadtest()
        .args([
            &target[..],
            "-r",
            "500",
            "-z",
            "60s",
            "--warmup",
            "0s",
            "-c",
            "4",
            "--threads",
            "2",
        ])
        .args(["--metrics-addr", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut told).unwrap();
    let address = told.trim().strip_prefix("metrics: http://").unwrap();
    let address = address.strip_suffix("/metrics").unwrap().to_owned();
    let acked = "mailrace_bench_messages_acked_total";
    let response = "mailrace_bench_response_seconds";
    let mut page = scrape(&address);
    support::eventually("messages are counted", Duration::from_secs(20), || {
        page = scrape(&address);
        value(&page, acked) > 0.0
    });
    let first = value(&page, acked);
    support::eventually("the count goes on", Duration::from_secs(20), || {
        page = scrape(&address);
        value(&page, acked) > first
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(value(&page, &format!("{response}_count")), value(&page, acked));
    assert!(value(&page, &format!("{response}_sum")) > 0.0);
    let quantile = |at: &str| value(&page, &format!("{response}{{quantile=\"{at}\"}}"));
    assert!(quantile("0.5") > 0.0 && quantile("0.5") <= quantile("0.999"));
    assert_eq!(value(&page, "mailrace_bench_messages_failed_total"), 0.0);
    assert!(value(&page, "mailrace_bench_connections_total") >= 4.0);
    assert!(value(&page, "mailrace_bench_acked_bytes_total") >= 10_240.0);
    promtool(&page);
}
