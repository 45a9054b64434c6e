//! A DNS server on loopback with zones of the test's own, which can also misbehave.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, reason = "a crate's tests use it as well")]
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, MX, PTR, TXT},
    },
};

/// What a name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Mx(u16, String),
    Ptr(String),
    /// The strings of one record.
    Txt(Vec<Vec<u8>>),
    Cname(String),
    /// No answer to what no other entry answers.
    Silence,
    /// SERVFAIL to what no other entry answers.
    Failure,
    /// An answer with the identifier of another query.
    WrongId,
    /// An answer from another port.
    WrongPort,
    /// An answer about another name.
    WrongName,
    /// Octets that are no DNS.
    Garbage,
    /// Truncated over UDP and over TCP.
    Truncated,
}

/// Names, in lower case and without the last dot.
#[derive(Clone, Debug, Default)]
pub struct Zone(HashMap<String, Vec<Data>>);

impl Zone {
    pub fn add(&mut self, name: &str, data: Data) -> &mut Self {
        self.0.entry(key(name)).or_default().push(data);
        self
    }

    pub fn txt(&mut self, name: &str, text: &str) -> &mut Self {
        let strings = text.as_bytes().chunks(255).map(<[u8]>::to_vec).collect();
        self.add(name, Data::Txt(strings))
    }

    /// An address, and its name.
    pub fn host(&mut self, name: &str, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(address) => self.add(name, Data::A(address)),
            IpAddr::V6(address) => self.add(name, Data::Aaaa(address)),
        };
        self.add(&Name::from(address).to_ascii(), Data::Ptr(name.to_owned()))
    }

    fn has_below(&self, name: &str) -> bool {
        let end = format!(".{name}");
        self.0.keys().any(|other| other.ends_with(&end))
    }
}

/// As it is in a zone: without the escapes of a zone file.
fn text_of(name: &Name) -> String {
    let labels = name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase());
    labels.collect::<Vec<_>>().join(".")
}

fn key(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Ends when it is dropped.
pub struct Responder {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    zone: Arc<Mutex<Zone>>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Responder {
    pub fn start(zone: Zone) -> Self {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let zone = Arc::new(Mutex::new(zone));
        let stop = Arc::new(AtomicBool::new(false));
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let over_udp = {
            let (asked, zone, stop) = (asked.clone(), zone.clone(), stop.clone());
            thread::spawn(move || serve_udp(&udp, &zone, &asked, &stop))
        };
        let over_tcp = {
            let (zone, stop) = (zone.clone(), stop.clone());
            thread::spawn(move || serve_tcp(&tcp, &zone, &stop))
        };
        Self { address, asked, zone, stop, threads: vec![over_udp, over_tcp] }
    }

    /// Names and types that were asked for over UDP, in order: `x.test TXT`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Another zone from now on.
    pub fn set(&self, zone: Zone) {
        *self.zone.lock().unwrap() = zone;
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Both protocols on one port.
fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..20 {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both protocols");
}

fn serve_udp(udp: &UdpSocket, zone: &Mutex<Zone>, asked: &Mutex<Vec<String>>, stop: &AtomicBool) {
    let mut octets = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((len, peer)) = udp.recv_from(&mut octets) else { continue };
        let Ok(query) = Message::from_vec(&octets[..len]) else { continue };
        if let Some(one) = query.queries.first() {
            let name = text_of(one.name());
            asked.lock().unwrap().push(format!("{name} {}", one.query_type()));
        }
        let (sent, misbehaves) = answer(&zone.lock().unwrap(), &query);
        let Some(mut message) = sent else { continue };
        match misbehaves {
            Some(Data::WrongId) => message.metadata.id = message.metadata.id.wrapping_add(1),
            Some(Data::Truncated) => message.metadata.truncation = true,
            _ => {}
        }
        let mut octets = message.to_vec().unwrap();
        if octets.len() > 1232 {
            let mut cut = message.clone();
            cut.answers.clear();
            cut.metadata.truncation = true;
            octets = cut.to_vec().unwrap();
        }
        if misbehaves == Some(Data::Garbage) {
            octets = vec![0xff; 40];
        }
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let from = if misbehaves == Some(Data::WrongPort) { &other } else { udp };
        let _ = from.send_to(&octets, peer);
    }
}

fn serve_tcp(tcp: &TcpListener, zone: &Mutex<Zone>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut peer, _)) = tcp.accept() else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        peer.set_nonblocking(false).unwrap();
        peer.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut len = [0; 2];
        while peer.read_exact(&mut len).is_ok() {
            let mut octets = vec![0; usize::from(u16::from_be_bytes(len))];
            if peer.read_exact(&mut octets).is_err() {
                break;
            }
            let Ok(query) = Message::from_vec(&octets) else { break };
            let (sent, misbehaves) = answer(&zone.lock().unwrap(), &query);
            let Some(mut message) = sent else { break };
            message.metadata.truncation = misbehaves == Some(Data::Truncated);
            let octets = message.to_vec().unwrap();
            let len = u16::try_from(octets.len()).unwrap().to_be_bytes();
            if peer.write_all(&[&len[..], &octets].concat()).is_err() {
                break;
            }
        }
    }
}

/// `None`: silence. And how it is to be spoiled.
fn answer(zone: &Zone, query: &Message) -> (Option<Message>, Option<Data>) {
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.recursion_available = true;
    let Some(asked) = query.queries.first() else { return (None, None) };
    message.add_query(asked.clone());
    let mut name = text_of(asked.name());
    let mut own = asked.name().clone();
    // Aliases are followed as a resolver does, and a loop ends.
    for _ in 0..8 {
        let entries = zone.0.get(&name).cloned().unwrap_or_default();
        let is_there = !entries.is_empty() || zone.has_below(&name);
        let found: Vec<_> =
            entries.iter().filter_map(|data| rdata(data, asked.query_type())).collect();
        if !found.is_empty() {
            for data in found {
                message.add_answer(Record::from_rdata(own.clone(), 300, data));
            }
            return (Some(message), None);
        }
        for data in &entries {
            match data {
                Data::Silence => return (None, None),
                Data::Failure => {
                    message.metadata.response_code = ResponseCode::ServFail;
                    return (Some(message), None);
                }
                Data::WrongName => {
                    let other = Name::from_ascii("other.test.").unwrap();
                    let lie = RData::TXT(TXT::new(vec!["v=spf1 +all".to_owned()]));
                    message.add_answer(Record::from_rdata(other, 300, lie));
                    return (Some(message), Some(data.clone()));
                }
                Data::WrongId | Data::WrongPort | Data::Garbage | Data::Truncated => {
                    let lie = RData::TXT(TXT::new(vec!["v=spf1 +all".to_owned()]));
                    message.add_answer(Record::from_rdata(own.clone(), 300, lie));
                    return (Some(message), Some(data.clone()));
                }
                _ => {}
            }
        }
        let alias = entries.iter().find_map(|data| match data {
            Data::Cname(target) => Some(target.clone()),
            _ => None,
        });
        let Some(target) = alias else {
            if !is_there {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
            return (Some(message), None);
        };
        let target_name = fqdn(&target);
        let data = RData::CNAME(CNAME(target_name.clone()));
        message.add_answer(Record::from_rdata(own, 300, data));
        own = target_name;
        name = key(&target);
    }
    (Some(message), None)
}

fn fqdn(name: &str) -> Name {
    let mut name = Name::from_labels(key(name).split('.').map(str::as_bytes)).unwrap();
    name.set_fqdn(true);
    name
}

fn rdata(data: &Data, kind: RecordType) -> Option<RData> {
    match (data, kind) {
        (Data::A(address), RecordType::A) => Some(RData::A(A(*address))),
        (Data::Aaaa(address), RecordType::AAAA) => Some(RData::AAAA(AAAA(*address))),
        (Data::Mx(preference, name), RecordType::MX) => {
            let name = if name.is_empty() { Name::root() } else { fqdn(name) };
            Some(RData::MX(MX::new(*preference, name)))
        }
        (Data::Ptr(name), RecordType::PTR) => Some(RData::PTR(PTR(fqdn(name)))),
        (Data::Txt(strings), RecordType::TXT) => {
            Some(RData::TXT(TXT::from_bytes(strings.iter().map(Vec::as_slice).collect())))
        }
        _ => None,
    }
}
