//! Mail goes in by SMTP and comes out of every sink: a real server, real sinks, readers that share
//! no code with it. DURABILITY I5: what was acknowledged is there, octet by octet. I6: what comes
//! twice is of the kinds that D4 lists, and bounded.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use mailrace::{consumer::Group, log::RecordId};

use crate::support::{
    Launch, count_from, eventually, in_ci,
    servers::{
        flow,
        flow::{
            BATCH, PATIENCE, SHARDS, Sinks, await_drained, count, errors, group, is_up, load::Load,
        },
        nats::NatsServer,
        proxy::Proxy,
    },
};

/// Longest that the exporters may take for what is left when the load ends.
const DRAIN: Duration = Duration::from_secs(150);

/// Messages of a test that disturbs the flow.
fn some() -> u64 {
    count_from("MAILS", if in_ci() { 25_000 } else { 3_000 }) as u64
}

#[test]
fn every_record_reaches_every_sink() {
    let mails = count_from("MAILS", if in_ci() { 100_000 } else { 5_000 }) as u64;
    let dir = tempfile::tempdir().unwrap();
    let sinks = Sinks::start();
    let server = sinks.gateway(dir.path()).start();
    let load = Load::default();
    load.send_to(server.smtp, mails);
    await_drained(&server, &sinks.names(), DRAIN);
    for (sink, again) in sinks.check(&load, &server) {
        assert_eq!(again.len(), 0, "{sink}: nothing happened that makes duplicates");
        assert_eq!(count(&server, sink, "dead_lettered"), 0.0, "{sink}");
        assert!(is_up(&server, sink), "{sink}");
    }
    assert_eq!(server.stop(), Some(0));
}

/// Each sink server is killed while mail comes in, and comes back. Nothing is missing; what comes
/// twice is at most the batch each shard had under way.
#[test]
fn sinks_killed_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let mut sinks = Sinks::start();
    let server = sinks.gateway(dir.path()).start();
    let load = Load::default();
    let names = sinks.names();
    let killed: Vec<_> =
        names.iter().copied().filter(|name| !matches!(*name, "folder" | "files")).collect();
    let step = some() / (killed.len() as u64 + 1);
    load.send_to(server.smtp, step);
    for name in &killed {
        let from = load.acked();
        load.send_until(server.smtp, from + step, || {
            load.await_acked(from + step / 3);
            sinks.kill(name);
            eventually("the exporter notices", PATIENCE, || !is_up(&server, name));
            sinks.restart(name);
        });
        assert_eq!(load.acked(), from + step, "a sink that is away keeps no mail out");
        eventually("the exporter goes on", PATIENCE, || is_up(&server, name));
    }
    await_drained(&server, &names, DRAIN);
    if sinks.kafka.is_some() {
        // This broker keeps all in memory: what it lost is sent again.
        group(dir.path(), &["seek", "kafka", "--to", "start"]);
        await_drained(&server, &names, DRAIN);
    }
    for (sink, again) in sinks.check(&load, &server) {
        let retried = count(&server, sink, "retried");
        println!("{sink}: {} again, {retried} retried", again.len());
        assert_eq!(retried > 0.0, killed.contains(&sink), "{sink}: {retried} retried");
        match sink {
            // JetStream drops them, files have names, and nothing happened to folders.
            "nats" | "s3" | "folder" | "files" => assert_eq!(again.len(), 0, "{sink}"),
            "kafka" => {}
            _ => assert!(again.len() <= SHARDS * BATCH, "{sink}: {} again", again.len()),
        }
    }
    assert_eq!(server.stop(), Some(0));
}

/// Where an exporter stood in a shard when the gateway was killed: what lies between may come twice.
struct Window {
    shard: u64,
    committed: u64,
    end: u64,
}

/// Records settled and not committed at most (D11), and the batch behind them.
const AGAIN: u64 = 10_000 + BATCH as u64;

/// SIGKILL, again and again, over the same data directory: what was acknowledged is in every sink,
/// and what comes twice stood behind an exporter's committed offset when a kill came.
#[test]
fn the_gateway_is_killed_in_the_middle() {
    let kills = if in_ci() { 10 } else { 3 };
    let dir = tempfile::tempdir().unwrap();
    let sinks = Sinks::start();
    let launch = sinks.gateway(dir.path());
    let load = Load::steady();
    let names = sinks.names();
    let mut windows: HashMap<&str, Vec<Window>> = HashMap::new();
    for kill in 0..kills {
        let mut server = launch.start();
        let name = names[kill as usize % names.len()];
        let exporter = Group::new(dir.path(), name).unwrap();
        // The kernel may give every connection to one shard.
        let committed = || -> Vec<_> {
            (0..SHARDS).map(|shard| exporter.committed(shard as u16).unwrap()).collect()
        };
        let before = committed();
        load.send_until(server.smtp, u64::MAX, || {
            // What is under way right behind a commit is lost if the commit was early.
            let began = Instant::now();
            while committed() == before {
                assert!(began.elapsed() < PATIENCE, "{name} commits nothing");
                std::thread::sleep(Duration::from_millis(1));
            }
            if kill % 3 == 2 {
                load.await_acked(load.acked() + kill * 97 % 1_000);
            }
            server.child.kill().unwrap();
        });
        server.kill();
        for name in &names {
            for shard in group(dir.path(), &["describe", name]) {
                let number = |field: &str| shard[field].as_u64().unwrap_or(0);
                let [shard, committed, end] = ["shard", "committed", "end"].map(number);
                windows.entry(name).or_default().push(Window { shard, committed, end });
            }
        }
    }
    let server = launch.start();
    load.send_more(server.smtp, 1_000);
    await_drained(&server, &names, DRAIN);
    println!("{} acknowledged, {kills} kills", load.acked());
    for (sink, again) in sinks.check(&load, &server) {
        println!("{sink}: {} again", again.len());
        let windows = &windows[sink];
        let mut counts = vec![0; windows.len()];
        for id in &again {
            let id: RecordId = id.parse().unwrap();
            let (shard, offset) = (u64::from(id.shard), id.offset.get());
            // The last kill that may be the cause.
            let at = windows.iter().rposition(|window| {
                window.shard == shard && (window.committed..window.end).contains(&offset)
            });
            let at = at.unwrap_or_else(|| panic!("{sink}: no kill explains that {id} came twice"));
            counts[at] += 1;
        }
        let most = counts.iter().max().copied().unwrap_or(0);
        assert!(most <= AGAIN, "{sink}: {most} again for one kill");
        // These take an id once.
        if matches!(sink, "nats" | "folder") {
            assert_eq!(again.len(), 0, "{sink}");
        }
    }
    assert_eq!(server.stop(), Some(0));
}

/// D4 (5): the sink has the records, and its answers come late, or never.
#[test]
fn acks_that_are_late_or_lost() {
    if !flow::peer_available() {
        return;
    }
    let Some(nats) = NatsServer::with("max_payload: 8MB\njetstream { store_dir: \"DIR/store\" }")
    else {
        return;
    };
    let proxy = Proxy::start(nats.port);
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(dir.path())
        .set(&format!("server.shards={SHARDS}"))
        .set("export.0.name=nats")
        .set("export.0.type=nats")
        .set(&format!("export.0.servers=nats://127.0.0.1:{}", proxy.port))
        .set("export.0.encoding=raw")
        .set("export.0.inline_max=4MiB")
        .set("export.0.timeout=2s")
        .set("export.0.retry.initial=50ms")
        .set("export.0.retry.max=200ms")
        .start();
    let load = Load::default();
    let step = some() / 4;
    load.send_to(server.smtp, step);
    let timeouts = || errors(&server, "nats", "timeout");
    let stored = || count(&server, "nats", "delivered");
    // Lost: twice, so that an attempt after a lost one is lost as well.
    load.send_until(server.smtp, 2 * step, || {
        load.await_acked(step + step / 3);
        proxy.swallow(true);
        eventually("attempts time out", PATIENCE, || timeouts() >= 2.0);
        proxy.swallow(false);
    });
    assert!(proxy.swallowed() > 0);
    await_drained(&server, &["nats"], DRAIN);
    // Late, and still in time.
    let before = timeouts();
    proxy.delay(Duration::from_millis(300));
    load.send_to(server.smtp, 3 * step);
    await_drained(&server, &["nats"], DRAIN);
    assert_eq!(timeouts(), before, "late is not lost");
    // Too late: the attempt is over, and the record stored.
    proxy.delay(Duration::from_secs(3));
    load.send_until(server.smtp, 4 * step, || {
        eventually("attempts time out", PATIENCE, || timeouts() > before + 1.0);
        proxy.delay(Duration::ZERO);
    });
    await_drained(&server, &["nats"], DRAIN);
    assert_eq!(load.acked(), 4 * step);
    assert_eq!(stored(), (4 * step) as f64);
    let retried = count(&server, "nats", "retried");
    let again = load.check("nats", &flow::read_nats(&nats.url(), "MAIL", &server), |_| true);
    println!("{retried} retried after {} lost or late answers", timeouts());
    assert!(retried > 0.0 && again.is_empty(), "{retried} retried, {} again", again.len());
    assert_eq!(server.stop(), Some(0));
}
