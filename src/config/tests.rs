use std::time::Duration;

use super::*;
use crate::{
    log::{Rules, SyncPolicy},
    smtp::{LineEnds, TlsPolicy},
};

fn machine() -> Machine {
    Machine {
        hostname: "host.example".to_owned(),
        cpus: vec![2, 3, 5],
        memory_bytes: 8 << 30,
        descriptors_max: 1000,
    }
}

fn load(environment: &[(&str, &str)], sets: &[&str]) -> Result<Config, ConfigErrors> {
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let sets: Vec<String> = sets.iter().map(|text| (*text).to_owned()).collect();
    Config::from_sources(environment, &sets, &machine())
}

/// Of a file named `m.toml`, without environment and flags.
pub(super) fn from_text(text: &str) -> Result<Config, ConfigErrors> {
    merged(text, &[], &[])
}

pub(super) fn merged(
    text: &str,
    environment: &[(&str, &str)],
    sets: &[&str],
) -> Result<Config, ConfigErrors> {
    let file = ConfigFile { path: PathBuf::from("m.toml"), text: text.to_owned() };
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    let sets: Vec<String> = sets.iter().map(|text| (*text).to_owned()).collect();
    Config::merge(Some(&file), environment, &sets, &machine())
}

/// Asserts that the file is refused with exactly these lines.
#[track_caller]
pub(super) fn wrong(text: &str, lines: &[&str]) {
    let error = from_text(text).expect_err("should be refused").to_string();
    assert_eq!(error.lines().collect::<Vec<_>>(), lines);
}

#[track_caller]
fn refused(environment: &[(&str, &str)], sets: &[&str], text: &str) {
    let error = load(environment, sets).expect_err("should be refused").to_string();
    assert!(error.contains(text), "{text:?} is missing in {error:?}");
}

#[test]
fn defaults() {
    let config = load(&[("PATH", "/bin"), ("MAILRACEX", "1")], &[]).unwrap();
    assert_eq!(config.server.hostname, "host.example");
    assert_eq!(config.server.shards, 3);
    assert_eq!(config.server.admin_listen, Some("127.0.0.1:2580".parse().unwrap()));
    assert_eq!(config.log.dir, PathBuf::from("./mailrace-data"));
    assert_eq!(config.log.sync, SyncPolicy::Group);
    assert_eq!(config.log.segment_size, 64 << 20);
    assert_eq!(config.limits.session.message_bytes, 26_214_400);
    assert_eq!(config.limits.session.recipients_max, 1000);
    assert_eq!(config.limits.connections_total, 800);
    assert_eq!(config.limits.inflight_bytes, (8 << 30) / 100 * 50);
    assert_eq!(config.limits.session.command_wait, Duration::from_secs(300));
    assert_eq!(config.limits.session.data_time, Duration::from_secs(1800));
    assert_eq!(config.limits.exempt.len(), 2);
    let [listener] = &config.listeners[..] else { panic!("one listener") };
    assert_eq!(listener.name, "smtp");
    assert_eq!(listener.listen, ["127.0.0.1:2525".parse::<SocketAddr>().unwrap()]);
    assert_eq!(listener.line_ends, LineEnds::Reject);
    assert_eq!((listener.tls_mode, &listener.tls), (TlsPolicy::Offered, &None));
    assert_eq!(config.certificates(listener), []);
    assert_eq!(config.limits.session.handshake_wait, Duration::from_secs(30));
    assert_eq!(
        config.log.retention,
        Rules {
            age: Some(Duration::from_secs(7 * 86_400)),
            size: None,
            require_consumed: true,
            retain_after_export: Duration::from_secs(900),
            hold: false,
        }
    );
    assert_eq!(config.log.disk_low, DiskLow::Percent(10));
    assert_eq!(config.log.refusals_size, Some(64 << 20));
    assert!(config.exports.is_empty() && config.file().is_none());
    assert!(config.settings().iter().all(|setting| setting.origin == Origin::Default));
}

#[test]
fn flags_win_over_the_environment() {
    let environment = [("MAILRACE_LOG__DIR", "/env"), ("MAILRACE_LOG__SYNC", "each")];
    let config = load(&environment, &["log.dir=/flag", "log.dir=/last"]).unwrap();
    assert_eq!(config.log.dir, PathBuf::from("/last"));
    assert_eq!(config.log.sync, SyncPolicy::Each);
    let origin = |key: &str| {
        config.settings().iter().find(|setting| setting.key == key).unwrap().origin.to_string()
    };
    assert_eq!(origin("log.dir"), "--set");
    assert_eq!(origin("log.sync"), "environment MAILRACE_LOG__SYNC");
    assert_eq!(origin("log.segment_size"), "default");
}

#[test]
fn listeners_are_an_array() {
    let config = load(
        &[("MAILRACE_LISTENER__1__LINE_ENDS", "allow")],
        &["listener.0.listen=127.0.0.1:0,[::1]:0", "listener.1.listen=127.0.0.2:2526"],
    )
    .unwrap();
    assert_eq!(config.listeners.len(), 2);
    assert_eq!(config.listeners[0].listen.len(), 2);
    assert_eq!(config.listeners[1].name, "smtp1");
    assert_eq!(config.listeners[1].line_ends, LineEnds::Allow);
    refused(&[], &["listener.1.name=b"], "listener.1.listen (default): at least one address");
    let sets = ["listener.1.name=smtp", "listener.1.listen=127.0.0.1:1"];
    refused(&[], &sets, "another listener has this name");
    refused(&[], &["listener.99.name=b"], "unknown key");
}

#[test]
fn unknown_keys_name_their_origin_and_a_suggestion() {
    refused(&[], &["log.dri=/x"], "log.dri (--set): unknown key; did you mean log.dir?");
    refused(
        &[("MAILRACE_LIMITS__MESSAGE_SIZES", "1MiB")],
        &[],
        "(environment MAILRACE_LIMITS__MESSAGE_SIZES): unknown key; did you mean limits.message_size?",
    );
    refused(&[], &["nonsense"], "key=value is needed");
}

#[test]
fn values_out_of_range() {
    for (set, text) in [
        ("limits.message_size=1KiB", "64KiB to 1GiB"),
        ("limits.recipients=99", "100 to 100000"),
        ("limits.timeout.command=5", "not a duration"),
        ("limits.timeout.command=0s", "1s to 1d"),
        ("limits.inflight_bytes=1MiB", "is less than one message"),
        ("limits.inflight_bytes=95%", "1 to 90"),
        ("limits.exempt=example.com", "not a network"),
        ("log.segment_size=1KiB", "1MiB to 4GiB"),
        ("log.sync=fast", "one of group, each, none"),
        ("log.retention.age=never", "not a duration"),
        ("log.retention.size=1KiB", "1MiB to"),
        ("log.refusals.size=1KiB", "1MiB to"),
        ("log.retention.hold=yes", "true or false is needed, not \"yes\""),
        ("log.disk.low=100%", "1 to 99"),
        ("log.dir=", "a directory is needed"),
        ("server.shards=0", "from 1 to 1024, or \"auto\""),
        ("server.hostname=a b", "not a host name"),
        ("listener.0.line_ends=maybe", "one of reject, normalize, allow"),
        ("listener.0.listen=2525", "is not an address to listen on: an address is needed with"),
        ("server.admin.listen=*:2580", "every address of this machine is \"0.0.0.0:2580\""),
    ] {
        refused(&[], &[set], text);
    }
}

#[test]
fn every_mistake_is_told() {
    let errors = load(&[], &["log.sync=x", "server.shards=y", "bad.key=z"]).unwrap_err();
    assert_eq!(errors.0.len(), 3);
}

#[test]
fn no_catch_all_beyond_loopback() {
    refused(&[], &["listener.0.listen=0.0.0.0:25"], "beyond loopback");
    refused(&[], &["listener.0.listen=[::]:25"], "accept.domains or");
    refused(&[], &["server.admin.listen=192.0.2.1:80"], "token_file is needed");
    assert!(load(&[], &["listener.0.listen=[::1]:25"]).is_ok());
    for policy in ["domains=example.com", "domains=*", "domains_file=/d", "recipients_file=/r"] {
        let sets = ["listener.0.listen=[::]:25", &format!("listener.0.accept.{policy}")];
        assert!(load(&[], &sets).is_ok(), "{policy}");
    }
    assert!(load(&[], &["listener.0.listen=[::]:25", "listener.0.protocol=refuse"]).is_ok());
    // Both at once, as in README: a listener's [::] is IPv6 alone.
    let sets = ["listener.0.listen=[::]:25,0.0.0.0:25", "listener.0.accept.domains=*"];
    assert!(load(&[], &sets).is_ok());
    let sets = ["server.admin.listen=192.0.2.1:80", "server.admin.token_file=/t"];
    assert!(load(&[], &sets).is_ok());
    assert_eq!(load(&[], &["server.admin.listen="]).unwrap().server.admin_listen, None);
}

const REJECT: &str = "listener.0.verify.mode=reject";
const SPF: &str = "listener.0.verify.methods=spf,dmarc";

#[test]
fn gates_that_need_each_other() {
    for (sets, text) in [
        (&["listener.0.auth.mechanisms=PLAIN"][..], "auth.users_file as well"),
        (&["listener.0.auth.mechanisms=EXTERNAL"], "EXTERNAL needs listener.0.tls.client_ca_file"),
        (&["listener.0.auth.mechanisms=NTLM"], "\"NTLM\" is not one of SCRAM-SHA-256-PLUS, "),
        (
            &["listener.0.auth.mechanisms=PLAIN", "listener.0.tls_mode=off"],
            "AUTH is offered only over TLS",
        ),
        (&["listener.0.auth.required=true"], "auth.mechanisms as well"),
        (
            &["listener.0.auth.users_file=/u"],
            "nobody can log in: requires listener.0.auth.mechanisms",
        ),
        (
            &["listener.0.auth.mechanisms=PLAIN", "listener.0.auth.users_file=/u"],
            "listener.0.auth.mechanisms (--set): AUTH is offered only over TLS, which needs \
             server.tls.cert_file and server.tls.key_file",
        ),
        (&["listener.0.proxy_protocol.mode=required"], "trusted as well"),
        (&["listener.0.proxy_protocol.trusted=x"], "trusted (--set): "),
        (&["listener.0.listen=unix:/s"], "needs protocol = \"lmtp\""),
        (&["listener.0.listen=unix:s", "listener.0.protocol=lmtp"], "must begin with /"),
        (&["listener.0.listen=[::1]:25", "listener.0.protocol=lmtp"], "on port 25"),
        (
            &[&format!("listener.0.listen=unix:/{}", "s".repeat(107)), "listener.0.protocol=lmtp"],
            "the path has 108 bytes, but a unix socket's path can have at most 107",
        ),
        (&["listener.0.accept.domains=a b"], "is not a domain"),
        (&["listener.0.accept.subaddress=++"], "is not a delimiter"),
        (&["listener.0.dns.lists=zen.example=0"], "is not a list"),
        (&["listener.0.dns.lists=*.example=1"], "is not a list"),
        (&["server.dns.servers=ns1"], "is not an address"),
        (
            &["listener.0.verify.methods=spf,dane"],
            "\"dane\" is not one of spf, dkim, dmarc, arc, iprev",
        ),
        (&["listener.0.verify.methods=dmarc,arc"], "dmarc requires spf or dkim as well"),
        (&["listener.0.verify.mode=tag"], "requires listener.0.verify.methods as well"),
        (&["listener.0.verify.except=x.test"], "except (--set): requires verify.mode = \"reject\""),
        (&["listener.0.verify.mode=reject"], "requires listener.0.verify.methods as well"),
        (&[REJECT, "listener.0.verify.methods=spf"], "dmarc requires dmarc in verify.methods"),
        (&[REJECT, SPF, "listener.0.verify.reject=all"], "not one of dmarc, own_domain, spf, from"),
        (&[REJECT, SPF, "listener.0.verify.except=*"], "*: this would except all mail"),
        (&[REJECT, SPF, "listener.0.verify.trusted=x"], "is not a network"),
        (
            &[REJECT, SPF, "listener.0.verify.deadline=5s", "limits.timeout.commit=5s"],
            "must be less than limits.timeout.commit",
        ),
        (&["limits.connections.rate_per_ip=5/s"], "not a rate such as \"600/m\""),
    ] {
        refused(&[], sets, text);
    }
    let sets = [
        "listener.0.protocol=lmtp",
        "listener.0.listen=unix:/s,127.0.0.1:24",
        "listener.0.dns.lists=Zen.example=5,allow.example=-3,plain.example",
        "listener.0.accept.domains=Example.COM,*.example.net",
        "listener.0.verify.methods=spf,dmarc",
        "limits.connections.per_ip=",
    ];
    let config = load(&[], &sets).unwrap();
    let listener = &config.listeners[0];
    assert_eq!(listener.listen_unix, [PathBuf::from("/s")]);
    let lists = [("zen.example", 5), ("allow.example", -3), ("plain.example", 1)];
    assert_eq!(listener.dns.lists, lists.map(|(zone, weight)| (zone.to_owned(), weight)));
    assert_eq!(listener.accept.domains, ["example.com", "*.example.net"]);
    assert_eq!(listener.accept.subaddress, Some('+'));
    let verify = listener.verify.unwrap();
    assert!(verify.spf && verify.dmarc && !verify.dkim && !verify.arc && !verify.iprev);
    assert_eq!(config.limits.verify_queue, 100_000);
    assert_eq!((&listener.authserv_id, &listener.reject), (&None, &None));
    let except = "listener.0.verify.except=B\u{fc}cher.test, *.X.test.";
    let config = load(&[], &[REJECT, SPF, except, "limits.connections.per_ip="]).unwrap();
    let reject = config.listeners[0].reject.as_ref().unwrap();
    assert_eq!(reject.rules.except, ["xn--bcher-kva.test", "*.x.test"]);
    assert_eq!((reject.rules.causes.len(), reject.tempfail), (1, false));
    assert_eq!(config.listeners[0].authserv_id.as_deref(), Some(""));
    assert_eq!(config.limits.connections_per_ip, None);
    assert_eq!(config.limits.connection_rate_per_ip, Some(600));
}

/// What the machine is like is nobody's mistake.
#[test]
fn defaults_of_an_odd_machine_are_repaired() {
    let odd = Machine {
        hostname: "mail_gw".to_owned(),
        cpus: Vec::new(),
        memory_bytes: 32 << 20,
        descriptors_max: 0,
    };
    let load = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|text| (*text).to_owned()).collect();
        Config::from_sources([], &sets, &odd)
    };
    let config = load(&[]).unwrap();
    assert_eq!(config.server.hostname, "mail-gw");
    assert_eq!((config.server.shards, config.server.cpus.as_slice()), (1, &[0][..]));
    assert_eq!(config.limits.inflight_bytes, config.limits.session.message_bytes);
    assert!(config.limits.connections_total >= 1);
    let [memory, name] = config.warnings() else { panic!("{:?}", config.warnings()) };
    assert!(name.contains("\"mail_gw\"") && name.contains("set server.hostname"), "{name}");
    assert!(memory.contains("50%") && memory.contains("using 25MiB"), "{memory}");
    // What somebody wrote is judged.
    let config = load(&["server.hostname=mx.example", "limits.message_size=1MiB"]).unwrap();
    assert_eq!(config.warnings(), [""; 0]);
    assert!(load(&["server.hostname=mail_gw"]).is_err());
    assert!(load(&["limits.inflight_bytes=16MiB"]).is_err());
    let healthy = Config::from_sources([], &[], &machine()).unwrap();
    assert_eq!(healthy.warnings(), [""; 0]);
}

/// In TOML as in a variable: a number of bytes is a size, a duration needs its unit.
#[test]
fn sizes_and_durations_as_people_write_them() {
    let config = from_text("limits.message_size = 52428800\nlog.retention.age = \"2w\"\n").unwrap();
    assert_eq!(config.limits.session.message_bytes, 52_428_800);
    assert_eq!(config.log.retention.age, Some(Duration::from_secs(14 * 86_400)));
    let config = from_text("limits.message_size = \"50M\"\n").unwrap();
    assert_eq!(config.limits.session.message_bytes, 50 << 20);
    wrong(
        "limits.timeout.command = 10\nlimits.message_size = -1\nlimits.content_line = 1.5\n",
        &[
            "limits.timeout.command (m.toml:1): 10 is not a duration: it needs a unit, as in \
             \"10s\"; ms, s, m, h, d or w",
            "limits.message_size (m.toml:2): a string such as \"64MiB\" or a number of bytes is \
             needed, not a negative number",
            "limits.content_line (m.toml:3): a string such as \"64MiB\" or a number of bytes is \
             needed, not a float",
        ],
    );
}

#[test]
fn retention() {
    let sets = [
        "log.retention.age=",
        "log.retention.size=500GiB",
        "log.retention.require_consumed=false",
        "log.retention.retain_after_export=0s",
        "log.retention.hold=true",
        "log.disk.low=20GiB",
    ];
    let log = load(&[], &sets).unwrap().log;
    assert_eq!(
        log.retention,
        Rules {
            age: None,
            size: Some(500 << 30),
            require_consumed: false,
            retain_after_export: Duration::ZERO,
            hold: true,
        }
    );
    assert_eq!(log.disk_low, DiskLow::Bytes(20 << 30));
    assert_eq!(log.disk_low.bytes(1 << 40), 20 << 30);
    assert_eq!(DiskLow::Percent(10).bytes(1000), 100);
    assert!(DiskLow::Percent(99).bytes(u64::MAX) < u64::MAX);
}

#[test]
fn variables_and_flags_win_over_the_file() {
    let text = "[log]\ndir = \"/file\"\nsync = \"each\"\n[limits]\nrecipients = 200\n";
    let environment = [("MAILRACE_LOG__DIR", "/env"), ("MAILRACE_LOG__SYNC", "none")];
    let config = merged(text, &environment, &["log.dir=/flag"]).unwrap();
    let (dir, sync) = (&config.log.dir, config.log.sync);
    assert_eq!((dir.to_str(), sync), (Some("/flag"), SyncPolicy::None));
    assert_eq!(config.limits.session.recipients_max, 200);
    assert_eq!(config.file(), Some(Path::new("m.toml")));
    let origin = |key: &str| {
        config.settings().iter().find(|setting| setting.key == key).unwrap().origin.to_string()
    };
    assert_eq!(origin("log.dir"), "--set");
    assert_eq!(origin("log.sync"), "environment MAILRACE_LOG__SYNC");
    assert_eq!(origin("limits.recipients"), "m.toml:5");
}

/// What a table lists is taken, and nothing of it by accident: each word gives another value.
#[test]
fn every_choice_of_the_tables_is_taken() {
    let minimal: Vec<(&str, String)> = export_keys::TYPES
        .iter()
        .map(|kind| {
            let needed = keys::Table::Export(0).keys().iter().filter(|key| key.is_of(kind));
            let lines = needed.filter_map(|key| {
                let value = key.kind.read(key.example?);
                Some(format!("{} = {value}\n", key.name))
            });
            let text = lines.collect::<String>().replace("\"blackhole\"", &format!("{kind:?}"));
            (*kind, format!("[[export]]\n{text}"))
        })
        .collect();
    let mut count = 0;
    // These need others, which then forbid what the rest takes.
    const DEMANDING: [&str; 3] = ["role", "senders_from", "verify.on_timeout"];
    let mut walk = |table: keys::Table, kind: &str, text: &str, only: &str| {
        for key in table.keys().iter().filter(|key| key.is_of(kind) && key.name != "type") {
            let demands = DEMANDING.contains(&key.name);
            if (only.is_empty() && demands) || (!only.is_empty() && key.name != only) {
                continue;
            }
            let value::Kind::Choice(words) = key.kind else { continue };
            let mut seen = Vec::new();
            for word in words {
                let set = format!("{}{}={word}", table.prefix(), key.name);
                let config = merged(text, &[], &[&set]).unwrap();
                let told = format!(
                    "{:?} {:?} {:?} {:?}",
                    config.server, config.log, config.listeners, config.exports
                );
                assert!(!seen.contains(&told), "{set} does nothing");
                seen.push(told);
                count += 1;
            }
        }
    };
    walk(keys::Table::Root, "", "", "");
    // Two of its modes need a certificate.
    let tls = "[server]\ntls = { cert_file = \"/a\", key_file = \"/b\" }\n\
               [[listener]]\nproxy_protocol.trusted = [\"192.0.2.1\"]\naccept.domains = [\"*\"]\n\
               verify.methods = [\"spf\", \"dmarc\"]\n";
    walk(keys::Table::Listener(0), "", tls, "");
    let judging = format!("{tls}verify.mode = \"reject\"\n");
    walk(keys::Table::Listener(0), "", &judging, "verify.on_timeout");
    let login = format!(
        "{tls}tls_mode = \"required\"\nauth.mechanisms = [\"PLAIN\"]\nauth.users_file = \"/u\"\n"
    );
    walk(keys::Table::Listener(0), "", &login, "role");
    let listed = format!("{login}role = \"submission\"\nsenders_file = \"/s\"\n");
    walk(keys::Table::Listener(0), "", &listed, "senders_from");
    for (kind, text) in &minimal {
        walk(keys::Table::Export(0), kind, text, "");
    }
    assert!(count > 80, "{count}");
}

#[test]
fn certificates_of_listeners() {
    let files = |name: &str| Files {
        cert_file: PathBuf::from(format!("/{name}.crt")),
        key_file: PathBuf::from(format!("/{name}.key")),
    };
    let config = merged(
        r#"
            [server]
            tls = { cert_file = "/a.crt", key_file = "credential:a.key" }
            [[listener]]
            tls_mode = "required"
            [[listener]]
            name = "submissions"
            listen = ["127.0.0.1:465"]
            tls_mode = "implicit"
            tls = { cert_file = "/b.crt", key_file = "/b.key" }
            [[listener]]
            name = "plain"
            listen = ["127.0.0.1:26"]
            tls_mode = "off"
        "#,
        &[("CREDENTIALS_DIRECTORY", "/")],
        &[],
    )
    .unwrap();
    let [mx, submissions, plain] = &config.listeners[..] else { panic!("three") };
    assert_eq!(config.certificates(mx), [files("a")]);
    assert_eq!(config.certificates(submissions), [files("b"), files("a")]);
    assert_eq!(config.certificates(plain), []);
    assert_eq!((mx.tls_mode, plain.tls_mode), (TlsPolicy::Required, TlsPolicy::Off));
    wrong(
        "[server]\ntls.cert_file = \"/a.crt\"\n[[listener]]\ntls.key_file = \"/b.key\"\n",
        &[
            "server.tls.cert_file (m.toml:2): requires server.tls.key_file as well",
            "listener.0.tls.key_file (m.toml:4): requires listener.0.tls.cert_file as well",
        ],
    );
    for mode in ["required", "implicit"] {
        wrong(
            &format!("[[listener]]\ntls_mode = \"{mode}\"\n"),
            &["listener.0.tls_mode (m.toml:2): a certificate is needed: server.tls.cert_file and \
               server.tls.key_file"],
        );
    }
}
