//! What is counted: messages through a session alone, records through an appender alone.

use std::{hint::black_box, time::Duration};

use mailrace_log::{Appender, Identity, Offset, Options, Spare};
use mailrace_smtp::{Config, Envelope, Session};

use crate::{
    log,
    smtp::testing::{Host, Peer},
};

/// All cases.
pub(crate) const NAMES: [&str; 6] = [
    "session/mail-rcpt-rset",
    "session/bdat-4k",
    "session/data-4k",
    "session/data-64k",
    "append/1k",
    "append/64k",
];

/// Runs a case.
///
/// # Errors
/// Where there is none of this name.
pub(crate) fn run(case: &str, messages: u64) -> Result<(), String> {
    let envelope = "MAIL FROM:<a@client.example>\r\nRCPT TO:<b@server.example>\r\n";
    let open = format!("{envelope}DATA\r\n");
    let data = |bytes| format!("{}.\r\n", text(bytes));
    match case {
        "session/mail-rcpt-rset" => session(messages, &[&format!("{envelope}RSET\r\n")], 0),
        "session/bdat-4k" => {
            session(messages, &[&format!("{envelope}BDAT 4096 LAST\r\n{}", text(4096))], 1);
        }
        "session/data-4k" => session(messages, &[&open, &data(4096)], 1),
        "session/data-64k" => session(messages, &[&open, &data(65_536)], 1),
        "append/1k" => append(messages, 1024),
        "append/64k" => append(messages, 65_536),
        _ => return Err(format!("there is no case {case}; there are {}", NAMES.join(", "))),
    }
    Ok(())
}

/// Lines of 64 octets.
fn text(bytes: usize) -> String {
    let line = "x".repeat(62) + "\r\n";
    line.repeat(bytes / line.len())
}

#[derive(Default)]
struct Counter(u64);

impl Host for Counter {
    type Id = u64;

    fn mail_data(&mut self, octets: &[u8]) {
        black_box(octets);
    }

    fn end_of_mail(&mut self, _: &Envelope<'_>) -> Option<(u64, u64)> {
        self.0 += 1;
        Some((self.0, self.0))
    }
}

/// So many times these turns, of which each time so many messages come.
fn session(times: u64, turns: &[&str], messages: u64) {
    let mut config = Config::default();
    config.limits.junk_max = u32::MAX;
    let session = Session::new(Duration::ZERO, true, &config);
    let mut peer = Peer::over(session, config, Counter::default());
    peer.run(b"EHLO client.example\r\n");
    for _ in 0..times {
        for turn in turns {
            peer.sent.clear();
            let consumed = peer.run(black_box(turn.as_bytes()));
            assert!(consumed == turn.len() && !peer.closed, "all is taken");
        }
    }
    assert_eq!(peer.host.0, times * messages);
}

/// So many records, four of them in a group.
fn append(records: u64, bytes: usize) {
    let identity = Identity { node: [1; 6], shard: 0 };
    let mut appender = Appender::new(identity, Options::default(), Offset::new(0));
    appender.handle_segment(Spare { number: 1, nonce: [1; 16], bytes: 1 << 30 });
    let body = text(bytes);
    for at in 0..records {
        let mail = log::testing::mail("mx");
        let taken = appender.append(&mail, &[black_box(body.as_bytes())], &[]);
        assert!(taken.is_ok(), "there is room");
        if at % 4 == 3 {
            log::testing::complete(&mut appender, |_, _, buffer| {
                black_box(buffer.octets());
            });
            while appender.poll_event().is_some() {}
        }
    }
    assert_eq!(appender.high_water_mark().get(), records / 4 * 4, "all are synced");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_runs() {
        for case in NAMES {
            run(case, 8).unwrap();
        }
        assert!(run("x", 1).is_err());
    }
}
