//! A peer hears its replies.

use super::{
    ledger::{Checked, Ledger},
    peer::{Expect, Flight, Peer, Say},
    random::Random,
};

impl Peer {
    pub(super) fn hear(
        &mut self,
        line: &[u8],
        ledger: &mut Ledger,
        random: &mut Random,
    ) -> Checked {
        let text = String::from_utf8_lossy(line);
        let code: u16 = text.get(..3).and_then(|code| code.parse().ok()).ok_or("no reply code")?;
        if text.as_bytes().get(3) == Some(&b'-') {
            return Ok(());
        }
        let queued = text.split_once("queued as ").map(|(_, id)| id.trim());
        let offset = match queued.and_then(|id| id.rsplit_once('-')) {
            Some((_, digits)) => {
                Some(u64::from_str_radix(digits, 16).map_err(|_| format!("no record id: {text}"))?)
            }
            None => None,
        };
        if code == 421 {
            self.closing = true;
            return Ok(());
        }
        let Some(expect) = self.expects.pop_front() else {
            return Err(format!("a reply to nothing: {text}"));
        };
        if offset.is_some() && !matches!(expect, Expect::Final(_)) {
            return Err(format!("replies out of order: {expect:?} was answered {text}"));
        }
        match expect {
            Expect::Greeting if code == 220 => {
                let verb = if self.style.lmtp { "LHLO" } else { "EHLO" };
                let line = format!("{verb} peer.test\r\n").into_bytes();
                self.queue(&line);
                self.expects.push_back(Expect::Hello);
            }
            Expect::Hello if code == 250 => self.greeted = true,
            Expect::Greeting | Expect::Hello => self.closing = true,
            Expect::Quit => {
                if code != 221 {
                    return Err(format!("QUIT was answered {text}"));
                }
            }
            Expect::Mail(attempt) if code != 250 => self.fail(attempt, code, ledger)?,
            Expect::Data(attempt) => match (code, self.flight(attempt)) {
                (354, Some(flight)) => flight.data = true,
                (354, None) => return Err(format!("DATA behind a refusal was answered {text}")),
                _ => self.fail(attempt, code, ledger)?,
            },
            Expect::Rcpt(attempt) if code == 250 => {
                if let Some(flight) = self.flight(attempt) {
                    flight.accepted += 1;
                }
            }
            Expect::Final(attempt) => self.answered(attempt, code, offset, ledger, random)?,
            Expect::Chunk(attempt) if code != 250 => self.fail(attempt, code, ledger)?,
            Expect::Mail(_) | Expect::Rcpt(_) | Expect::Chunk(_) => {}
        }
        Ok(())
    }

    fn flight(&mut self, attempt: usize) -> Option<&mut Flight> {
        self.flights.iter_mut().find(|flight| flight.attempt == attempt && !flight.failed)
    }

    /// A command before the end was refused: nothing comes of this attempt.
    fn fail(&mut self, attempt: usize, code: u16, ledger: &mut Ledger) -> Checked {
        let Some(flight) = self.flight(attempt) else { return Ok(()) };
        flight.failed = true;
        let mail = flight.mail;
        ledger.answered(attempt, code, None)?;
        // What was not said yet is left out.
        self.say.retain(|say| match say {
            Say::Line(
                _,
                Expect::Rcpt(of) | Expect::Data(of) | Expect::Chunk(of) | Expect::Final(of),
            ) => *of != attempt,
            Say::Content(of) => *of != attempt,
            Say::Line(..) => true,
        });
        let comes = |expect: &Expect| *expect == Expect::Final(attempt);
        if !self.expects.iter().any(comes) {
            self.flights.retain(|flight| flight.attempt != attempt);
            self.mails.push_back(mail);
        }
        Ok(())
    }

    /// A final reply; with LMTP there is one for each recipient, and all are the same.
    fn answered(
        &mut self,
        attempt: usize,
        code: u16,
        offset: Option<u64>,
        ledger: &mut Ledger,
        random: &mut Random,
    ) -> Checked {
        let lmtp = self.style.lmtp;
        let Some(flight) = self.flights.iter_mut().find(|flight| flight.attempt == attempt) else {
            return Err(format!("a final reply {code} to nothing"));
        };
        let mail = flight.mail;
        if flight.failed && code == 250 {
            return Err(format!("mail {mail} was refused, and is accepted"));
        }
        let (left, first) = match flight.finals {
            None => {
                let failed = flight.failed;
                let count = if lmtp && !failed { flight.accepted.max(1) } else { 1 };
                if !failed {
                    ledger.answered(attempt, code, offset)?;
                }
                (count, (code, offset))
            }
            Some((left, code, offset)) => (left, (code, offset)),
        };
        if first != (code, offset) {
            return Err(format!("LMTP: mail {mail} was answered {first:?} and {code} {offset:?}"));
        }
        if left > 1 {
            flight.finals = Some((left - 1, code, offset));
            self.expects.push_front(Expect::Final(attempt));
            return Ok(());
        }
        self.flights.retain(|flight| flight.attempt != attempt);
        if code != 250 {
            self.mails.push_back(mail);
            // It hangs up now and then, as clients do that are told to come again.
            self.leaving |= random.one_in(3);
        }
        Ok(())
    }
}
