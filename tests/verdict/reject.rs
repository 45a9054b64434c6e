//! Mode `reject`: mail is judged before its 250.

use std::{io::Write, path::Path, time::Duration};

use crate::{
    record::{launch, zone},
    support::{
        Client, Launch, Server, eventually, id_of, in_ci, log_command, output_of, refusals,
        servers::zone::{Data, Responder},
        signal, stuffed,
    },
};

/// `x.test` may send from here and wants forged mail rejected; `z.test` wants the same, and may not.
fn start(dir: &Path, dns: &Responder, settings: &[&str]) -> Server {
    let mut launch = reject(dir, dns);
    for setting in settings {
        launch = launch.set(setting);
    }
    launch.start()
}

fn reject(dir: &Path, dns: &Responder) -> Launch {
    launch(dir, dns)
        .set("server.hostname=ours.test")
        .set("listener.0.verify.mode=reject")
        .set("listener.0.verify.reject=dmarc, own_domain, spf, from")
}

fn dns() -> Responder {
    let mut zone = zone();
    zone.txt("z.test", "v=spf1 -all").txt("_dmarc.z.test", "v=DMARC1; p=reject");
    zone.txt("list.test", "v=spf1 ip4:127.0.0.1 -all").txt("s.test", "v=spf1 -all");
    zone.add("silent.test", Data::Silence);
    Responder::start(zone)
}

fn begin(client: &mut Client, mail_from: &str) {
    for command in [format!("MAIL FROM:<{mail_from}>"), "RCPT TO:<b@ours.test>".to_owned()] {
        let said = client.say(&command);
        assert!(said.starts_with("250"), "{command}: {said}");
    }
}

/// Sends a mail; its final reply.
fn send(client: &mut Client, mail_from: &str, header: &str) -> String {
    begin(client, mail_from);
    assert!(client.say("DATA").starts_with("354"));
    client.say(&format!("{header}Subject: x\r\n\r\nHello\r\n."))
}

#[test]
fn forged_mail_is_refused_and_in_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let dns = dns();
    let server = start(dir.path(), &dns, &["listener.0.verify.except=friend.z.test, *.list.test"]);
    let mut client = server.client();
    client.ehlo();
    let mut refused = 0.0;
    let mut taken = Vec::new();
    for (mail_from, header, wanted) in [
        ("ann@x.test", "From: ann@x.test\r\n", "250"),
        ("", "From: ann@z.test\r\n", "550 5.7.26 Message rejected per DMARC policy of z.test"),
        // SPF passes, for another domain.
        (
            "l@list.test",
            "From: ann@z.test\r\n",
            "550 5.7.1 Message rejected per DMARC policy of z.test",
        ),
        ("l@list.test", "From: boss@ours.test\r\n", "550 5.7.1 From has a domain of this server"),
        ("ann@s.test", "From: ann@s.test\r\n", "550 5.7.23 SPF validation failed: s.test does"),
        ("ann@x.test", "From: ann@x.test\r\nFrom: ann@x.test\r\n", "550 5.7.1 From must be one"),
        // What DNS does not say refuses nothing.
        ("ann@silent.test", "From: ann@silent.test\r\n", "250"),
        // Excepted.
        ("l@list.test", "From: ann@friend.z.test\r\n", "250"),
        ("ann@x.test", "From: ann@x.test\r\n", "250"),
    ] {
        let said = send(&mut client, mail_from, header);
        assert!(said.starts_with(wanted), "{mail_from} {header}: {said}");
        match wanted {
            "250" => taken.push(id_of(&said)),
            _ => refused += 1.0,
        }
    }
    assert!(client.say("QUIT").starts_with("221"));
    let count = |name: &str, labels: &[&str]| server.metric(&format!("mailrace_{name}"), labels);
    let labels = ["class=\"5xx\"", "reason=\"verdict\""];
    assert_eq!(count("smtp_messages_rejected_total", &labels), refused);
    for (cause, times) in [("dmarc", 2.0), ("own_domain", 1.0), ("spf", 1.0), ("from", 1.0)] {
        let labels = [&*format!("cause=\"{cause}\"")];
        assert_eq!(count("policy_auth_rejected_total", &labels), times, "{cause}");
    }
    assert_eq!(count("policy_auth_unanswered_total", &[]), 0.0);
    server.says("SPF validation failed");
    // Each leaves what was said and of whom, and nothing of the mail.
    let kept = refusals(&server, 5);
    assert_eq!(kept.matches("\"stage\":\"message\"").count(), 5, "{kept}");
    assert!(kept.contains("Message rejected per DMARC policy of z.test"), "{kept}");
    assert!(kept.contains("\"mail_from\":\"l@list.test\"") && !kept.contains("boss@"), "{kept}");
    // What was taken is in the log with its verdict, and tagged; what was refused is nowhere.
    let listed = String::from_utf8(log_command(dir.path(), &["cat", "-f", "%{id}\\n"])).unwrap();
    assert_eq!(listed.lines().collect::<Vec<_>>(), taken);
    crate::record::judged(dir.path(), &taken[0]);
    let tagged = log_command(dir.path(), &["get", &taken[0], "--received"]);
    assert!(tagged.starts_with(b"Authentication-Results: ours.test;\r\n\tspf=pass"));
}

#[test]
fn what_is_not_known_in_time_is_taken_or_asked_for_again() {
    for (setting, wanted) in [("accept", "250"), ("tempfail", "451 4.7.0 The sender could not be")]
    {
        let dir = tempfile::tempdir().unwrap();
        let dns = dns();
        let on_timeout = format!("listener.0.verify.on_timeout={setting}");
        let settings = [on_timeout.as_str(), "listener.0.verify.deadline=10ms"];
        let server = start(dir.path(), &dns, &settings);
        let mut client = server.client();
        client.ehlo();
        let said = send(&mut client, "ann@silent.test", "From: ann@silent.test\r\n");
        assert!(said.starts_with(wanted), "{said}");
        assert_eq!(server.metric("mailrace_policy_auth_unanswered_total", &[]), 1.0);
        let transient = server.metric(
            "mailrace_smtp_messages_rejected_total",
            &["class=\"4xx\"", "reason=\"verdict\""],
        );
        assert_eq!(transient, f64::from(u8::from(setting == "tempfail")));
    }
}

/// Forwarders break what DMARC looks at.
#[test]
fn trusted_networks_are_not_judged_and_a_reload_says_who_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let dns = dns();
    let file = dir.path().join("mailrace.toml");
    let write = |trusted: &str| {
        std::fs::write(
            &file,
            format!(
                "[[listener]]\nname = \"mx\"\nlisten = [\"127.0.0.1:0\"]\n\
                 accept.domains = [\"ours.test\"]\nverify = {{ methods = [\"spf\", \"dmarc\"], \
                 mode = \"reject\", trusted = [{trusted}] }}\n"
            ),
        )
        .unwrap();
    };
    write("\"127.0.0.0/8\"");
    let server = Launch::new(&dir.path().join("data"))
        .file(&file)
        .set("server.shards=1")
        .set(&format!("server.dns.servers={}", dns.address))
        .start();
    let mut client = server.client();
    client.ehlo();
    assert!(send(&mut client, "ann@z.test", "From: ann@z.test\r\n").starts_with("250"));
    write("");
    signal(&server.child, libc::SIGHUP);
    eventually("the reload", Duration::from_secs(30), || {
        send(&mut client, "ann@z.test", "From: ann@z.test\r\n").starts_with("550 5.7.26")
    });
}

/// A signature over a mail that is larger than what is held of it in one place: all of it is judged.
#[test]
fn large_mail_is_judged_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/servers/dkimpy_sign.py");
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/python/bin/python");
    if !python.exists() {
        assert!(!in_ci(), "{} is missing", python.display());
        eprintln!("skipped: {} is missing", python.display());
        return;
    }
    let mail = dir.path().join("mail.eml");
    let mut file = std::fs::File::create(&mail).unwrap();
    write!(file, "From: ann@z.test\r\nSubject: large\r\n\r\n").unwrap();
    for line in 0..60_000 {
        write!(file, "{line:060}\r\n").unwrap();
    }
    drop(file);
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/verdict/tests/keys/rsa2048");
    let mut command = std::process::Command::new(&python);
    command.arg(script).arg(&mail).arg(key.with_extension("pem")).args(["z.test", "big"]);
    let signed = output_of(command).stdout;
    assert!(signed.starts_with(b"DKIM-Signature:") && signed.len() > 3_000_000);

    let mut zone = zone();
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    zone.txt("z.test", "v=spf1 -all").txt("_dmarc.z.test", "v=DMARC1; p=reject");
    zone.txt("big._domainkey.z.test", &format!("v=DKIM1; k=rsa; p={public}"));
    let dns = Responder::start(zone);
    let data = dir.path().join("data");
    let settings = ["listener.0.verify.reject=dmarc", "log.segment_size=16MiB"];
    let server = start(&data, &dns, &settings);
    let mut client = server.client();
    client.ehlo();
    let mut data = |octets: &[u8]| {
        begin(&mut client, "ann@z.test");
        assert!(client.say("DATA").starts_with("354"));
        client.send(&[&stuffed(octets)[..], b".\r\n"].concat());
        client.reply()
    };
    let said = data(&signed);
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(server.get(&id_of(&said)), signed);
    let mut broken = signed.clone();
    let at = broken.len() - 1_000_000;
    let digit = broken[at..].iter_mut().find(|octet| octet.is_ascii_digit()).unwrap();
    *digit ^= 1;
    let said = data(&broken);
    assert!(said.starts_with("550 5.7.26"), "{said}");
}
