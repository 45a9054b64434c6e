//! What is counted under overload: more mail at once than the memory budget allows.

use std::{io::Write, thread};

use super::{Moves, Scrape, moved};

use crate::support::{self, Client, Launch, bulk, eventually, id_of};

pub const MOVES: Moves = &[
    (
        "shard_overload_seconds_total",
        "step",
        &["stress", "slow", "refuse_low", "refuse", "close_new", "stop_accepting"],
    ),
    ("shard_backpressure_seconds_total", "cause", &["memory"]),
    ("smtp_connections_refused_total", "reason", &["overload"]),
    ("smtp_messages_rejected_total", "reason", &["backpressure"]),
    ("smtp_replies_total", "code", &["451"]),
];

/// Forty messages of 100 KiB at once where 256 KiB are allowed: what one turn reads is beyond the
/// last step of the ladder.
#[test]
fn each_step_of_overload_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(dir.path())
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
        .set("limits.message_size=256KiB")
        .set("limits.inflight_bytes=256KiB")
        .set("limits.connections.total=1000")
        .set("limits.errors.soft=1000000")
        .set("limits.errors.hard=1000000")
        .set("limits.junk=1000000")
        .start();
    let before = Scrape::of(&server);
    let octets = support::stuffed(&bulk(1, (100 << 10) / 64));
    let mut bystander = server.client();
    bystander.ehlo();
    let senders = support::in_data(&server, 40);
    let writers: Vec<_> = senders
        .iter()
        .map(|client| {
            let (mut stream, octets) = (client.stream.get_ref().try_clone().unwrap(), &octets);
            let octets = octets.clone();
            thread::spawn(move || stream.write_all(&octets))
        })
        .collect();
    eventually("the budget is spent", super::WAIT, || {
        let reply = bystander.say("MAIL FROM:<a@client.test>");
        if reply.starts_with("250 ") {
            bystander.say("RSET");
        }
        reply.starts_with("452 4.3.1 ")
    });
    // They give up, and the ladder is climbed down step by step. Somebody asks meanwhile, and
    // somebody else comes.
    senders.into_iter().for_each(Client::reset);
    for writer in writers {
        // Those that were reset know it.
        let _ = writer.join().unwrap();
    }
    let mut taken = false;
    eventually("it is calm", super::WAIT * 2, || {
        drop(Client::open(server.smtp).try_reply());
        taken = taken || bystander.say("MAIL FROM:<a@client.test>").starts_with("250 ");
        server.errors().contains("less overload: calm")
    });
    moved(&server, &before, MOVES);
    let mut client = server.client();
    client.ehlo();
    id_of(&client.bdat(&bulk(2, 10)));
}
