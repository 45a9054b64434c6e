//! DATA and BDAT (RFC 5321 §4.1.1.4, RFC 3030 §2), and the mail data that follows them.

use super::super::chunking::{self, Chunk};
use super::super::data::{Offence, Piece};
use super::super::limits::{LineEnds, Protocol};
use super::super::reply::{self, Reply};
use super::super::transaction::BodyType;
use super::{Context, Event, Progress, Session, State};

impl Session {
    pub(super) fn data(&mut self, cx: &mut Context<'_>, argument: &[u8]) -> Option<Event> {
        let transaction = &self.transaction;
        let refused = if !argument.is_empty() {
            Some(reply::NO_ARGUMENT)
        } else if !transaction.open {
            Some(reply::MAIL_FIRST)
        } else if transaction.chunked {
            Some(reply::CHUNKING)
        } else if transaction.body == BodyType::BinaryMime {
            // RFC 3030 §3.
            Some(reply::BINARY_NEEDS_BDAT)
        } else if transaction.recipients() == 0 {
            // RFC 2920 §3.1: a client that sent DATA in the same group must not get a 354. RFC 2033
            // §4.2 wants 503.
            let lmtp = cx.config.protocol == Protocol::Lmtp;
            Some(if lmtp { reply::RCPT_FIRST } else { reply::NO_RECIPIENTS })
        } else {
            None
        };
        if let Some(reply) = refused {
            return self.refuse(cx, reply);
        }
        cx.push(reply::SEND_DATA);
        self.begin_block(cx, true);
        self.state = State::Data;
        None
    }

    pub(super) fn bdat(&mut self, cx: &mut Context<'_>, argument: &[u8]) -> Option<Event> {
        let parsed = str::from_utf8(argument).ok().and_then(chunking::parse);
        let Some(size) = parsed else {
            return Some(self.close_with(cx, reply::BAD_BDAT));
        };
        let out_of_order: Option<Reply> = if self.lacks_tls(cx) {
            Some(reply::NEEDS_TLS)
        } else if !self.transaction.open {
            Some(reply::MAIL_FIRST)
        } else if self.transaction.recipients() == 0 {
            Some(reply::RCPT_FIRST)
        } else {
            None
        };
        let limit = cx.config.limits.message_bytes;
        // What would be read only to be thrown away: at most as much again as a message may have.
        let total = if out_of_order.is_some() { limit } else { self.bytes };
        if total.saturating_add(size.bytes) > limit.saturating_mul(2) {
            cx.stats.count_rejected(552, Offence::Size.reason());
            return Some(self.close_with(cx, reply::TOO_BIG));
        }
        let first = self.chunks == 0;
        self.chunks = self.chunks.saturating_add(1);
        if self.chunks > cx.config.limits.bdat_chunks_max {
            return Some(self.close_421(cx, "4.7.0", "Too many chunks"));
        }
        if size.bytes == 0 && !size.last {
            self.junk += 1;
        }
        self.begin_block(cx, first);
        self.state = State::Chunk(Chunk { left: size.bytes, last: size.last, out_of_order });
        if out_of_order.is_some() {
            return None;
        }
        self.transaction.chunked = true;
        if self.bytes + size.bytes > limit {
            return self.offend(Offence::Size);
        }
        None
    }

    fn begin_block(&mut self, cx: &Context<'_>, first: bool) {
        if first {
            self.data_since_us = super::micros(cx.now);
        }
        self.block_since = cx.now;
        self.block_bytes = 0;
    }

    /// Notes that the message cannot be taken, and has the driver drop what it has of it.
    ///
    /// Which offence answers is judged at the end, where all of the message was seen: the answer
    /// must not hang on how it was cut. Size alone is final, for what is over it is not looked at.
    fn offend(&mut self, offence: Offence) -> Option<Event> {
        match offence {
            Offence::Size => self.offence = Some(offence),
            _ => _ = self.offence.get_or_insert(offence),
        }
        std::mem::take(&mut self.handed_out).then_some(Event::Discard)
    }

    pub(super) fn step_data(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Progress {
        let normalize = cx.config.line_ends == LineEnds::Normalize;
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            let (taken, piece) = self.reader.next(rest, true, normalize);
            self.block_bytes += taken as u64;
            let event = match piece {
                Piece::Nothing => None,
                Piece::Octets(count) => self.take(cx, rest.get(..count), used),
                Piece::Static(octets) => self.take_static(cx, octets),
                Piece::End => {
                    return (used + taken, self.finish(cx));
                }
            };
            used += taken;
            if event.is_some() {
                return (used, event);
            }
        }
        (used, Some(Event::NeedInput))
    }

    pub(super) fn step_chunk(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        mut chunk: Chunk,
    ) -> Progress {
        if chunk.left == 0 {
            return (0, self.finish_chunk(cx, chunk));
        }
        let here = usize::try_from(chunk.left).unwrap_or(usize::MAX).min(input.len());
        let Some(octets) = input.get(..here).filter(|octets| !octets.is_empty()) else {
            return (0, Some(Event::NeedInput));
        };
        let (taken, event) = if chunk.out_of_order.is_some() {
            (here, None)
        } else if self.offence == Some(Offence::Size) {
            self.bytes += here as u64;
            (here, None)
        } else if self.transaction.body == BodyType::BinaryMime {
            (here, self.take(cx, Some(octets), 0))
        } else {
            let normalize = cx.config.line_ends == LineEnds::Normalize;
            let (taken, piece) = self.reader.next(octets, false, normalize);
            let event = match piece {
                Piece::Octets(count) => self.take(cx, octets.get(..count), 0),
                Piece::Static(octets) => self.take_static(cx, octets),
                Piece::Nothing | Piece::End => None,
            };
            (taken, event)
        };
        self.block_bytes += taken as u64;
        chunk.left -= taken as u64;
        // The message may have grown over its limit by completed line ends, which closes.
        if !matches!(self.state, State::Closed(_)) {
            self.state = State::Chunk(chunk);
        }
        (taken, event)
    }

    /// Takes octets that lie at `at` in the input.
    fn take(&mut self, cx: &mut Context<'_>, octets: Option<&[u8]>, at: usize) -> Option<Event> {
        let octets = octets.unwrap_or_default();
        if self.offence != Some(Offence::Size) {
            self.header.feed(octets, cx.config.limits.header_scan_bytes);
            self.keep_head(cx, octets);
        }
        if let Some(event) = self.count(cx, octets.len()) {
            return event;
        }
        self.handed_out = true;
        Some(Event::MailData(at..at + octets.len()))
    }

    fn take_static(&mut self, cx: &mut Context<'_>, octets: &'static [u8]) -> Option<Event> {
        self.keep_head(cx, octets);
        if let Some(event) = self.count(cx, octets.len()) {
            return event;
        }
        self.handed_out = true;
        Some(Event::MailDataStatic(octets))
    }

    /// Counts octets of the message and judges it; `Some` when they are not to be handed out.
    fn count(&mut self, cx: &mut Context<'_>, count: usize) -> Option<Option<Event>> {
        let limits = &cx.config.limits;
        self.bytes += count as u64;
        if self.bytes > limits.message_bytes {
            // RFC 1870 §6.3 asks us to read on to the end; at most as much again.
            if self.bytes > limits.message_bytes.saturating_mul(2) {
                cx.stats.count_rejected(421, Offence::Size.reason());
                return Some(Some(self.close_421(cx, "4.7.0", "Message far too big")));
            }
            return Some(self.offend(Offence::Size));
        }
        if self.offence.is_some() {
            return Some(None);
        }
        let offence = self.judge(cx)?;
        Some(self.offend(offence))
    }

    /// Why the message seen so far cannot be taken.
    fn judge(&self, cx: &Context<'_>) -> Option<Offence> {
        if self.header.received() > cx.config.limits.received_max {
            return Some(Offence::Loop);
        }
        if self.transaction.body == BodyType::BinaryMime {
            return None;
        }
        self.reader.offence(cx.config)
    }

    fn finish_chunk(&mut self, cx: &mut Context<'_>, chunk: Chunk) -> Option<Event> {
        self.waiting_since = cx.now;
        if let Some(reply) = chunk.out_of_order {
            self.state = State::Command;
            self.refuse(cx, reply);
            return self.abort().or_else(|| self.check_patience(cx));
        }
        if chunk.last {
            return self.finish(cx);
        }
        self.state = State::Command;
        match self.offence {
            // RFC 3030 §2: once the message cannot be taken every further BDAT fails.
            Some(offence @ Offence::Size) => self.refuse(cx, offence.reply()),
            // Its content is judged as a whole, at LAST.
            _ => {
                cx.push(reply::CHUNK_OK);
                None
            }
        }
        .or_else(|| self.check_patience(cx))
    }

    /// The message is whole: asks for the verdict, or refuses it. Either way the final reply
    /// clears the transaction.
    fn finish(&mut self, cx: &mut Context<'_>) -> Option<Event> {
        self.waiting_since = cx.now;
        self.reader.finish();
        let size = self.offence.filter(|offence| *offence == Offence::Size);
        let offence = size.or_else(|| self.judge(cx)).or_else(|| self.judge_author(cx));
        let Some(offence) = offence else {
            self.state = State::Verdict { closing: false };
            return Some(Event::EndOfMail);
        };
        self.state = State::Command;
        let reply = offence.reply();
        cx.stats.count_rejected(reply.code(), offence.reason());
        if let Some(error) = offence.protocol_error() {
            cx.stats.count_error(error);
        }
        self.errors += 1;
        self.note_message(cx, reply);
        cx.push_times(reply, self.final_replies(cx.config));
        // The patience check waits until the driver has dropped the octets: `Close` says so too.
        self.abort().or_else(|| self.check_patience(cx))
    }
}
