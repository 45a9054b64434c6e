//! A record: one accepted message, envelope and mail data, as an rkyv archive.
//!
//! Schema version 1 is frozen: a released struct is never edited, a new one gets a new version and
//! a new entry kind.

use std::{fmt, mem::MaybeUninit, net::SocketAddr};

use rkyv::{
    Archive, Place, Serialize,
    api::low,
    rancor::{Error, Fallible},
    ser::{Positional, Writer, allocator::SubAllocator, writer::Buffer},
    string::{ArchivedString, StringResolver},
    vec::{ArchivedVec, VecResolver},
};

/// What is known of a message besides its mail data. Borrowed: nothing is copied on the way into
/// the log.
#[derive(Clone, Copy, Debug)]
pub struct Mail<'a> {
    /// Reverse-path without brackets; empty for the null reverse-path.
    pub mail_from: &'a str,
    /// Forward-paths without brackets, joined by LF (which no path can hold).
    pub rcpts: &'a str,
    /// Argument of HELO or EHLO.
    pub helo: &'a str,
    /// Where the connection came from.
    pub client: SocketAddr,
    /// Microseconds since 1970.
    pub received_at: i64,
    /// Name of the listener.
    pub listener: &'a str,
    /// EHLO was used.
    pub esmtp: bool,
    /// SMTPUTF8 was asked for (RFC 6531).
    pub smtputf8: bool,
    /// 0 7BIT, 1 8BITMIME, 2 BINARYMIME.
    pub body_type: u8,
    /// Facts about the mail data, a bit each.
    pub flags: u32,
    /// SIZE= of MAIL.
    pub size_declared: Option<u64>,
    /// What else is known of session and envelope.
    pub facts: Facts<'a>,
}

/// What is known of a session and an envelope besides what every message has. Empty for mail from
/// an unknown client in the clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// It came by LMTP (RFC 2033).
    pub lmtp: bool,
    /// TLS version and cipher suite by their IANA names; empty in the clear.
    pub tls_version: &'a str,
    /// See `tls_version`.
    pub tls_cipher: &'a str,
    /// Name the client asked for; empty: none.
    pub tls_sni: &'a str,
    /// Subject of the client's verified certificate; empty: none.
    pub tls_client: &'a str,
    /// SASL mechanism, or `XCLIENT` where a proxy says so; empty: the client did not authenticate.
    pub auth_mechanism: &'a str,
    /// Who it proved to be.
    pub auth_user: &'a str,
    /// The peer of the connection, where [`Mail::client`] was told by PROXY or XCLIENT.
    pub proxy: Option<SocketAddr>,
    /// What the proxy, or the peer that spoke XCLIENT or XFORWARD, told besides: `KEY=value` items
    /// joined by LF.
    pub proxy_facts: &'a str,
    /// Confirmed name of the client; empty: not looked up, or none.
    pub rdns: &'a str,
    /// Sum of the weights of DNS lists.
    pub list_score: i32,
    /// RET= of MAIL (RFC 3461 §4.3): 0 none, 1 FULL, 2 HDRS.
    pub ret: u8,
    /// ENVID= of MAIL, xtext decoded; empty: none.
    pub envid: &'a str,
    /// AUTH= of MAIL (RFC 4954 §5), xtext decoded; `<>` where it was so or not believed; empty:
    /// none.
    pub submitter: &'a str,
    /// REQUIRETLS of MAIL (RFC 8689).
    pub require_tls: bool,
    /// MT-PRIORITY= of MAIL (RFC 6710), -9 to 9.
    pub mt_priority: Option<i8>,
    /// For each forward-path `NOTIFY=` and `ORCPT=` as given, joined by LF; empty where no
    /// recipient has any.
    pub rcpt_params: &'a str,
}

/// The bit of [`Mail::flags`] that says the message came under TLS; the lower seven are facts about
/// its octets.
pub const UNDER_TLS: u32 = 1 << 7;

/// Where a part of a large message's mail data lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, rkyv::Deserialize)]
pub struct FragmentAt {
    /// Number of the segment.
    pub segment: u64,
    /// Of the entry, in the file.
    pub position: u64,
    /// Octets of mail data.
    pub bytes: u32,
    /// CRC-32C of them.
    pub crc: u32,
}

#[derive(Clone, Copy)]
struct BodyAt {
    position: usize,
    len: usize,
}

impl Archive for BodyAt {
    type Archived = ArchivedVec<u8>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(self.len, resolver, out);
    }
}

impl<S: Fallible + ?Sized> Serialize<S> for BodyAt {
    fn serialize(&self, _: &mut S) -> Result<VecResolver, S::Error> {
        Ok(VecResolver::from_pos(self.position))
    }
}

#[derive(Clone, Copy)]
struct Text<'a>(&'a str);

impl Archive for Text<'_> {
    type Archived = ArchivedString;
    type Resolver = StringResolver;

    fn resolve(&self, resolver: StringResolver, out: Place<Self::Archived>) {
        ArchivedString::resolve_from_str(self.0, resolver, out);
    }
}

impl<S: Fallible<Error: rkyv::rancor::Source> + Writer + ?Sized> Serialize<S> for Text<'_> {
    fn serialize(&self, serializer: &mut S) -> Result<StringResolver, S::Error> {
        ArchivedString::serialize_from_str(self.0, serializer)
    }
}

#[derive(Clone, Copy)]
struct Fragments<'a>(&'a [FragmentAt]);

impl Archive for Fragments<'_> {
    type Archived = ArchivedVec<ArchivedFragmentAt>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_slice(self.0, resolver, out);
    }
}

impl<S: Fallible + Writer + rkyv::ser::Allocator + ?Sized> Serialize<S> for Fragments<'_> {
    fn serialize(&self, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::serialize_from_slice(self.0, serializer)
    }
}

/// Schema version 1. The mail data comes first: validation wants what a record points to in field
/// order, and the mail data is written before the archive adopts it.
#[derive(Archive, Serialize)]
struct MailV1<'a> {
    body: BodyAt,
    fragments: Fragments<'a>,
    mail_from: Text<'a>,
    rcpts: Text<'a>,
    helo: Text<'a>,
    listener: Text<'a>,
    client_ip: [u8; 16],
    client_port: u16,
    received_at: i64,
    bytes: u64,
    size_declared: u64,
    flags: u32,
    esmtp: bool,
    smtputf8: bool,
    body_type: u8,
}

/// Octets that a record takes at most.
#[must_use]
pub fn archive_bytes_max(mail: &Mail<'_>, body: usize, fragments: usize) -> usize {
    let texts = mail.mail_from.len() + mail.rcpts.len() + mail.helo.len() + mail.listener.len();
    body + texts
        + fragments * size_of::<ArchivedFragmentAt>()
        + size_of::<ArchivedMailV1<'_>>()
        + 64
}

/// Serialises a record into `room`; returns its octets. The mail data is copied once, the rest is
/// a few tens of nanoseconds.
pub(super) fn write(
    mail: &Mail<'_>,
    body: &[&[u8]],
    fragments: &[FragmentAt],
    room: &mut [u8],
) -> Result<usize, Error> {
    let mut writer = Buffer::from(room);
    let position = writer.pos();
    let mut len = 0;
    for chunk in body {
        Writer::<Error>::write(&mut writer, chunk)?;
        len += chunk.len();
    }
    let client_ip = match mail.client.ip() {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(ip) => ip.octets(),
    };
    let in_fragments: u64 = fragments.iter().map(|fragment| u64::from(fragment.bytes)).sum();
    let record = MailV1 {
        body: BodyAt { position, len },
        fragments: Fragments(fragments),
        mail_from: Text(mail.mail_from),
        rcpts: Text(mail.rcpts),
        helo: Text(mail.helo),
        listener: Text(mail.listener),
        client_ip,
        client_port: mail.client.port(),
        received_at: mail.received_at,
        bytes: len as u64 + in_fragments,
        size_declared: mail.size_declared.unwrap_or(u64::MAX),
        flags: mail.flags,
        esmtp: mail.esmtp,
        smtputf8: mail.smtputf8,
        body_type: mail.body_type,
    };
    let mut scratch = [MaybeUninit::<u8>::uninit(); 1024];
    let written = low::to_bytes_in_with_alloc::<_, _, Error>(
        &record,
        writer,
        SubAllocator::new(&mut scratch),
    )?;
    Ok(written.len())
}

/// A record as read from the log, borrowed. Made only from octets whose checksum held.
#[derive(Clone, Copy)]
pub struct RecordView<'a> {
    archived: &'a ArchivedMailV1<'a>,
}

impl fmt::Debug for RecordView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordView({} octets from {})", self.bytes(), self.mail_from())
    }
}

impl<'a> RecordView<'a> {
    /// Looks at an archive; `None` where it is not a valid one.
    pub(super) fn new(archive: &'a [u8]) -> Option<Self> {
        rkyv::access::<ArchivedMailV1<'a>, Error>(archive).ok().map(|archived| Self { archived })
    }

    /// Mail data that lies in the record itself; behind the fragments.
    #[must_use]
    pub fn inline(&self) -> &'a [u8] {
        self.archived.body.as_slice()
    }

    /// Mail data that lies in the log ahead of the record.
    pub fn fragments(&self) -> impl Iterator<Item = FragmentAt> + 'a {
        self.archived.fragments.iter().map(|at| FragmentAt {
            segment: at.segment.to_native(),
            position: at.position.to_native(),
            bytes: at.bytes.to_native(),
            crc: at.crc.to_native(),
        })
    }

    /// Reverse-path; empty for the null one.
    #[must_use]
    pub fn mail_from(&self) -> &'a str {
        self.archived.mail_from.as_str()
    }

    /// Forward-paths.
    pub fn forward_paths(&self) -> impl Iterator<Item = &'a str> + 'a {
        self.archived.rcpts.as_str().split('\n')
    }

    /// Argument of HELO or EHLO.
    #[must_use]
    pub fn helo(&self) -> &'a str {
        self.archived.helo.as_str()
    }

    /// Name of the listener.
    #[must_use]
    pub fn listener(&self) -> &'a str {
        self.archived.listener.as_str()
    }

    /// Where the connection came from.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        let ip = std::net::Ipv6Addr::from(self.archived.client_ip).to_canonical();
        SocketAddr::new(ip, self.archived.client_port.to_native())
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn received_at(&self) -> i64 {
        self.archived.received_at.to_native()
    }

    /// Octets of mail data.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.archived.bytes.to_native()
    }

    /// SIZE= of MAIL.
    #[must_use]
    pub fn size_declared(&self) -> Option<u64> {
        Some(self.archived.size_declared.to_native()).filter(|&size| size != u64::MAX)
    }

    /// Facts about the mail data, a bit each.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.archived.flags.to_native()
    }

    /// It came under TLS. Programs that did not know this bit yet left it alone.
    #[must_use]
    pub fn under_tls(&self) -> bool {
        self.flags() & UNDER_TLS != 0
    }

    /// EHLO was used.
    #[must_use]
    pub fn esmtp(&self) -> bool {
        self.archived.esmtp
    }

    /// SMTPUTF8 was asked for.
    #[must_use]
    pub fn smtputf8(&self) -> bool {
        self.archived.smtputf8
    }

    /// 0 7BIT, 1 8BITMIME, 2 BINARYMIME.
    #[must_use]
    pub fn body_type(&self) -> u8 {
        self.archived.body_type
    }
}
