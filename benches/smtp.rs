//! How fast are the scanner, command parsing and whole transactions through a session?

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mailrace::smtp::scan::{Backend, Stop, Stops, TextScan};
use mailrace::smtp::testing::{Host, Peer};
use mailrace::smtp::{Config, Envelope, Session};

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

/// Counts messages and octets of mail data.
#[derive(Default)]
struct Counter {
    messages: u64,
    bytes: u64,
}

impl Host for Counter {
    type Id = u64;

    fn mail_data(&mut self, octets: &[u8]) {
        self.bytes += octets.len() as u64;
    }

    fn end_of_mail(&mut self, _: &Envelope<'_>) -> Option<(u64, u64)> {
        self.messages += 1;
        Some((self.messages, self.messages))
    }
}

/// Runs turns through a session; gives the messages and the octets of mail data.
fn drive(peer: &mut Peer<Counter>, turns: &[&[u8]]) -> (u64, u64) {
    peer.host = Counter::default();
    for turn in turns {
        peer.sent.clear();
        let consumed = peer.run(turn);
        assert!(consumed == turn.len() && !peer.closed);
    }
    (peer.host.messages, peer.host.bytes)
}

fn sessions(c: &mut Criterion) {
    let mut config = Config::default();
    config.limits.junk_max = u32::MAX;
    let session = Session::new(Duration::ZERO, true, &config);
    let mut peer = Peer::over(session, config, Counter::default());
    drive(&mut peer, &[b"EHLO client.example\r\n"]);

    let body = text(64, 4096);
    let envelope = b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@server.example>\r\n";
    let bdat = [&envelope[..], b"BDAT 4096 LAST\r\n", &body].concat();
    let open = [&envelope[..], b"DATA\r\n"].concat();
    let data = [&body[..], b".\r\n"].concat();

    c.bench_function("session/mail_rcpt_rset", |b| {
        let turn = [&envelope[..], b"RSET\r\n"].concat();
        b.iter(|| assert_eq!(drive(&mut peer, &[&turn]), (0, 0)));
    });
    c.bench_function("session/bdat_4k", |b| {
        b.iter(|| assert_eq!(drive(&mut peer, &[&bdat]), (1, 4096)));
    });
    c.bench_function("session/data_4k", |b| {
        b.iter(|| assert_eq!(drive(&mut peer, &[&open, &data]), (1, 4096)));
    });
}

criterion_group!(benches, scanner, sessions);
criterion_main!(benches);
