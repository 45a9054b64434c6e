//! What does it cost to have a million recipients: to load them, to keep them, to ask for one?

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]

use std::{
    collections::HashSet,
    hint::black_box,
    io::{BufWriter, Write},
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use mailrace::{
    policy::{Accept, AcceptOptions},
    smtp::{Recipient, RecipientPolicy},
};

const RECIPIENTS: usize = 1_000_000;

/// 22 octets, of a hundred domains.
fn recipient(number: usize) -> String {
    format!("u{number:09}@d{:02}.example", number % 100)
}

fn accept(c: &mut Criterion) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let mut out = BufWriter::new(&mut file);
    let mut octets = 0;
    for number in 0..RECIPIENTS {
        let name = recipient(number);
        octets += name.len();
        writeln!(out, "{name}").expect("it is written");
    }
    out.flush().expect("it is written");
    drop(out);
    let options = AcceptOptions {
        recipients_file: Some(file.path().to_owned()),
        subaddress: Some('+'),
        ..AcceptOptions::default()
    };
    let began = Instant::now();
    let accept = Accept::load(&options).expect("it loads");
    println!(
        "{RECIPIENTS} recipients of {} octets: loaded in {:?}, {:.1} octets of memory each",
        octets / RECIPIENTS,
        began.elapsed(),
        accept.memory_bytes() as f64 / RECIPIENTS as f64,
    );
    assert_eq!(accept.recipients(), Some(RECIPIENTS));

    // In an order that no cache foresees.
    let order = |at: usize| at.wrapping_mul(7_368_787) % RECIPIENTS;
    let known: Vec<String> = (0..1 << 16).map(|at| recipient(order(at))).collect();
    let detailed: Vec<String> = known.iter().map(|name| name.replace('@', "+tag@")).collect();
    let unknown: Vec<String> = known.iter().map(|name| name.replace('u', "v")).collect();
    let foreign: Vec<String> = known.iter().map(|name| name.replace("@d", "@e")).collect();
    let mut group = c.benchmark_group("accept");
    for (name, asked, wanted) in [
        ("known", &known, Recipient::Ours),
        ("known with detail", &detailed, Recipient::Ours),
        ("unknown", &unknown, Recipient::Unknown),
        ("foreign", &foreign, Recipient::Foreign),
    ] {
        assert!(asked.iter().all(|mailbox| accept.judge(mailbox) == wanted), "{name}");
        let mut turn = asked.iter().cycle();
        group.bench_function(name, |b| {
            b.iter(|| accept.judge(black_box(turn.next().expect("it is endless"))));
        });
    }
    let twin: HashSet<&String> = known.iter().collect();
    let mut turn = known.iter().cycle();
    group.bench_function("known, a HashSet of 65,536 without any rules", |b| {
        b.iter(|| twin.contains(black_box(turn.next().expect("it is endless"))));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = accept
}
criterion_main!(benches);
