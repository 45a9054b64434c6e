//! Mail data: collected, discarded, made into a record.

use std::mem;

use super::{
    Key, Services, client,
    commit::{Commit, Waiting},
    connection::{Collected, Dialogue, Large},
};
use crate::{
    log::{AppendError, Facts, Mail, MailFlag, UNDER_TLS},
    smtp::{Admission, MailFlags, Parameters, Protocol, Refusal, Session},
    stage, tls,
};

/// Octets of one message kept on the heap; the next go to a fragment buffer, which is block-aligned
/// and never returned to the system while mail flows.
const HEAP_MAIL_BYTES: usize = 16 * 1024;

/// A message whose first fragment buffer holds no more than this at its end becomes one inline
/// record: the copy costs less than a write of its own.
const INLINE_MAIL_BYTES: usize = 64 * 1024;

impl Commit {
    /// Copies what must outlive the receive buffer.
    pub(super) fn keep(&mut self, mail: &mut Collected, input: &[u8], spans: &mut Spans) {
        for &(start, end) in spans.list() {
            let lost = usize::from(stage::planted(stage::Bug::LastOctetsLost));
            self.keep_octets(mail, &input[start..end - lost]);
        }
        spans.clear();
    }

    /// Copies mail data.
    pub(super) fn keep_octets(&mut self, mail: &mut Collected, mut octets: &[u8]) {
        let before = mail.memory();
        if mail.filling().is_none() && mail.heap.len() + octets.len() <= HEAP_MAIL_BYTES {
            mail.heap.extend_from_slice(octets);
            octets = &[];
        }
        if !octets.is_empty() {
            let heap = mem::take(&mut mail.heap);
            for mut part in [heap.as_slice(), octets] {
                let large = mail.large.get_or_insert_default();
                while !part.is_empty() && large.failed.is_none() {
                    let buffer = large.filling.get_or_insert_with(|| self.appender.new_fragment());
                    let taken = buffer.push(part);
                    part = &part[taken..];
                    if buffer.is_full() {
                        if let Some(judged) = &mut large.judged {
                            judged.copy.extend_from_slice(buffer.data());
                        }
                        self.flush_fragment(large);
                    }
                }
            }
        }
        self.account(before, mail);
    }

    fn flush_fragment(&mut self, mail: &mut Large) {
        if let Some(fragment) = mail.filling.take() {
            match self.appender.append_fragment(fragment) {
                Ok(fragment) => {
                    if mail.fragments.is_empty() {
                        *self.unfinished.entry(fragment.segment).or_insert(0) += 1;
                    }
                    mail.fragments.push(fragment);
                }
                Err(error) => mail.failed = Some(error),
            }
        }
    }

    /// Forgets the message at hand.
    pub(super) fn discard(&mut self, mail: &mut Collected) {
        let before = mail.memory();
        if let Some(large) = mail.large.take() {
            if let Some(fragment) = large.filling {
                self.appender.recycle(fragment);
            }
            if let Some(first) = large.fragments.first()
                && let Some(count) = self.unfinished.get_mut(&first.segment)
            {
                *count -= 1;
                if *count == 0 {
                    self.unfinished.remove(&first.segment);
                }
            }
        }
        mail.clear();
        self.account(before, mail);
    }

    /// Forgets the message at hand and the memory kept for the next.
    pub(super) fn forget(&mut self, mail: &mut Collected) {
        self.discard(mail);
        let before = mail.memory();
        mail.heap = Vec::new();
        self.account(before, mail);
    }

    /// Brings the shard's sum up to date: a message held `before`, and holds something else now.
    pub(super) fn account(&mut self, before: u64, mail: &Collected) {
        self.collected_bytes = self.collected_bytes - before + mail.memory();
    }
}

impl Services {
    /// The message is complete: it becomes a record, its 250 is held.
    pub(super) fn end_of_mail(
        &mut self,
        key: Key,
        dialogue: &mut Dialogue,
        input: &[u8],
        spans: &mut Spans,
    ) {
        if dialogue.mail.large.as_ref().is_some_and(|large| large.outgrows_record()) {
            self.commit.keep(&mut dialogue.mail, input, spans);
            let before = dialogue.mail.memory();
            if let Some(large) = &mut dialogue.mail.large {
                self.commit.flush_fragment(large);
            }
            self.commit.account(before, &dialogue.mail);
        }
        let mut chunks: [&[u8]; Spans::MAX + 1] = [&[]; Spans::MAX + 1];
        // What a fragment buffer holds was on the heap first, so it is one or the other.
        chunks[0] = match dialogue.mail.filling() {
            Some(buffer) => buffer.data(),
            None => &dialogue.mail.heap,
        };
        for (chunk, &(start, end)) in chunks[1..].iter_mut().zip(spans.list()) {
            *chunk = &input[start..end];
        }
        let chunks = &chunks[..=spans.list().len()];

        let envelope = dialogue.session.envelope();
        let Commit { appender, packed, .. } = &mut self.commit;
        packed.clear();
        for path in envelope.forward_paths() {
            if !packed.is_empty() {
                packed.push('\n');
            }
            packed.push_str(path);
        }
        let listener = &self.listeners[dialogue.place()];
        let told = client::told(dialogue);
        let mail = Mail {
            mail_from: envelope.mail_from,
            rcpts: packed,
            helo: envelope.helo,
            client: dialogue.peer,
            received_at: appender.unix_micros(),
            listener: &listener.name,
            esmtp: envelope.esmtp,
            smtputf8: envelope.smtputf8,
            body_type: envelope.body as u8,
            flags: flags_of(&envelope.flags)
                | if dialogue.session.is_under_tls() { UNDER_TLS } else { 0 },
            size_declared: envelope.size_declared,
            facts: Facts {
                lmtp: listener.smtp.protocol == Protocol::Lmtp,
                auth_mechanism: auth_mechanism(&dialogue.session),
                auth_user: dialogue.session.auth_user().unwrap_or_default(),
                proxy: dialogue.proxy.as_ref().map(|proxied| proxied.peer),
                proxy_facts: &told,
                rdns: dialogue.advice.as_ref().map_or("", |advice| &advice.name),
                list_score: dialogue.advice.as_ref().map_or(0, |advice| advice.score),
                authserv_id: &listener.gate.authserv_id,
                submission: &listener.gate.submission,
                ..with_tls(
                    envelope.parameters.map(asked_for).unwrap_or_default(),
                    dialogue.tls.as_deref(),
                )
            },
        };
        let recipients = envelope.forward_path_count as u64;
        let bytes = envelope.bytes;
        let large = dialogue.mail.large.as_deref();
        let fragments = large.map_or(&[][..], |large| &large.fragments);
        let appended = match large.and_then(|large| large.failed) {
            Some(error) => Err(error),
            None => appender.append(&mail, chunks, fragments),
        };
        let appended = appended.map(|offset| (offset, appender.identity().record_id(offset)));
        match appended {
            Ok((offset, id)) => {
                // While the envelope is there.
                self.mail_received(dialogue);
                self.with_admission(dialogue, Admission::Open, |session, context| {
                    session.resolve_accepted(context, offset.get(), &id);
                });
                self.commit.hold(Waiting {
                    offset,
                    key,
                    listener: dialogue.listener,
                    ended: self.now,
                    began: dialogue.session.transaction_began(),
                    bytes,
                    recipients,
                    failed: false,
                });
            }
            Err(error) => {
                let refusal = match error {
                    AppendError::Full => Refusal::MemoryFull,
                    AppendError::NoSegment if self.commit.is_disk_full() => Refusal::DiskFull,
                    _ => Refusal::LogFailed,
                };
                self.with_admission(dialogue, Admission::Open, |session, context| {
                    session.resolve_refused(context, refusal);
                });
            }
        }
        spans.clear();
        self.commit.discard(&mut dialogue.mail);
    }
}

impl Large {
    /// Whether its octets stay in fragments, and the rest goes there, too.
    fn outgrows_record(&self) -> bool {
        let filled = self.filling.as_ref().map_or(0, |buffer| buffer.data().len());
        !self.fragments.is_empty() || filled > INLINE_MAIL_BYTES
    }
}

/// Ranges of the input at hand that belong to one message.
#[derive(Default)]
pub(super) struct Spans {
    at: [(usize, usize); Self::MAX],
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

/// Adds what the record says about TLS.
fn with_tls<'a>(facts: Facts<'a>, tls: Option<&'a tls::Facts>) -> Facts<'a> {
    let Some(tls) = tls else { return facts };
    Facts {
        tls_version: tls.version,
        tls_cipher: tls.cipher,
        tls_sni: tls.server_name.as_deref().unwrap_or_default(),
        tls_client: tls.client().unwrap_or_default(),
        ..facts
    }
}

/// How the client proved who it is; by a proxy's word, if that is all there is.
fn auth_mechanism(session: &Session) -> &'static str {
    match session.auth_mechanism() {
        Some(mechanism) => mechanism.name(),
        None if session.is_authenticated() => "XCLIENT",
        None => "",
    }
}

/// The parameters as the record has them.
fn asked_for(parameters: &Parameters) -> Facts<'_> {
    Facts {
        ret: parameters.ret.map_or(0, |ret| ret as u8),
        envid: &parameters.envid,
        submitter: &parameters.submitter,
        require_tls: parameters.require_tls,
        mt_priority: parameters.mt_priority,
        rcpt_params: &parameters.recipients,
        ..Facts::default()
    }
}

fn flags_of(flags: &MailFlags) -> u32 {
    MailFlag::EightBit.when(flags.eight_bit)
        | MailFlag::LongLine.when(flags.long_line)
        | MailFlag::BareLf.when(flags.bare_lf)
        | MailFlag::BareCr.when(flags.bare_cr)
        | MailFlag::Nul.when(flags.nul)
        | MailFlag::NoFinalCrlf.when(flags.no_final_crlf)
        | MailFlag::Chunked.when(flags.chunked)
        | MailFlag::ForeignAuthor.when(flags.foreign_author)
}
