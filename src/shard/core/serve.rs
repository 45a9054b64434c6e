//! Passes octets through a session.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    Key,
    connection::{Dialogue, Link},
    intake::Upgrade,
    mail::Spans,
    services::{Services, reason_of},
};
use crate::{metrics::CloseReason, shard::flight::Kind, smtp::Event};

/// What became of octets that a session was served.
pub(super) struct Served {
    /// How many it took.
    pub(super) taken: usize,
    pub(super) upgrade: Upgrade,
}

/// What became of one step of a session.
enum Stepped {
    More,
    Wait,
    Upgrade,
    Over(CloseReason),
}

impl Services {
    /// Lets the session take what it can of `input`.
    pub(super) fn serve(
        &mut self,
        key: Key,
        link: &mut Link,
        dialogue: &mut Dialogue,
        input: &[u8],
    ) -> Served {
        let mut head = 0;
        let mut upgrade = Upgrade::No;
        // Ranges of `input` that belong to the message at hand and were not copied yet.
        let mut spans = Spans::default();
        loop {
            let rest = &input[head..];
            // D17: a panic in one session's code closes that session, nobody else notices. The log
            // is outside of this border.
            let step = catch_unwind(AssertUnwindSafe(|| {
                self.with_session(dialogue, |session, context| session.handle_input(context, rest))
            }));
            let Ok(step) = step else {
                tracing::error!(peer = %dialogue.peer, "a session panicked and was closed");
                self.record(Kind::Panicked, dialogue.number.get(), 0, 0);
                self.break_off(link, dialogue, CloseReason::IoError);
                return Served { taken: input.len(), upgrade };
            };
            self.note_auth_failure(dialogue);
            assert!(step.consumed <= rest.len(), "the session consumes what it was given");
            let at = head;
            head += step.consumed;
            let stepped = match step.event {
                Event::NeedInput => Stepped::Wait,
                Event::MailData(range) => {
                    self.begin_judging(dialogue);
                    let (start, end) = (at + range.start, at + range.end);
                    if !spans.push(start, end) {
                        self.commit.keep(&mut dialogue.mail, input, &mut spans);
                        spans.push(start, end);
                    }
                    Stepped::More
                }
                Event::MailDataStatic(octets) => {
                    self.begin_judging(dialogue);
                    self.commit.keep(&mut dialogue.mail, input, &mut spans);
                    self.commit.keep_octets(&mut dialogue.mail, octets);
                    Stepped::More
                }
                Event::EndOfMail => {
                    self.begin_judging(dialogue);
                    match dialogue.mail.is_to_be_judged() {
                        true => {
                            self.commit.keep(&mut dialogue.mail, input, &mut spans);
                            self.asking.push(key);
                            Stepped::Wait
                        }
                        false => {
                            self.end_of_mail(key, dialogue, input, &mut spans);
                            Stepped::More
                        }
                    }
                }
                Event::Discard => {
                    spans.clear();
                    self.commit.discard(&mut dialogue.mail);
                    Stepped::More
                }
                Event::Authenticate => {
                    // Asked at the end of the turn: this may be the middle of a TLS record.
                    self.asking.push(key);
                    Stepped::Wait
                }
                Event::StartTls => Stepped::Upgrade,
                Event::NewClient if self.new_client(key, link, dialogue) => Stepped::More,
                Event::NewClient => Stepped::Over(link.reason),
                Event::Close(ending) => Stepped::Over(reason_of(ending)),
            };
            match stepped {
                Stepped::More => {}
                Stepped::Wait => break,
                Stepped::Upgrade => {
                    spans.clear();
                    self.commit.discard(&mut dialogue.mail);
                    upgrade = Upgrade::Begins;
                    break;
                }
                Stepped::Over(reason) => {
                    spans.clear();
                    self.commit.discard(&mut dialogue.mail);
                    link.close(reason);
                    return Served { taken: input.len(), upgrade };
                }
            }
        }
        // The session stops reading commands itself at this bound.
        let limits = &self.listeners[dialogue.place()].smtp.limits;
        if dialogue.replies.unsent() >= limits.unsent_replies_bytes {
            self.pause(key, link);
        }
        self.commit.keep(&mut dialogue.mail, input, &mut spans);
        if self.holds_up(dialogue) {
            self.tuning.held_up = true;
            self.pause(key, link);
        }
        Served { taken: head, upgrade }
    }
}
