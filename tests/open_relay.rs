//! No form of address makes this server take mail for a domain that is not its own.

// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Server};

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
    assert_eq!(common::verified(dir.path()), 0);

    let mut client = server.client();
    client.ehlo();
    for (form, kept) in OURS {
        deliver(&mut client, form);
        let id = common::id_of(&client.reply());
        let envelope = common::log_envelope(dir.path(), &id);
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
