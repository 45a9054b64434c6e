//! Octets through a session.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    Key, Shard,
    connection::{Connection, Phase},
    mail::Spans,
};
use crate::{
    metrics::CloseReason,
    smtp::{Event, Verb},
};

/// What became of one step of a session.
enum Stepped {
    More,
    Wait,
    Over(CloseReason),
}

impl Shard {
    /// Lets the session take what it can of `input`; returns how much that was.
    pub(super) fn serve(&mut self, key: Key, connection: &mut Connection, input: &[u8]) -> usize {
        let mut head = 0;
        // Ranges of `input` that belong to the message at hand and were not copied yet.
        let mut spans = Spans::default();
        loop {
            let rest = &input[head..];
            let listener = usize::from(connection.listener);
            let quits = self.counters.smtp[listener].commands[Verb::Quit as usize];
            // D17: a panic in one session's code closes that session, nobody else notices. The log
            // is outside of this border.
            let step = catch_unwind(AssertUnwindSafe(|| {
                self.with_session(connection, |session, context| {
                    session.handle_input(context, rest)
                })
            }));
            let Ok(step) = step else {
                tracing::error!(peer = %connection.peer, "a session panicked and was closed");
                self.broken(connection, CloseReason::IoError);
                return input.len();
            };
            self.note_auth_failure(connection);
            assert!(step.consumed <= rest.len(), "the session consumes what it was given");
            let at = head;
            head += step.consumed;
            let stepped = match step.event {
                Event::NeedInput => Stepped::Wait,
                Event::MailData(range) => {
                    if !spans.push(at + range.start, at + range.end) {
                        self.keep(connection, input, &mut spans);
                        spans.push(at + range.start, at + range.end);
                    }
                    Stepped::More
                }
                Event::MailDataStatic(octets) => {
                    self.keep(connection, input, &mut spans);
                    self.keep_octets(connection, octets);
                    Stepped::More
                }
                Event::EndOfMail => {
                    self.end_of_mail(key, connection, input, &mut spans);
                    Stepped::More
                }
                Event::Discard => {
                    spans.clear();
                    self.discard(connection);
                    Stepped::More
                }
                Event::Authenticate => {
                    // Asked at the end of the turn: this may be the middle of a TLS record.
                    self.asking.push(key);
                    Stepped::Wait
                }
                Event::StartTls => {
                    spans.clear();
                    self.discard(connection);
                    self.begin_tls(connection, true);
                    Stepped::Wait
                }
                Event::NewClient if self.new_client(key, connection) => Stepped::More,
                Event::NewClient => Stepped::Over(connection.reason),
                Event::Close => {
                    let now = self.counters.smtp[listener].commands[Verb::Quit as usize];
                    let quit = now > quits;
                    Stepped::Over(if quit { CloseReason::Quit } else { CloseReason::ErrorLimit })
                }
            };
            match stepped {
                Stepped::More => {}
                Stepped::Wait => break,
                Stepped::Over(reason) => {
                    spans.clear();
                    self.discard(connection);
                    connection.phase = Phase::Closing;
                    connection.reason = reason;
                    return input.len();
                }
            }
        }
        // The session stops reading commands itself at this bound.
        if connection.replies.unsent()
            >= self.listeners[usize::from(connection.listener)].smtp.limits.unsent_replies_bytes
        {
            self.pause(key, connection);
        }
        self.keep(connection, input, &mut spans);
        if self.holds_up(connection) {
            self.held_up = true;
            self.pause(key, connection);
        }
        head
    }

    pub(super) fn end_of_stream(&mut self, connection: &mut Connection) {
        if connection.phase != Phase::Open {
            if connection.phase == Phase::Lingering {
                connection.phase = Phase::Dead;
            }
            return;
        }
        self.with_session(connection, |session, context| session.handle_eof(context));
        self.discard(connection);
        // Half a close: what was complete is still answered, held replies included.
        connection.phase = Phase::Closing;
        connection.reason = CloseReason::ClientGone;
    }
}
