//! What the DNS says of clients: against unbound, and against servers that misbehave.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use mailrace::{
    metrics::{DnsMetrics, DnsResult},
    policy::ClientAdvice,
    policy::dns::{ClientAdvisor, ClientRules},
};

use crate::support::{self, eventually, servers::unbound::Unbound};

const ZONES: &str = r#"
    local-zone: "bl.test." static
    local-data: "2.2.0.192.bl.test. 300 IN A 127.0.0.2"
    local-data: "3.2.0.192.bl.test. 300 IN A 127.0.0.2"
    local-data: "4.2.0.192.bl.test. 300 IN A 127.255.255.254"
    local-data: "5.2.0.192.bl.test. 300 IN A 10.0.0.1"
    local-data: "6.2.0.192.bl.test. 300 IN A 127.0.0.2"
    local-data: "6.2.0.192.bl.test. 300 IN A 127.0.0.10"
    local-data: "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.test. 300 IN A 127.0.0.2"
    local-zone: "wl.test." static
    local-data: "3.2.0.192.wl.test. 300 IN A 127.0.10.1"
    local-zone: "refused.test." refuse
    local-zone: "in-addr.arpa." static
    local-data: "10.2.0.192.in-addr.arpa. 300 IN PTR MX.good.test."
    local-data: "11.2.0.192.in-addr.arpa. 300 IN PTR mx.good.test."
    local-data: "12.2.0.192.in-addr.arpa. 300 IN PTR forged.good.test."
    local-data: "12.2.0.192.in-addr.arpa. 300 IN PTR also.good.test."
    local-data: "13.2.0.192.in-addr.arpa. 300 IN PTR nowhere.test."
    local-zone: "ip6.arpa." static
    local-data: "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 300 IN PTR six.good.test."
    local-zone: "good.test." static
    local-data: "mx.good.test. 300 IN A 192.0.2.10"
    local-data: "mx.good.test. 300 IN AAAA 2001:db8::2"
    local-data: "also.good.test. 300 IN A 192.0.2.99"
    local-data: "also.good.test. 300 IN A 192.0.2.12"
    local-data: "six.good.test. 300 IN AAAA 2001:db8::2"
"#;

fn rules(lists: &[(&str, i32)]) -> ClientRules {
    ClientRules {
        lists: lists.iter().map(|(zone, weight)| ((*zone).to_owned(), *weight)).collect(),
        reject_at: 3,
        deadline: Duration::from_secs(10),
        reverse: false,
    }
}

struct Asked {
    advisor: ClientAdvisor,
    metrics: DnsMetrics,
}

impl Asked {
    fn start(server: SocketAddr, rules: ClientRules) -> Self {
        let metrics = DnsMetrics::new();
        let rules = [("mx".to_owned(), rules)];
        let advisor = ClientAdvisor::start(&[server], rules, metrics.clone()).unwrap();
        Self { advisor, metrics }
    }

    fn begin(&self, client: &str) -> mpsc::Receiver<ClientAdvice> {
        let (tell, told) = mpsc::channel();
        let address: IpAddr = client.parse().unwrap();
        self.advisor.ask_then("mx", address, move |advice| tell.send(advice).unwrap());
        told
    }

    #[track_caller]
    fn ask(&self, client: &str) -> ClientAdvice {
        self.begin(client).recv_timeout(Duration::from_secs(20)).expect("an answer")
    }

    #[track_caller]
    fn weighs(&self, client: &str, score: i32, refused_by: Option<&str>) {
        let advice = self.ask(client);
        assert_eq!((advice.score, advice.refused_by.as_deref()), (score, refused_by), "{client}");
    }

    fn count(&self, result: DnsResult) -> u64 {
        self.metrics.count(result)
    }
}

#[test]
fn lists_are_weighed() {
    let Some(server) = Unbound::start(ZONES) else { return };
    let asked = Asked::start(server.address, rules(&[("bl.test", 5), ("wl.test", -3)]));
    asked.weighs("192.0.2.1", 0, None);
    asked.weighs("192.0.2.2", 5, Some("bl.test"));
    asked.weighs("::ffff:192.0.2.2", 5, Some("bl.test"));
    asked.weighs("2001:db8::2", 5, Some("bl.test"));
    asked.weighs("2001:db8::3", 0, None);
    // The other list outweighs it.
    asked.weighs("192.0.2.3", 2, None);
    // An error of the list's, an address that is no code, two codes.
    asked.weighs("192.0.2.4", 0, None);
    asked.weighs("192.0.2.5", 0, None);
    asked.weighs("192.0.2.6", 5, Some("bl.test"));
    assert_eq!(asked.count(DnsResult::Ok), 7);
    assert_eq!(asked.count(DnsResult::NxDomain), 9, "two of clients without any, else one each");
    // Another listener, or none: no rules.
    let (tell, told) = mpsc::channel();
    let client = "192.0.2.2".parse().unwrap();
    asked.advisor.ask_then("other", client, move |advice| tell.send(advice).unwrap());
    assert_eq!(told.recv().unwrap(), ClientAdvice::default());
}

#[test]
fn a_list_that_refuses_counts_nothing_and_other_rules_can_be_set() {
    let Some(server) = Unbound::start(ZONES) else { return };
    let asked = Asked::start(server.address, rules(&[("refused.test", 7), ("bl.test", 5)]));
    asked.weighs("192.0.2.2", 5, Some("bl.test"));
    assert_eq!((asked.count(DnsResult::ServFail), asked.count(DnsResult::Ok)), (1, 1));
    let other = rules(&[("bl.test", 2)]);
    asked.advisor.set_rules([("mx".to_owned(), other)]).unwrap();
    asked.weighs("192.0.2.2", 2, None);
    let bad = rules(&[("a..b", 2)]);
    let error = asked.advisor.set_rules([("mx".to_owned(), bad)]).unwrap_err().to_string();
    assert!(error.starts_with("listener mx: dns.lists: a..b"), "{error}");
    asked.weighs("192.0.2.2", 2, None);
}

#[test]
fn a_name_counts_that_leads_back_to_its_address() {
    let Some(server) = Unbound::start(ZONES) else { return };
    let asked = Asked::start(server.address, ClientRules { reverse: true, ..rules(&[]) });
    for (client, name) in [
        ("192.0.2.10", "mx.good.test"),
        ("192.0.2.11", ""),
        ("192.0.2.12", "also.good.test"),
        ("192.0.2.13", ""),
        ("192.0.2.14", ""),
        ("2001:db8::2", "six.good.test"),
    ] {
        assert_eq!(asked.ask(client).name, name, "{client}");
    }
}

#[test]
fn a_query_is_asked_once_for_all_and_its_answer_kept() {
    let Some(server) = Unbound::start(ZONES) else { return };
    let asked = Asked::start(server.address, rules(&[("bl.test", 5)]));
    for _ in 0..2 {
        let waiting: Vec<_> =
            (0..100).map(|at| asked.begin(["192.0.2.2", "192.0.2.1"][at % 2])).collect();
        for (at, waiting) in waiting.iter().enumerate() {
            let advice = waiting.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!(advice.score, [5, 0][at % 2]);
        }
    }
    assert_eq!(server.queries(), 2);
    assert_eq!((asked.count(DnsResult::Ok), asked.count(DnsResult::NxDomain)), (1, 1));
}

/// Asks one who gives no answer, and checks that nobody waits longer than allowed.
fn fails_open(server: SocketAddr) -> Asked {
    let deadline = Duration::from_millis(300);
    let rules = ClientRules { deadline, reverse: true, ..rules(&[("bl.test", 5), ("wl.test", 1)]) };
    let asked = Asked::start(server, rules);
    let began = Instant::now();
    assert_eq!(asked.ask("192.0.2.2"), ClientAdvice::default());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    asked
}

#[test]
fn a_server_that_is_down_counts_nothing() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let asked = fails_open(server);
    eventually("the queries are given up", Duration::from_secs(20), || {
        asked.count(DnsResult::ServFail) + asked.count(DnsResult::Timeout) == 3
    });
}

#[test]
fn a_server_that_is_silent_counts_nothing() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let asked = fails_open(server.local_addr().unwrap());
    // It was asked: three names, at least.
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut octets = [0; 512];
    assert!(server.recv(&mut octets).unwrap() > 12);
    eventually("the queries time out", Duration::from_secs(20), || {
        asked.count(DnsResult::Timeout) == 3
    });
    // It ends in the middle of a query.
    let waiting = asked.begin("192.0.2.7");
    let began = Instant::now();
    drop(asked);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(waiting);
}

#[test]
fn queries_are_bounded() {
    let most = support::machine::raise_descriptors();
    if most < 2048 && !support::machine::skip("too few descriptors for 1,024 queries") {
        return;
    }
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let deadline = Duration::from_secs(1);
    let rules = ClientRules { deadline, ..rules(&[("bl.test", 5)]) };
    let asked = Asked::start(server.local_addr().unwrap(), rules);
    let began = Instant::now();
    let waiting: Vec<_> =
        (0..1500).map(|at| asked.begin(&format!("198.51.{}.{}", at / 250, at % 250))).collect();
    for waiting in waiting {
        let advice = waiting.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(advice, ClientAdvice::default());
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(asked.count(DnsResult::Shed), 1500 - 1024);
}

/// Answers each query after a time: A 127.0.0.2, or an error.
fn responder(wait: Duration, code: u8) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    thread::spawn(move || {
        let mut octets = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut octets) {
            count.fetch_add(1, Ordering::Relaxed);
            thread::sleep(wait);
            let query = &octets[..len];
            // The question: labels to the empty one, type, class.
            let end = 12 + query[12..].iter().position(|octet| *octet == 0).unwrap() + 5;
            let mut answer = query[..end].to_vec();
            answer[2] = 0x81;
            answer[3] = 0x80 | code;
            answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(code == 0), 0, 0, 0, 0]);
            if code == 0 {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 127, 0, 0, 2]);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    (address, seen)
}

#[test]
fn an_answer_that_is_late_is_there_for_the_next_client() {
    let (server, seen) = responder(Duration::from_millis(500), 0);
    let deadline = Duration::from_millis(50);
    let asked = Asked::start(server, ClientRules { deadline, ..rules(&[("bl.test", 5)]) });
    asked.weighs("192.0.2.9", 0, None);
    eventually("the answer comes", Duration::from_secs(20), || asked.count(DnsResult::Ok) == 1);
    // The resolver may have asked again meanwhile.
    let before = seen.load(Ordering::Relaxed);
    asked.weighs("192.0.2.9", 5, Some("bl.test"));
    assert_eq!(seen.load(Ordering::Relaxed), before, "known from the late answer");
}

#[test]
fn servfail_counts_nothing_and_is_not_kept() {
    let (server, _) = responder(Duration::ZERO, 2);
    let asked = Asked::start(server, rules(&[("bl.test", 5)]));
    for count in 1..3 {
        asked.weighs("192.0.2.9", 0, None);
        assert_eq!(asked.count(DnsResult::ServFail), count);
    }
}
