//! Mail that is judged before it is taken.

use super::*;
use crate::{
    policy::{Answer, Judgement, MessageQuestion},
    smtp::Rejection,
};

/// Clients of 198.51.100.0/24 are trusted.
fn gate() -> Gate {
    let trusted = Peers(Arc::new(|peer| peer.to_string().starts_with("198.51.100.")));
    Gate { judges: Some(trusted), ..Gate::default() }
}

fn bench() -> Bench {
    let mut bench = Bench::new(smtp::Config::default(), gate());
    bench.settle();
    bench
}

fn rejection() -> Judgement {
    let text = "No\r\n250 Ok".to_owned();
    Judgement::Reject(Rejection { code: 550, enhanced: "5.7.26", text })
}

impl Bench {
    fn settle(&mut self) {
        while !self.log_ops.is_empty() {
            self.log_op();
        }
    }

    fn opened(&mut self, address: &str) -> usize {
        let client = self.connect(address);
        self.say(client, "EHLO a\r\n");
        client
    }

    /// The only question that waits.
    fn question(&mut self) -> (Box<MessageQuestion>, Ticket) {
        assert_eq!(self.asked.len(), 1, "asked once");
        match self.asked.remove(0) {
            (Question::Message(message), ticket) => (message, ticket),
            (other, _) => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, number: u64, ticket: Ticket, judgement: Judgement) {
        ticket.answer(Answer::Message { number, judgement });
        self.turn();
    }

    /// Small buffers are kept for the next message.
    fn holds_no_mail(&self) -> bool {
        self.shard.services.commit.memory() <= 2048
    }

    fn accepted(&self) -> u64 {
        self.shard.services.commit.appender.log_end_offset().get()
    }
}

#[test]
fn a_message_is_taken_once_it_is_judged() {
    let mut bench = bench();
    let client = bench.opened("192.0.2.1");
    // What is pipelined after it waits, too.
    let said = bench.say(client, &format!("{MAIL}NOOP\r\n"));
    assert_eq!(said, "250 2.1.0 Sender ok\r\n250 2.1.5 Recipient ok\r\n");
    assert_eq!(bench.say(client, "NOOP\r\n"), "");
    let (message, ticket) = bench.question();
    assert_eq!((&*message.octets, &*message.mail_from, &*message.helo), (&b"hi"[..], "a@b", "a"));
    assert_eq!((&*message.listener, message.client.to_string()), ("mx", "192.0.2.1".to_owned()));
    assert_eq!(bench.accepted(), 0, "nothing of it is in the log");
    bench.answer(message.number, ticket, Judgement::Accept);
    bench.settle();
    let said = bench.take(client);
    assert!(said.starts_with("250 2.0.0 Ok: queued as "), "{said}");
    assert!(said.ends_with("250 2.0.0 Ok\r\n250 2.0.0 Ok\r\n"), "{said}");
    assert_eq!(bench.accepted(), 1);
}

#[test]
fn a_message_that_is_refused_is_in_no_log() {
    let mut bench = bench();
    let client = bench.opened("192.0.2.1");
    bench.say(client, MAIL);
    let (message, ticket) = bench.question();
    bench.answer(message.number, ticket, rejection());
    assert_eq!(
        bench.take(client),
        "550 5.7.26 No250 Ok\r\n",
        "one line, whatever the sender wrote"
    );
    bench.settle();
    assert_eq!(bench.accepted(), 0);
    assert!(bench.holds_no_mail());
    // The session goes on.
    bench.say(client, MAIL);
    let (message, ticket) = bench.question();
    bench.answer(message.number, ticket, Judgement::Accept);
    bench.settle();
    assert!(bench.take(client).starts_with("250 2.0.0 Ok: queued as "));
}

/// Nothing gets around the question: a message after a RSET, in the same octets, one without octets.
#[test]
fn every_message_is_asked_about() {
    let mut bench = bench();
    let client = bench.opened("192.0.2.1");
    let begun = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 2\r\nhiRSET\r\n";
    bench.say(client, &format!("{begun}{MAIL}"));
    let (message, ticket) = bench.question();
    assert_eq!(&*message.octets, b"hi");
    bench.answer(message.number, ticket, rejection());
    bench.say(client, "MAIL FROM:<>\r\nRCPT TO:<c@d>\r\nBDAT 0 LAST\r\n");
    let (message, _ticket) = bench.question();
    assert_eq!((&*message.octets, &*message.mail_from), (&b""[..], ""));
    assert_eq!(bench.accepted(), 0);
}

#[test]
fn trusted_clients_are_not_asked_about() {
    let mut bench = bench();
    let client = bench.opened("198.51.100.1");
    bench.say(client, MAIL);
    bench.settle();
    assert!(bench.asked.is_empty());
    assert!(bench.take(client).starts_with("250 2.0.0 Ok: queued as "));
}

/// However large it is, and though most of it has left for the log by then.
#[test]
fn the_question_has_all_octets() {
    for bytes in [2, 16 * 1024 + 1, 64 * 1024 + 1, 400_000] {
        let mut bench = bench();
        let client = bench.opened("192.0.2.1");
        let lines = (0..bytes / 60 + 1).map(|line| format!("{line:058}\r\n"));
        let mut body = lines.collect::<String>().into_bytes();
        body.truncate(bytes - 2);
        body.extend_from_slice(b"\r\n");
        bench.say(client, &format!("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT {bytes} LAST\r\n"));
        for piece in body.chunks(10_000) {
            bench.receive(client, piece);
            bench.settle();
        }
        let (message, ticket) = bench.question();
        assert!(message.octets == body, "{bytes}");
        let collected = bench.shard.services.commit.memory();
        assert!(collected >= bytes as u64, "what is lent counts: {collected}");
        bench.answer(message.number, ticket, Judgement::Accept);
        bench.settle();
        assert!(bench.take(client).ends_with("\r\n") && bench.accepted() == 1);
        assert!(bench.holds_no_mail());
    }
}

/// The wait has an end, and an answer that comes after it is no other message's.
#[test]
fn a_late_answer_meets_no_other_message() {
    let mut bench = bench();
    let client = bench.opened("192.0.2.1");
    bench.say(client, MAIL);
    let (message, ticket) = bench.question();
    bench.now += smtp::Config::default().limits.commit_wait;
    // Deadlines are looked at in slots.
    for _ in 0..100 {
        bench.turn();
    }
    let said = bench.take(client);
    assert!(said.starts_with("451 4.3.0"), "{said}");
    assert!(bench.holds_no_mail());
    bench.say(client, MAIL);
    let (second, _second_ticket) = bench.question();
    assert_ne!(message.number, second.number);
    bench.answer(message.number, ticket, Judgement::Accept);
    bench.settle();
    assert_eq!((bench.take(client), bench.accepted()), (String::new(), 0));
}

/// A client that has shut its side hears what became of its message; one that is gone leaves nothing.
#[test]
fn a_client_that_leaves_while_it_waits() {
    let mut bench = bench();
    let client = bench.opened("192.0.2.1");
    bench.say(client, MAIL);
    let (message, ticket) = bench.question();
    let key = bench.keys[client].take().expect("it is received from");
    bench.complete(Completion::Received { key, more: false, result: Ok(None) });
    bench.turn();
    assert!(bench.closed.is_empty());
    bench.answer(message.number, ticket, Judgement::Accept);
    bench.settle();
    assert!(bench.take(client).starts_with("250 2.0.0 Ok: queued as "));
    assert_eq!(bench.accepted(), 1);

    let client = bench.opened("192.0.2.2");
    bench.say(client, MAIL);
    let (message, ticket) = bench.question();
    bench.hang_up(client);
    bench.answer(message.number, ticket, Judgement::Accept);
    bench.settle();
    assert_eq!(bench.accepted(), 1, "nobody is owed a reply");
    assert!(bench.holds_no_mail());
}

#[test]
fn a_drain_waits_for_the_answer() {
    let mut bench = bench();
    let client = bench.opened("192.0.2.1");
    bench.say(client, MAIL);
    let (message, ticket) = bench.question();
    bench.shard.services.shared.ask_to_drain();
    bench.turn();
    assert!(!bench.shard.is_drained());
    bench.answer(message.number, ticket, Judgement::Accept);
    bench.settle();
    let said = bench.take(client);
    assert!(said.starts_with("250 2.0.0 Ok: queued as ") && said.contains("421 4.3.2"), "{said}");
}

/// Where the log refuses a fragment the rest is not collected: nobody judges a part. Found by the
/// simulator (seed 613).
#[test]
fn a_part_of_a_message_is_not_asked_about() {
    let mut bench = bench();
    bench.withholds = true;
    let client = bench.opened("192.0.2.1");
    let line = format!("{:062}\r\n", 7);
    let body = line.repeat(3 * SEGMENT as usize / line.len());
    let bytes = body.len();
    bench.say(client, &format!("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT {bytes} LAST\r\n"));
    for piece in body.as_bytes().chunks(16 * 1024) {
        bench.receive(client, piece);
        bench.settle();
        if bench.withheld.take().is_some() {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            bench.complete(Completion::Segment(Err(full)));
            bench.turn();
        }
    }
    let said = bench.take(client);
    assert!(said.starts_with("451 4.3.0") || said.starts_with("452 4.3.1"), "{said:?}");
    assert!(bench.asked.is_empty() && bench.holds_no_mail());
    assert_eq!(bench.accepted(), 0);
}
