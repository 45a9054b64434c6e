//! Two gateways behind the real HAProxy (PROXY v2) into one JetStream stream and one Kafka topic, as
//! `docs/OPERATIONS.md` describes a fleet: one is killed and comes back, the other is taken out for good.

use std::{
    collections::{HashMap, HashSet},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::support::{
    Client, Launch, MAILRACE, Raise, body, eventually, id_of,
    machine::has,
    ports::free_address,
    servers::{
        flow::{PATIENCE, SHARDS, await_drained, peer, peer_available},
        haproxy::Haproxy,
        kafka::KafkaServer,
        nats::NatsServer,
    },
    succeeded,
};

/// Each step of the test lets so many messages be acknowledged.
const STEP: usize = 300;

fn gateway(dir: &Path, listen: SocketAddr, nats: &NatsServer, kafka: &KafkaServer) -> Launch {
    [
        format!("server.shards={SHARDS}"),
        format!("listener.0.listen={listen}"),
        "listener.0.proxy_protocol.mode=required".to_owned(),
        "listener.0.proxy_protocol.trusted=127.0.0.0/8".to_owned(),
        "listener.0.accept.domains=*".to_owned(),
        "export.0.name=nats".to_owned(),
        "export.0.type=nats".to_owned(),
        format!("export.0.servers={}", nats.url()),
        "export.0.encoding=raw".to_owned(),
        "export.0.batch.delay=20ms".to_owned(),
        "export.1.name=kafka".to_owned(),
        "export.1.type=kafka".to_owned(),
        format!("export.1.brokers={}", kafka.address()),
        "export.1.topic=mail".to_owned(),
        "export.1.create_partitions=3".to_owned(),
        "export.1.batch.delay=20ms".to_owned(),
    ]
    .iter()
    .fold(Launch::new(dir), |launch, setting| launch.set(setting))
}

/// Senders that try again, as mail servers do, and what they know: digest by id of each 250.
#[derive(Default)]
struct Senders {
    next: AtomicU64,
    over: AtomicBool,
    acked: Mutex<HashMap<String, String>>,
}

impl Senders {
    fn acked(&self) -> usize {
        self.acked.lock().unwrap().len()
    }

    fn more(&self, what: &str) {
        let wanted = self.acked() + STEP;
        eventually(what, PATIENCE, || self.acked() >= wanted);
    }

    fn run(&self, front: SocketAddr) {
        while !self.over.load(Ordering::Relaxed) {
            // A connection that breaks is no acknowledgement.
            if self.session(front).is_none() {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn session(&self, front: SocketAddr) -> Option<()> {
        let mut client = Client::over(TcpStream::connect(front).ok()?);
        client.stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        client.try_reply().filter(|reply| reply.starts_with("220 "))?;
        client.send(b"EHLO client.test\r\n");
        client.try_reply().filter(|reply| reply.starts_with("250"))?;
        // A few for each connection, so that the balancer has a choice.
        for _ in 0..10 {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            let mail = body(seed, 2_000);
            let head = format!(
                "MAIL FROM:<{seed}@client.test>\r\nRCPT TO:<b@d{}.test>\r\nBDAT {} LAST\r\n",
                seed % 7,
                mail.len()
            );
            client.send(&[head.as_bytes(), &mail].concat());
            for _ in 0..2 {
                client.try_reply().filter(|reply| reply.starts_with("250 2.1."))?;
            }
            let reply = client.try_reply().filter(|reply| reply.starts_with("250 "))?;
            let digest = format!("{:x}", Sha256::digest(&mail));
            let before = self.acked.lock().unwrap().insert(id_of(&reply), digest);
            assert_eq!(before, None, "two messages with one id");
        }
        client.send(b"QUIT\r\n");
        Some(())
    }
}

/// Id and digest of each message, repeats dropped by the recipe of the guide: by id. Two messages with
/// one id would be one too few. Returns how many came twice.
fn hold(sink: &str, lines: &str, acked: &HashMap<String, String>) -> usize {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    let mut again = 0;
    for line in lines.lines() {
        let (id, digest) = line.split_once(' ').unwrap();
        if let Some(before) = seen.insert(id, digest) {
            assert_eq!(before, digest, "{sink}: {id} names two messages");
            again += 1;
        }
    }
    for (id, digest) in acked {
        assert_eq!(seen.get(&**id), Some(&&**digest), "{sink}: {id}");
    }
    println!("{sink}: {} acknowledged, {} there, {again} again", acked.len(), seen.len());
    again
}

#[test]
fn a_fleet_loses_nothing_when_a_gateway_dies_and_another_leaves() {
    if !peer_available() || !has("haproxy") {
        return;
    }
    let (Some(nats), Some(kafka)) = (NatsServer::start(), KafkaServer::start()) else { return };
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str, listen| gateway(&place.path().join(name), listen, &nats, &kafka);
    let (one, two) = (free_address(), free_address());
    let launch = at("one", one);
    let (first, second) = (launch.start(), at("two", two).start());
    let backend = format!(
        "balance roundrobin
    option redispatch
    retries 3
    option smtpchk EHLO haproxy.test
    default-server check check-send-proxy send-proxy-v2 inter 200ms fall 2 rise 1
    server two {two}"
    );
    let haproxy = Haproxy::start("", (one, ""), &backend);
    let senders = Senders::default();
    let received = "mailrace_smtp_messages_received_total";
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| senders.run(haproxy.front));
        }
        // However it ends, the senders end.
        let _over = Raise(&senders.over);
        senders.more("both take mail");
        eventually("both take mail", PATIENCE, || {
            first.metric(received, &[]) > 0.0 && second.metric(received, &[]) > 0.0
        });
        first.kill();
        senders.more("the other goes on alone");
        let first = launch.start();
        eventually("it is back", PATIENCE, || first.metric(received, &[]) > 0.0);
        senders.more("both take mail again");
        // For good: what it holds is exported before its disk goes.
        let mut drain = Command::new(MAILRACE);
        drain.args(["drain", "--until-exported", "--timeout", "50s"]);
        drain.args(["--admin", &second.admin.to_string()]);
        succeeded("drain", drain.output().unwrap());
        assert_eq!(second.stop(), Some(0));
        std::fs::remove_dir_all(place.path().join("two")).unwrap();
        senders.more("the first goes on alone");
        senders.over.store(true, Ordering::Relaxed);
        await_drained(&first, &["nats", "kafka"], PATIENCE);
    });
    let acked = senders.acked.lock().unwrap();
    let nodes: HashSet<_> = acked.keys().map(|id| &id[..12]).collect();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    let again = hold("nats", &peer(&["nats", &nats.url(), "MAIL"]), &acked);
    assert_eq!(again, 0, "JetStream drops what comes twice");
    hold("kafka", &peer(&["kafka", &kafka.address(), "mail"]), &acked);
}
