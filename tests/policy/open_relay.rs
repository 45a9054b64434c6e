//! No form of address makes this server take mail for a domain that is not its own.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::{
    self, Client, Launch, Server, eventually, machine, servers::haproxy::Haproxy,
};

/// Nothing of it may be taken.
const FOREIGN: [&str; 33] = [
    "<u@foreign.example>",
    "<U@FOREIGN.EXAMPLE>",
    "<u@foreign.example.>",
    "<u@ours.example.foreign.example>",
    "<u@foreign.ours.example>",
    "<u@xours.example>",
    "<u@ours.examplex>",
    "<u@ours>",
    "<u@example>",
    "<@ours.example:u@foreign.example>",
    "<@ours.example,@ours.example:u@foreign.example>",
    "<@foreign.example,@ours.example:u@foreign.example>",
    "<u%ours.example@foreign.example>",
    "<ours.example!u@foreign.example>",
    "<@ours.example:ours.example!u@foreign.example>",
    "<\"u@ours.example\"@foreign.example>",
    "<\"@ours.example:u\"@foreign.example>",
    "<\"u\\@ours.example\"@foreign.example>",
    "<u@foreign.example@ours.example>",
    "<u@ours.example@foreign.example>",
    "<u@[127.0.0.1]>",
    "<u@[192.0.2.1]>",
    "<u@[IPv6:::1]>",
    "<u@[IPv6:2001:db8::1]>",
    "<u@127.0.0.1>",
    "<u@localhost>",
    "<foreign.example!u>",
    "<u%foreign.example>",
    "<\"u@foreign.example\">",
    "<u>",
    "<=?UTF-8?Q?u=40ours.example?=@foreign.example>",
    "<u@xn--oursexample-x.foreign.example>",
    "u@foreign.example",
];

/// The local part is opaque to us: whatever it looks like, this is mail for `ours.example`, and no
/// other host is derived from it.
const OURS: [(&str, &str); 15] = [
    ("<u@ours.example>", "u@ours.example"),
    ("<U@OURS.Example>", "U@OURS.Example"),
    ("<@foreign.example:u@ours.example>", "u@ours.example"),
    ("<@a.example,@b.example:u@ours.example>", "u@ours.example"),
    ("<u%foreign.example@ours.example>", "u%foreign.example@ours.example"),
    ("<u%a.example%b.example@ours.example>", "u%a.example%b.example@ours.example"),
    ("<foreign.example!u@ours.example>", "foreign.example!u@ours.example"),
    ("<foreign.example!u%b.example@ours.example>", "foreign.example!u%b.example@ours.example"),
    ("<\"u@foreign.example\"@ours.example>", "\"u@foreign.example\"@ours.example"),
    ("<\"u%foreign.example\"@ours.example>", "\"u%foreign.example\"@ours.example"),
    ("<\"foreign.example!u\"@ours.example>", "\"foreign.example!u\"@ours.example"),
    ("<\"<u@foreign.example>\"@ours.example>", "\"<u@foreign.example>\"@ours.example"),
    ("<u+foreign.example@ours.example>", "u+foreign.example@ours.example"),
    ("<Postmaster>", "Postmaster"),
    ("<postmaster@ours.example>", "postmaster@ours.example"),
];

#[test]
fn no_form_of_address_is_relayed() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["server.shards=1", "listener.0.accept.domains=ours.example"];
    let server = Server::start_with(dir.path(), &settings);
    // A session each: as many refusals in a row would end one.
    for form in FOREIGN {
        let mut client = server.client();
        client.ehlo();
        assert!(client.say("MAIL FROM:<a@client.example>").starts_with("250 "));
        let reply = client.say(&format!("RCPT TO:{form}"));
        let refused = reply.starts_with("550 5.7.1 ") || reply.starts_with("501 5.1.3 ");
        assert!(refused, "{form}: {reply}");
        // RFC 5321 §3.3: nothing is left to send to.
        let reply = client.say("DATA");
        assert!(reply.starts_with("554 5.5.1 "), "{form}: {reply}");
    }
    assert_eq!(support::verified(dir.path()), 0);

    let mut client = server.client();
    client.ehlo();
    for (form, kept) in OURS {
        deliver(&mut client, form);
        let id = support::id_of(&client.reply());
        let envelope = support::log_envelope(dir.path(), &id);
        assert_eq!(envelope["rcpt_to"], serde_json::json!([kept]), "{form}");
    }
}

/// A sender of our own domain is no more trusted than others: it proves nothing.
#[test]
fn our_own_domain_as_sender_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["server.shards=1", "listener.0.accept.domains=ours.example"];
    let server = Server::start_with(dir.path(), &settings);
    for sender in ["<u@ours.example>", "<>", "<postmaster@ours.example>", "<u@[127.0.0.1]>"] {
        let mut client = server.client();
        assert!(client.say("EHLO ours.example").starts_with("250-"));
        assert!(client.say(&format!("MAIL FROM:{sender}")).starts_with("250 "));
        let reply = client.say("RCPT TO:<u@foreign.example>");
        assert!(reply.starts_with("550 5.7.1 "), "{sender}: {reply}");
    }
}

#[track_caller]
fn deliver(client: &mut Client, forward_path: &str) {
    for line in ["MAIL FROM:<a@client.example>", &format!("RCPT TO:{forward_path}")] {
        let reply = client.say(line);
        assert!(reply.starts_with("250 "), "{line}: {reply}");
    }
    client.send(b"BDAT 4 LAST\r\nhi\r\n");
}

/// A listener on loopback with HAProxy before it: clients come from anywhere, so nothing but `accept`
/// keeps it from relaying for them.
#[test]
fn behind_haproxy_nothing_is_relayed() {
    let dir = tempfile::tempdir().unwrap();
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = format!(
        "[[export]]\nname = \"out\"\ntype = \"smtp\"\nserver = \"{}\"\n",
        sink.local_addr().unwrap()
    );
    let file = dir.path().join("mailrace.toml");
    let proxied = "[[listener]]\nname = \"mx\"\nlisten = [\"127.0.0.1:0\"]\n\
                   proxy_protocol = { mode = \"required\", trusted = [\"127.0.0.0/8\"] }\n";
    std::fs::write(&file, format!("{proxied}{relay}")).unwrap();
    for subcommand in ["check", "serve"] {
        let mut command = Command::new(support::MAILRACE);
        command.args([subcommand, "--set", "log.dir=data", "-c"]).arg(&file);
        command.args(["--set", "server.admin.listen=127.0.0.1:0"]).current_dir(dir.path());
        support::without_settings(&mut command);
        let output = support::output_of(command);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{told}");
        for word in
            ["listener.0.proxy_protocol.mode (", "mailrace.toml:4)", "listener.0.accept.domains"]
        {
            assert!(told.contains(word), "{word}: {told}");
        }
    }
    if !machine::has("haproxy") {
        return;
    }
    std::fs::write(&file, format!("{proxied}accept.domains = [\"ours.example\"]\n{relay}"))
        .unwrap();
    let server = Launch::new(&dir.path().join("data"))
        .file(&file)
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .start();
    let haproxy = Haproxy::start("", (server.smtp, "send-proxy-v2"), "");
    for form in FOREIGN {
        let mut client = Client::connect(haproxy.front);
        client.ehlo();
        assert!(client.say("MAIL FROM:<a@client.example>").starts_with("250 "));
        let reply = client.say(&format!("RCPT TO:{form}"));
        let refused = reply.starts_with("550 5.7.1 ") || reply.starts_with("501 5.1.3 ");
        assert!(refused, "{form}: {reply}");
        assert!(client.say("DATA").starts_with("554 5.5.1 "), "{form}");
    }
    assert_eq!(support::verified(&server.dir), 0);
    let mut client = Client::connect(haproxy.front);
    client.ehlo();
    deliver(&mut client, "<u@ours.example>");
    support::id_of(&client.reply());
}

/// A reload that takes `accept` away leaves the running server no open relay: where it listens
/// changes only with a restart.
#[test]
fn a_reload_opens_no_relay() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mailrace.toml");
    let text = "[[listener]]\nprotocol = \"smtp\"\nname = \"mx\"\nlisten = [\"0.0.0.0:0\"]\n";
    std::fs::write(&file, format!("{text}accept.domains = [\"ours.example\"]\n")).unwrap();
    let mut command = Command::new(support::MAILRACE);
    command.args(["serve", "-c"]).arg(&file).args(["--set", "log.dir=data"]);
    command.args(["--set", "server.admin.listen=127.0.0.1:0", "--set", "server.shards=1"]);
    let errors = dir.path().join("errors");
    support::without_settings(&mut command);
    command.current_dir(dir.path()).stdout(Stdio::piped());
    command.stderr(std::fs::File::create(&errors).unwrap());
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(machine::die_with_parent) };
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let smtp = lines.find_map(|line| {
        line.trim().strip_prefix("smtp ")?.split_whitespace().next().map(str::to_owned)
    });
    let port: SocketAddr = smtp.expect("it listens").parse().unwrap();
    let local = SocketAddr::from(([127, 0, 0, 1], port.port()));
    let foreign = |client: &mut Client| {
        client.ehlo();
        assert!(client.say("MAIL FROM:<a@client.example>").starts_with("250 "));
        client.say("RCPT TO:<u@foreign.example>")
    };
    assert!(foreign(&mut Client::connect(local)).starts_with("550 5.7.1 "));
    // Each is fine by itself: on loopback, or without mail.
    let new = [
        "[[listener]]\nname = \"mx\"\nlisten = [\"127.0.0.1:0\"]\n".to_owned(),
        text.replace("\"smtp\"", "\"refuse\""),
    ];
    for (count, new) in new.into_iter().enumerate() {
        std::fs::write(&file, new).unwrap();
        support::signal(&child, libc::SIGHUP);
        eventually("the reload is refused", Duration::from_secs(20), || {
            let told = std::fs::read_to_string(&errors).unwrap();
            told.matches("listens beyond loopback").count() == count + 1
        });
        assert!(foreign(&mut Client::connect(local)).starts_with("550 5.7.1 "));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
