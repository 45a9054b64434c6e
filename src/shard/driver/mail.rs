//! Mail data: kept, discarded, made a record.

use std::{mem, time::SystemTime};

use super::{Driver, Waiting};
use crate::{
    log::{AppendError, Mail},
    shard::connection::{Collected, Connection, Key},
    smtp::{Admission, MailFlags, Refusal},
};

/// Octets of one message kept on the heap before the rest streams into the log as fragments.
const HEAP_MAIL_BYTES: usize = 256 * 1024;

impl Driver {
    /// Copies what must outlive the receive buffer.
    pub(super) fn keep(&mut self, connection: &mut Connection, input: &[u8], spans: &mut Spans) {
        for &(start, end) in spans.list() {
            self.keep_octets(connection, &input[start..end]);
        }
        spans.clear();
    }

    pub(super) fn keep_octets(&mut self, connection: &mut Connection, mut octets: &[u8]) {
        let mail = &mut connection.mail;
        let before = memory_of(mail);
        if mail.filling.is_none() && mail.heap.len() + octets.len() <= HEAP_MAIL_BYTES {
            mail.heap.extend_from_slice(octets);
            octets = &[];
        }
        if !octets.is_empty() {
            let heap = mem::take(&mut mail.heap);
            for mut part in [heap.as_slice(), octets] {
                while !part.is_empty() && !mail.failed {
                    let buffer = mail.filling.get_or_insert_with(|| self.appender.new_fragment());
                    let taken = buffer.push(part);
                    part = &part[taken..];
                    if buffer.is_full() {
                        let full = mail.filling.take().expect("it was just filled");
                        match self.appender.append_fragment(full) {
                            Ok(fragment) => mail.fragments.push(fragment),
                            Err(_) => mail.failed = true,
                        }
                    }
                }
            }
        }
        let after = memory_of(&connection.mail);
        self.collected_bytes = self.collected_bytes + after - before;
    }

    pub(super) fn discard(&mut self, connection: &mut Connection) {
        self.collected_bytes -= memory_of(&connection.mail);
        connection.mail.clear();
        self.collected_bytes += memory_of(&connection.mail);
    }

    /// The message is complete: it becomes a record, its 250 is held.
    pub(super) fn end_of_mail(
        &mut self,
        key: Key,
        connection: &mut Connection,
        input: &[u8],
        spans: &mut Spans,
    ) {
        if connection.mail.filling.is_some() {
            self.keep(connection, input, spans);
            if let Some(last) = connection.mail.filling.take()
                && !connection.mail.failed
            {
                match self.appender.append_fragment(last) {
                    Ok(fragment) => connection.mail.fragments.push(fragment),
                    Err(_) => connection.mail.failed = true,
                }
            }
        }
        let mut chunks: [&[u8]; Spans::MAX + 1] = [&[]; Spans::MAX + 1];
        chunks[0] = &connection.mail.heap;
        for (chunk, &(start, end)) in chunks[1..].iter_mut().zip(spans.list()) {
            *chunk = &input[start..end];
        }
        let chunks = &chunks[..=spans.list().len()];

        let envelope = connection.session.envelope();
        self.packed.clear();
        for path in envelope.forward_paths() {
            if !self.packed.is_empty() {
                self.packed.push('\n');
            }
            self.packed.push_str(path);
        }
        let mail = Mail {
            mail_from: envelope.mail_from,
            rcpts: &self.packed,
            helo: envelope.helo,
            client: connection.peer,
            received_at: unix_micros(),
            listener: &self.listeners[usize::from(connection.listener)].name,
            esmtp: envelope.esmtp,
            smtputf8: envelope.smtputf8,
            body_type: envelope.body as u8,
            flags: flags_of(&envelope.flags),
            size_declared: envelope.size_declared,
        };
        let recipients = envelope.forward_path_count as u64;
        let bytes = envelope.bytes;
        let appended = if connection.mail.failed {
            Err(AppendError::Failed)
        } else {
            self.appender.append(&mail, chunks, &connection.mail.fragments)
        };
        match appended {
            Ok(offset) => {
                let id = self.appender.identity().record_id(offset);
                self.with_admission(connection, Admission::Open, |session, context| {
                    session.resolve_accepted(context, offset.get(), &id);
                });
                self.waiting.push_back(Waiting {
                    offset,
                    key,
                    listener: connection.listener,
                    ended: self.now,
                    began: connection.mail_began,
                    bytes,
                    recipients,
                    failed: false,
                });
            }
            Err(error) => {
                let refusal = match error {
                    AppendError::Full => Refusal::MemoryFull,
                    AppendError::NoSegment if self.segments.disk_full() => Refusal::DiskFull,
                    _ => Refusal::LogFailed,
                };
                self.with_admission(connection, Admission::Open, |session, context| {
                    session.resolve_refused(context, refusal);
                });
            }
        }
        spans.clear();
        self.discard(connection);
    }
}

/// Ranges of the input at hand that belong to one message.
#[derive(Default)]
pub(super) struct Spans {
    at: [(usize, usize); Spans::MAX],
    len: usize,
}

impl Spans {
    /// A message in one read is one span, or one for each stuffed dot and pipelined chunk.
    const MAX: usize = 8;

    pub(super) fn push(&mut self, start: usize, end: usize) -> bool {
        if let Some(last) = self.at[..self.len].last_mut()
            && last.1 == start
        {
            last.1 = end;
            return true;
        }
        match self.at.get_mut(self.len) {
            Some(slot) => {
                *slot = (start, end);
                self.len += 1;
                true
            }
            None => false,
        }
    }

    pub(super) fn list(&self) -> &[(usize, usize)] {
        &self.at[..self.len]
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }
}

pub(super) fn memory_of(mail: &Collected) -> u64 {
    let filling = mail.filling.as_ref().map_or(0, |buffer| buffer.capacity());
    (mail.heap.capacity() + filling) as u64
}

fn flags_of(flags: &MailFlags) -> u32 {
    u32::from(flags.eight_bit)
        | u32::from(flags.long_line) << 1
        | u32::from(flags.bare_lf) << 2
        | u32::from(flags.bare_cr) << 3
        | u32::from(flags.nul) << 4
        | u32::from(flags.no_final_crlf) << 5
        | u32::from(flags.chunked) << 6
}

fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
