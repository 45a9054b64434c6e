//! A record: one accepted message, envelope and mail data, as an rkyv archive.
//!
//! Schema versions are frozen: a released struct is never edited, a new one gets a new version and
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

use super::{
    facts::Facts,
    facts_v2::{self, ArchivedFactsV2, FactsV2, octets_of},
    frame::EntryKind,
    metadata::Metadata,
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

/// The bit of [`Mail::flags`] that says the message came under TLS; the others are [`super::MailFlag`]s.
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
pub(super) struct Text<'a>(pub(super) &'a str);

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

/// Schema version 2: one of version 1, and what few records have.
#[derive(Archive, Serialize)]
struct MailV2<'a> {
    mail: MailV1<'a>,
    facts: FactsV2<'a>,
}

/// The version that a record is written in: the first that has room for what is known.
pub(super) fn kind(mail: &Mail<'_>) -> EntryKind {
    match mail.facts.is_empty() {
        true => EntryKind::RecordV1,
        false => EntryKind::RecordV2,
    }
}

/// Octets that a record of that [`kind`] takes at most.
pub(super) fn archive_bytes_max(
    kind: EntryKind,
    mail: &Mail<'_>,
    body: usize,
    fragments: usize,
) -> usize {
    let texts = mail.mail_from.len() + mail.rcpts.len() + mail.helo.len() + mail.listener.len();
    let facts = match kind {
        EntryKind::RecordV2 => facts_v2::bytes_max(&mail.facts),
        _ => 0,
    };
    body + texts
        + facts
        + fragments * size_of::<ArchivedFragmentAt>()
        + size_of::<ArchivedMailV1<'_>>()
        + 64
}

/// Serialises a record of that [`kind`] into `room`; returns its octets. The mail data is copied once, the rest is
/// a few tens of nanoseconds.
pub(super) fn write(
    kind: EntryKind,
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
    let in_fragments: u64 = fragments.iter().map(|fragment| u64::from(fragment.bytes)).sum();
    let record = MailV1 {
        body: BodyAt { position, len },
        fragments: Fragments(fragments),
        mail_from: Text(mail.mail_from),
        rcpts: Text(mail.rcpts),
        helo: Text(mail.helo),
        listener: Text(mail.listener),
        client_ip: octets_of(mail.client.ip()),
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
    let scratch = SubAllocator::new(&mut scratch);
    let written = match kind {
        EntryKind::RecordV2 => {
            let record = MailV2 { mail: record, facts: FactsV2::new(&mail.facts) };
            low::to_bytes_in_with_alloc::<_, _, Error>(&record, writer, scratch)?
        }
        _ => low::to_bytes_in_with_alloc::<_, _, Error>(&record, writer, scratch)?,
    };
    Ok(written.len())
}

/// A record as read from the log, borrowed. Made only from octets whose checksum held.
#[derive(Clone, Copy)]
pub struct RecordView<'a> {
    archived: &'a ArchivedMailV1<'a>,
    facts: Option<&'a ArchivedFactsV2<'a>>,
    segment: u64,
}

impl fmt::Debug for RecordView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordView({} octets from {})", self.bytes(), self.mail_from())
    }
}

impl<'a> RecordView<'a> {
    /// Looks at an archive; `None` where it is not a valid one of this kind.
    pub(super) fn new(kind: EntryKind, archive: &'a [u8]) -> Option<Self> {
        match kind {
            EntryKind::RecordV1 => {
                let archived = rkyv::access::<ArchivedMailV1<'a>, Error>(archive).ok()?;
                Some(Self { archived, facts: None, segment: 0 })
            }
            EntryKind::RecordV2 => {
                let archived = rkyv::access::<ArchivedMailV2<'a>, Error>(archive).ok()?;
                Some(Self { archived: &archived.mail, facts: Some(&archived.facts), segment: 0 })
            }
            EntryKind::Fragment => None,
        }
    }

    /// Of a reader that knows which segment it reads.
    pub(super) fn in_segment(self, segment: u64) -> Self {
        Self { segment, ..self }
    }

    /// Number of the segment that holds the record; 0 where the reader does not know.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Mail data in the record itself; it follows the fragments.
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

    /// All of it that documents show, without paths and mail data.
    #[must_use]
    pub fn metadata(&self) -> Metadata<'a> {
        Metadata {
            helo: self.helo(),
            client: self.client(),
            esmtp: self.esmtp(),
            smtputf8: self.smtputf8(),
            body_type: self.body_type(),
            size_declared: self.size_declared(),
            facts: self.facts(),
            verdict: None,
            verdict_pending: false,
            results_renamed: 0,
        }
    }

    /// What else is known; nothing of records of version 1.
    #[must_use]
    pub fn facts(&self) -> Facts<'a> {
        self.facts.map_or_else(Facts::default, |facts| facts.read())
    }

    /// Each forward-path with its parameters of RFC 3461 as given, empty where it has none.
    pub fn recipients(&self) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        let params = self.facts().rcpt_params.split('\n').chain(std::iter::repeat(""));
        self.forward_paths().zip(params)
    }
}
