//! A record as sinks get it: owned, its mail data in one piece.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use super::xtext;
use mailrace_log::{self, Log, MailFlag, ReadError, RecordId, RecordView, UNDER_TLS};

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
            facts: Facts::new(&view.facts()),
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

    /// `7BIT`, `8BITMIME` or `BINARYMIME`.
    #[must_use]
    pub fn body(&self) -> &'static str {
        match self.body_type {
            0 => "7BIT",
            1 => "8BITMIME",
            _ => "BINARYMIME",
        }
    }
}

/// [`mailrace_log::Facts`], owned: what is empty or `None` is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// It came by LMTP.
    pub lmtp: bool,
    /// `TLSv1.3`
    pub tls_version: String,
    /// Cipher suite by its IANA name.
    pub tls_cipher: String,
    /// Name the client asked for.
    pub tls_sni: String,
    /// Subject of the client's verified certificate.
    pub tls_client: String,
    /// SASL mechanism.
    pub auth_mechanism: String,
    /// The user that logged in.
    pub auth_user: String,
    /// The proxy that the connection came through.
    pub proxy: Option<SocketAddr>,
    /// What else it said about the client: `KEY=value` items joined by LF.
    pub proxy_facts: String,
    /// Sum of the weights of DNS lists.
    pub list_score: i32,
    /// Confirmed name of the client.
    pub rdns: String,
    /// RET: 1 FULL, 2 HDRS.
    pub ret: u8,
    /// ENVID, decoded.
    pub envid: String,
    /// AUTH= of MAIL, decoded.
    pub submitter: String,
    /// REQUIRETLS was asked for.
    pub require_tls: bool,
    /// MT-PRIORITY, -9 to 9.
    pub mt_priority: Option<i8>,
    /// DSN parameters of each forward-path; empty where none has any.
    pub rcpt_params: Vec<RcptParams>,
}

/// Of RCPT (RFC 3461 §4.1, §4.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParams {
    /// NOTIFY: `NEVER`, or keywords joined by commas.
    pub notify: Option<String>,
    /// ORCPT, type and address joined by a semicolon, as given.
    pub orcpt: Option<String>,
}

impl Facts {
    fn new(facts: &mailrace_log::Facts<'_>) -> Self {
        if facts.is_empty() {
            return Self::default();
        }
        let params = facts.rcpt_params;
        let params = if params.is_empty() {
            Vec::new()
        } else {
            params.split('\n').map(RcptParams::new).collect()
        };
        Self {
            lmtp: facts.lmtp,
            tls_version: facts.tls_version.to_owned(),
            tls_cipher: facts.tls_cipher.to_owned(),
            tls_sni: facts.tls_sni.to_owned(),
            tls_client: facts.tls_client.to_owned(),
            auth_mechanism: facts.auth_mechanism.to_owned(),
            auth_user: facts.auth_user.to_owned(),
            proxy: facts.proxy,
            proxy_facts: facts.proxy_facts.to_owned(),
            list_score: facts.list_score,
            rdns: facts.rdns.to_owned(),
            ret: facts.ret,
            envid: facts.envid.to_owned(),
            submitter: facts.submitter.to_owned(),
            require_tls: facts.require_tls,
            mt_priority: facts.mt_priority,
            rcpt_params: params,
        }
    }

    /// What the proxy said, as name and value.
    pub fn proxy_facts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.proxy_facts.lines().map(|fact| fact.split_once('=').unwrap_or((fact, "")))
    }

    /// `FULL` or `HDRS`.
    #[must_use]
    pub fn ret_name(&self) -> Option<&'static str> {
        match self.ret {
            1 => Some("FULL"),
            2 => Some("HDRS"),
            _ => None,
        }
    }
}

impl RcptParams {
    fn new(given: &str) -> Self {
        let mut params = Self::default();
        for (name, value) in given.split(' ').filter_map(|param| param.split_once('=')) {
            if name.eq_ignore_ascii_case("NOTIFY") {
                params.notify = Some(value.to_ascii_uppercase());
            } else if name.eq_ignore_ascii_case("ORCPT") {
                params.orcpt = Some(value.to_owned());
            }
        }
        params
    }

    /// ORCPT with its xtext decoded.
    #[must_use]
    pub fn orcpt_text(&self) -> Option<String> {
        let given = self.orcpt.as_deref()?;
        Some(xtext::decode(given).unwrap_or_else(|| given.to_owned()))
    }
}

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
