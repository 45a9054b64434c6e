//! How fast are the scanner, command parsing and whole transactions through a session?

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mailrace::smtp::scan::{Backend, Stop, Stops, TextScan};
use mailrace::smtp::{Admission, Config, Context, Entry, Event, Notes, Replies, Session, Stats};

fn text(line_bytes: usize, bytes: usize) -> Vec<u8> {
    let line = [&vec![b'x'; line_bytes - 2][..], b"\r\n"].concat();
    line.iter().copied().cycle().take(bytes / line_bytes * line_bytes).collect()
}

/// The yardstick is finding every LF with memchr and nothing else.
fn scanner(c: &mut Criterion) {
    for line_bytes in [80, 998] {
        let input = text(line_bytes, 64 * 1024);
        let mut group = c.benchmark_group(format!("scan/{line_bytes}"));
        group.throughput(Throughput::Bytes(input.len() as u64));
        for &backend in Backend::available() {
            group.bench_function(format!("{backend:?}"), |b| {
                b.iter(|| {
                    let mut state = TextScan::default();
                    let stops = Stops { dot: true, bare: false };
                    let outcome = state.scan_with(backend, black_box(&input), stops);
                    assert_eq!(outcome, (input.len(), Stop::InputEnd));
                    assert_eq!(state.longest, line_bytes as u64 - 2);
                });
            });
        }
        group.bench_function("memchr", |b| {
            b.iter(|| {
                let lines = memchr::memchr_iter(b'\n', black_box(&input)).count();
                assert_eq!(lines, input.len() / line_bytes);
            });
        });
        group.finish();
    }
}

/// Runs turns through a session; gives the messages and the octets of mail data.
fn drive(
    session: &mut Session,
    cx: &mut Context<'_>,
    turns: &[&[u8]],
    out: &mut Vec<u8>,
) -> (u64, u64) {
    let (mut messages, mut bytes) = (0, 0);
    for turn in turns {
        let mut rest = *turn;
        loop {
            let step = session.handle_input(cx, rest);
            rest = &rest[step.consumed..];
            match step.event {
                Event::MailData(range) => bytes += range.len() as u64,
                Event::EndOfMail => {
                    messages += 1;
                    session.resolve_accepted(cx, messages, &messages);
                }
                Event::NeedInput => break,
                event => panic!("unexpected {event:?}"),
            }
        }
        cx.replies.release(u64::MAX);
        out.clear();
        cx.replies.take_ready(out);
    }
    (messages, bytes)
}

fn sessions(c: &mut Criterion) {
    let mut config = Config::default();
    config.limits.junk_max = u32::MAX;
    let (mut replies, mut stats, mut out) = (Replies::new(), Stats::default(), Vec::new());
    let mut session = Session::new(Duration::ZERO, true, &config);
    let mut cx = Context {
        now: Duration::ZERO,
        config: &config,
        replies: &mut replies,
        stats: &mut stats,
        admission: Admission::Open,
        room_bytes: u64::MAX,
        handshakes_full: false,
        binds_channel: false,
        notes: Notes::default(),
    };
    session.handle_open(&mut cx, Entry::Open);
    drive(&mut session, &mut cx, &[b"EHLO client.example\r\n"], &mut out);

    let body = text(64, 4096);
    let envelope = b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@server.example>\r\n";
    let bdat = [&envelope[..], b"BDAT 4096 LAST\r\n", &body].concat();
    let open = [&envelope[..], b"DATA\r\n"].concat();
    let data = [&body[..], b".\r\n"].concat();

    c.bench_function("session/mail_rcpt_rset", |b| {
        let turn = [&envelope[..], b"RSET\r\n"].concat();
        b.iter(|| assert_eq!(drive(&mut session, &mut cx, &[&turn], &mut out), (0, 0)));
    });
    c.bench_function("session/bdat_4k", |b| {
        b.iter(|| assert_eq!(drive(&mut session, &mut cx, &[&bdat], &mut out), (1, 4096)));
    });
    c.bench_function("session/data_4k", |b| {
        b.iter(|| assert_eq!(drive(&mut session, &mut cx, &[&open, &data], &mut out), (1, 4096)));
    });
}

criterion_group!(benches, scanner, sessions);
criterion_main!(benches);
