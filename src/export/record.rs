//! A record as sinks get it: owned, its mail data in one piece.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use mailrace_log::{
    self, FactsOf, Log, MailFlag, Metadata, ReadError, RecordId, RecordView, UNDER_TLS, Verdict,
};

/// One accepted message with its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its permanent name: the idempotency key.
    pub id: RecordId,
    /// Microseconds since 1970.
    pub received_at: i64,
    /// Name of the listener.
    pub listener: String,
    /// Reverse-path without brackets; empty for the null one.
    pub mail_from: String,
    /// Forward-paths without brackets, at least one.
    pub rcpt_to: Vec<String>,
    /// Argument of HELO or EHLO.
    pub helo: String,
    /// Where the connection came from.
    pub client: SocketAddr,
    /// EHLO was used.
    pub esmtp: bool,
    /// SMTPUTF8 was asked for.
    pub smtputf8: bool,
    /// 0 7BIT, 1 8BITMIME, 2 BINARYMIME.
    pub body_type: u8,
    /// SIZE= of MAIL.
    pub size_declared: Option<u64>,
    /// Facts about the mail data, a bit each.
    pub flags: u32,
    /// What few messages have.
    pub facts: Facts,
    /// Who sent it, where the exporter waits for that.
    pub verdict: Option<Box<Verdict>>,
    /// The verdict was waited for, and had not come.
    pub verdict_pending: bool,
    /// It was sent before, and is sent again because the group was moved back.
    pub replay: bool,
    /// The mail data, exact.
    pub data: Bytes,
}

impl Record {
    /// Takes over a record of the log; `data` is its mail data.
    #[must_use]
    pub fn new(id: RecordId, view: RecordView<'_>, data: Bytes) -> Self {
        Self {
            id,
            received_at: view.received_at(),
            listener: view.listener().to_owned(),
            mail_from: view.mail_from().to_owned(),
            rcpt_to: view.forward_paths().map(str::to_owned).collect(),
            helo: view.helo().to_owned(),
            client: view.client(),
            esmtp: view.esmtp(),
            smtputf8: view.smtputf8(),
            body_type: view.body_type(),
            size_declared: view.size_declared(),
            flags: view.flags(),
            facts: view.facts().owned(),
            verdict: None,
            verdict_pending: false,
            replay: false,
            data,
        }
    }

    /// Reads a record whole, its mail data put together.
    ///
    /// # Errors
    /// As [`Log::mail_data`].
    pub fn read(log: &Log, id: RecordId, view: RecordView<'_>) -> Result<Self, ReadError> {
        let mut data = BytesMut::new();
        append_data(log, id.shard, view, &mut data)?;
        Ok(Self::new(id, view, data.freeze()))
    }

    /// Domain of the first forward-path, in lower case; empty if it has none (`Postmaster`).
    #[must_use]
    pub fn rcpt_domain(&self) -> String {
        self.rcpt_to.first().map(|path| domain(path)).unwrap_or_default()
    }

    /// Names of what was noticed in the mail data.
    pub fn flag_names(&self) -> impl Iterator<Item = &'static str> {
        MailFlag::names(self.flags)
    }

    /// It came under TLS.
    #[must_use]
    pub fn under_tls(&self) -> bool {
        self.flags & UNDER_TLS != 0
    }

    /// What it says about the message, as the log's records do.
    #[must_use]
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata {
            helo: &self.helo,
            client: self.client,
            esmtp: self.esmtp,
            smtputf8: self.smtputf8,
            body_type: self.body_type,
            size_declared: self.size_declared,
            facts: self.facts.borrowed(),
            verdict: self.verdict.as_deref(),
            verdict_pending: self.verdict_pending,
            results_renamed: super::way_out::renamed(self),
        }
    }
}

/// [`mailrace_log::Facts`], owned.
pub type Facts = FactsOf<String>;

/// Appends the mail data of a record to `room`.
pub(super) fn append_data(
    log: &Log,
    shard: u16,
    view: RecordView<'_>,
    room: &mut BytesMut,
) -> Result<(), ReadError> {
    room.reserve(usize::try_from(view.bytes()).unwrap_or(0));
    log.mail_data(shard, view, |chunk| {
        room.extend_from_slice(chunk);
        Ok(())
    })
}

/// Domain of a mailbox, in lower case and without a dot at its end; empty where it has none.
#[must_use]
pub fn domain(mailbox: &str) -> String {
    let domain = mailbox.rsplit_once('@').map_or("", |(_, domain)| domain);
    domain.strip_suffix('.').unwrap_or(domain).to_lowercase()
}
