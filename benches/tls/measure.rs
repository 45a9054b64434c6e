//! The questions, and what was found out.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io, thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::median::median;
use crate::{
    Options,
    alone::{self, Alone},
    client::{self, Client, Group, Met},
    procfs,
    servers::{Key, Server, Site},
    table::{Table, number},
};

/// What TLS adds to an octet, against rustls alone, at least.
const BULK_MIN: f64 = 0.8;
/// Resident octets of an idle connection, at most.
const IDLE_MAX: f64 = 12.0 * 1024.0;

/// A clock tick and what is accounted late.
const SETTLE: Duration = Duration::from_millis(100);
/// Mail data of one message; below it of the default limit.
const MESSAGE: u64 = 20 << 20;
/// Of one write of the client's.
const WRITE: usize = 64 << 10;
/// Connections whose memory the server keeps for the next.
const WARM: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    Handshakes,
    Bulk,
    Idle,
}

/// A handshake's kind; of Mailrace also a connection in the clear, the floor.
#[derive(Clone, Copy, Debug)]
struct Case {
    key: Option<Key>,
    group: Group,
    resumes: bool,
    openssl: bool,
}

impl Case {
    fn name(self) -> String {
        let Some(key) = self.key else { return "connection in the clear".to_owned() };
        let kind = if self.resumes { "resumed" } else { "full" };
        format!("{kind} {} {}", key.name(), self.group.name())
    }
}

const fn tls(key: Key, group: Group, resumes: bool, openssl: bool) -> Case {
    Case { key: Some(key), group, resumes, openssl }
}

/// OpenSSL before 3.5 has no ML-KEM.
const CASES: [Case; 6] = [
    tls(Key::Ecdsa, Group::X25519, false, true),
    tls(Key::Ecdsa, Group::X25519, true, true),
    tls(Key::Rsa, Group::X25519, false, true),
    tls(Key::Ecdsa, Group::X25519Mlkem768, false, false),
    tls(Key::Ecdsa, Group::X25519Mlkem768, true, false),
    Case { key: None, group: Group::X25519, resumes: false, openssl: false },
];

/// Microseconds of CPU a handshake of both.
type Handshakes = BTreeMap<usize, (Vec<f64>, Vec<f64>)>;

#[derive(Debug, Default)]
pub(crate) struct Figures {
    handshakes: Handshakes,
    /// Nanoseconds an octet, by name.
    bulk: BTreeMap<&'static str, Vec<f64>>,
    /// Resident octets of an idle connection, under TLS and in the clear.
    idle: Vec<(f64, f64)>,
}

pub(crate) fn all(options: &Options, site: &Site) -> io::Result<Figures> {
    let asked = |part| options.only.is_none_or(|only| only == part);
    let mut figures = Figures::default();
    for round in 0..options.rounds {
        eprintln!("round {}", round + 1);
        if asked(Part::Handshakes) {
            handshakes(options, site, &mut figures.handshakes)?;
        }
        if asked(Part::Bulk) {
            bulk(options, site, &mut figures.bulk)?;
        }
        if asked(Part::Idle) {
            figures.idle.push((idle(options, site, true)?, idle(options, site, false)?));
        }
    }
    Ok(figures)
}

fn handshakes(options: &Options, site: &Site, into: &mut Handshakes) -> io::Result<()> {
    for (at, case) in CASES.into_iter().enumerate() {
        let time = Duration::from_secs_f64(options.seconds);
        let (ours, theirs) = into.entry(at).or_default();
        ours.push(meet(&site.mailrace(case.key)?, case, true, time)?);
        if let (Some(key), true) = (case.key, case.openssl) {
            theirs.push(meet(&site.openssl(key)?, case, false, time)?);
        }
    }
    Ok(())
}

/// Microseconds of the server's CPU a connection.
fn meet(server: &Server, case: Case, greets: bool, time: Duration) -> io::Result<f64> {
    let client = Client::new(case.group, case.resumes);
    let one = || match case.key {
        Some(_) => client.meet(server.port, greets),
        None => client::meet_clear(server.port),
    };
    // The first of a server's life, and that which brings the ticket.
    for _ in 0..20 {
        one()?.leave()?;
    }
    thread::sleep(SETTLE);
    let before = procfs::cpu(server.process.pid());
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < time {
        let met = one()?;
        if met.resumed != case.resumes {
            return Err(io::Error::other(format!("{}: it was not", case.name())));
        }
        met.leave()?;
        count += 1;
    }
    thread::sleep(SETTLE);
    Ok(procfs::cpu(server.process.pid()).since(before).total() * 1e6 / f64::from(count))
}

fn bulk(
    options: &Options,
    site: &Site,
    into: &mut BTreeMap<&'static str, Vec<f64>>,
) -> io::Result<()> {
    let octets = options.mib << 20;
    let Alone { rustls, ours } = alone::run(&site.files(Key::Ecdsa), octets)?;
    into.entry("rustls alone").or_default().push(rustls);
    into.entry("mailrace::tls alone").or_default().push(ours);
    for (key, received, logged) in [
        (Some(Key::Ecdsa), "received under TLS", "logged under TLS"),
        (None, "received in the clear", "logged in the clear"),
    ] {
        let server = site.mailrace(key)?;
        let client = Client::new(Group::X25519, false);
        let met = || match key {
            Some(_) => client.meet(server.port, true),
            None => client::meet_clear(server.port),
        };
        into.entry(received).or_default().push(pour(&server, met()?, octets, octets, false)?);
        // A fifth: the disk is not asked about.
        let logged_octets = (octets / 5 / MESSAGE).max(1) * MESSAGE;
        let each = pour(&server, met()?, logged_octets, MESSAGE, true)?;
        into.entry(logged).or_default().push(each);
    }
    Ok(())
}

/// Nanoseconds of the server's CPU an octet that is sent in chunks of `chunk`, each a message or
/// none.
fn pour(
    server: &Server,
    mut met: Met,
    octets: u64,
    chunk: u64,
    is_message: bool,
) -> io::Result<f64> {
    // Lines of 80 octets.
    let mut text = vec![b'x'; WRITE];
    for line in text.chunks_mut(80) {
        let end = line.len();
        line[end - 2..].copy_from_slice(b"\r\n");
    }
    met.say("EHLO client.test")?;
    let mut one = |octets: u64| -> io::Result<()> {
        if is_message {
            met.say("MAIL FROM:<a@client.test>")?;
            met.say("RCPT TO:<b@server.test>")?;
        }
        met.send(format!("BDAT {octets} LAST\r\n").as_bytes())?;
        let mut left = octets;
        while left > 0 {
            let count = left.min(WRITE as u64) as usize;
            met.send(&text[..count])?;
            left -= count as u64;
        }
        let reply = met.reply()?;
        let wanted = if is_message { "250" } else { "503" };
        if reply.starts_with(wanted) { Ok(()) } else { Err(io::Error::other(reply)) }
    };
    one(MESSAGE)?;
    thread::sleep(SETTLE);
    let before = procfs::cpu(server.process.pid());
    for _ in 0..octets / chunk {
        one(chunk)?;
    }
    thread::sleep(SETTLE);
    let spent = procfs::cpu(server.process.pid()).since(before).total();
    Ok(spent * 1e9 / (octets / chunk * chunk) as f64)
}

/// Resident octets an idle connection.
fn idle(options: &Options, site: &Site, is_tls: bool) -> io::Result<f64> {
    let server = site.mailrace(is_tls.then_some(Key::Ecdsa))?;
    let client = Client::new(Group::X25519Mlkem768, false);
    let greeted = || -> io::Result<Met> {
        let mut met =
            if is_tls { client.meet(server.port, true)? } else { client::meet_clear(server.port)? };
        met.say("EHLO client.test")?;
        Ok(met)
    };
    for _ in 0..WARM {
        greeted()?.leave()?;
    }
    thread::sleep(SETTLE);
    let before = procfs::resident(server.process.pid());
    let held = (0..options.idle).map(|_| greeted()).collect::<io::Result<Vec<_>>>()?;
    thread::sleep(5 * SETTLE);
    let grown = procfs::resident(server.process.pid()).saturating_sub(before);
    Ok(grown as f64 / held.len() as f64)
}

impl Figures {
    fn bulk(&self, name: &str) -> f64 {
        self.bulk.get(name).map_or(f64::NAN, |values| median(values.iter().copied()))
    }

    /// rustls alone against what TLS adds: of octets that are thrown away, of those in the log.
    fn bulk_ratios(&self) -> [f64; 2] {
        let ratio = |what: &str| {
            let under = self.bulk(&format!("{what} under TLS"));
            self.bulk("rustls alone") / (under - self.bulk(&format!("{what} in the clear")))
        };
        [ratio("received"), ratio("logged")]
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        if !self.handshakes.is_empty() {
            let header = ["handshake", "us CPU", "a second", "openssl us", "a second", "ratio"];
            let mut table = Table::new(&header);
            for (at, (ours, theirs)) in &self.handshakes {
                let (ours, theirs) = (median(ours.iter().copied()), median(theirs.iter().copied()));
                let cells = [ours, 1e6 / ours, theirs, 1e6 / theirs, theirs / ours].map(number);
                let mut row = vec![CASES[*at].name()];
                row.extend(cells);
                table.rows.push(row);
            }
            out += &format!("\n{}", table.text());
            out += " ratio: as many handshakes a core as openssl s_server does, at 1\n";
        }
        if !self.bulk.is_empty() {
            let mut table = Table::new(&["octets", "ns CPU", "GB/s a core"]);
            for (name, values) in &self.bulk {
                let each = median(values.iter().copied());
                table.rows.push(vec![(*name).to_owned(), number(each), number(1.0 / each)]);
            }
            let [received, logged] = self.bulk_ratios();
            let verdict = if received >= BULK_MIN { "holds" } else { "MISSED" };
            out += &format!("\n{}", table.text());
            // Writing into a String cannot fail.
            let _ = writeln!(
                out,
                " rustls alone against what TLS adds: {} received, {} logged; goal >= {BULK_MIN} \
                 {verdict}\n against all of the server's CPU: {} received, {} logged",
                number(received),
                number(logged),
                number(self.bulk("rustls alone") / self.bulk("received under TLS")),
                number(self.bulk("rustls alone") / self.bulk("logged under TLS")),
            );
        }
        if !self.idle.is_empty() {
            let (secure, clear) = self.idle_medians();
            let verdict = if secure <= IDLE_MAX { "holds" } else { "MISSED" };
            let _ = writeln!(
                out,
                "\n idle connection: {} octets resident under TLS, {} in the clear; goal <= {} \
                 {verdict}",
                number(secure),
                number(clear),
                number(IDLE_MAX),
            );
        }
        out
    }

    fn idle_medians(&self) -> (f64, f64) {
        let of = |pick: fn(&(f64, f64)) -> f64| median(self.idle.iter().map(pick));
        (of(|both| both.0), of(|both| both.1))
    }

    pub(crate) fn json(&self) -> Value {
        let handshakes = self.handshakes.iter().map(|(at, (ours, theirs))| {
            json!({
                "case": CASES[*at].name(),
                "mailrace_us": ours,
                "openssl_us": theirs,
                "ratio": (!theirs.is_empty()).then(|| median(theirs.iter().copied()) / median(ours.iter().copied())),
            })
        });
        let (secure, clear) = self.idle_medians();
        let [received, logged] = self.bulk_ratios();
        json!({
            "handshakes": handshakes.collect::<Vec<_>>(),
            "bulk_ns": self.bulk,
            "bulk_ratio": {"received": received, "logged": logged, "goal": BULK_MIN},
            "idle_bytes": {"tls": secure, "clear": clear, "goal": IDLE_MAX},
        })
    }
}
