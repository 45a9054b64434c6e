//! Facts that few records have: about TLS, authentication, the proxy, parameters of MAIL and RCPT.
//!
//! Records without any stay at schema version 1. Version 2 is version 1 followed by these facts; it
//! is frozen as well. Texts are a list of those present, so that a record pays only for what it
//! has. A reader skips kinds that it does not know.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use rkyv::{
    Archive, Place, Serialize,
    rancor::Fallible,
    ser::{Allocator, Writer},
    vec::{ArchivedVec, VecResolver},
};

use super::record::Text;

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
    /// The peer of the connection, if [`super::Mail::client`] came from PROXY or XCLIENT.
    pub proxy: Option<SocketAddr>,
    /// What else the proxy, or the peer that used XCLIENT or XFORWARD, said: `KEY=value` items
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

impl<'a> Facts<'a> {
    /// Whether nothing is known. Asked of every message, so by lengths and numbers alone: `==` would
    /// compare each empty text by a call of `memcmp`, at an address that is no memory, and with
    /// glibc's masked loads one such call takes 80 ns on some machines.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // All of them by name: a fact that is added and forgotten here would be lost.
        let Self {
            lmtp,
            tls_version,
            tls_cipher,
            tls_sni,
            tls_client,
            auth_mechanism,
            auth_user,
            proxy,
            proxy_facts,
            rdns,
            list_score,
            ret,
            envid,
            submitter,
            require_tls,
            mt_priority,
            rcpt_params,
        } = self;
        tls_version.is_empty()
            && tls_cipher.is_empty()
            && tls_sni.is_empty()
            && tls_client.is_empty()
            && auth_mechanism.is_empty()
            && auth_user.is_empty()
            && proxy_facts.is_empty()
            && rdns.is_empty()
            && envid.is_empty()
            && submitter.is_empty()
            && rcpt_params.is_empty()
            && proxy.is_none()
            && mt_priority.is_none()
            && *list_score == 0
            && *ret == 0
            && !*lmtp
            && !*require_tls
    }

    /// Texts by their numbers on disk, which are never given to another.
    fn texts(&self) -> [(u8, &'a str); TEXTS] {
        [
            (1, self.tls_version),
            (2, self.tls_cipher),
            (3, self.tls_sni),
            (4, self.tls_client),
            (5, self.auth_mechanism),
            (6, self.auth_user),
            (7, self.proxy_facts),
            (8, self.rdns),
            (9, self.envid),
            (10, self.submitter),
            (11, self.rcpt_params),
        ]
    }

    fn set(&mut self, kind: u8, text: &'a str) {
        let at = match kind {
            1 => &mut self.tls_version,
            2 => &mut self.tls_cipher,
            3 => &mut self.tls_sni,
            4 => &mut self.tls_client,
            5 => &mut self.auth_mechanism,
            6 => &mut self.auth_user,
            7 => &mut self.proxy_facts,
            8 => &mut self.rdns,
            9 => &mut self.envid,
            10 => &mut self.submitter,
            11 => &mut self.rcpt_params,
            _ => return,
        };
        *at = text;
    }

    /// Octets that they take at most in a record that has any.
    pub(super) fn bytes_max(&self) -> usize {
        let texts: usize = self.texts().iter().map(|(_, text)| text.len()).sum();
        texts + TEXTS * size_of::<ArchivedTextV2<'_>>() + size_of::<ArchivedFactsV2<'_>>()
    }
}

const TEXTS: usize = 11;

/// The facts of schema version 2.
#[derive(Archive, Serialize)]
pub(super) struct FactsV2<'a> {
    texts: Texts<'a>,
    /// Zeros: there is no proxy. IPv4 addresses are mapped.
    proxy_ip: [u8; 16],
    proxy_port: u16,
    list_score: i32,
    /// 1 LMTP, 2 REQUIRETLS.
    marks: u8,
    ret: u8,
    /// `NO_PRIORITY`: none.
    mt_priority: i8,
}

const LMTP: u8 = 1;
const REQUIRE_TLS: u8 = 2;
const NO_PRIORITY: i8 = i8::MIN;

#[derive(Clone, Copy, Archive, Serialize)]
struct TextV2<'a> {
    kind: u8,
    text: Text<'a>,
}

/// A list that needs no heap to be written.
struct Texts<'a> {
    list: [TextV2<'a>; TEXTS],
    len: usize,
}

impl<'a> Texts<'a> {
    fn list(&self) -> &[TextV2<'a>] {
        self.list.get(..self.len).unwrap_or_default()
    }
}

impl<'a> Archive for Texts<'a> {
    type Archived = ArchivedVec<ArchivedTextV2<'a>>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(self.len, resolver, out);
    }
}

impl<S> Serialize<S> for Texts<'_>
where
    S: Fallible<Error: rkyv::rancor::Source> + Writer + Allocator + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::serialize_from_slice(self.list(), serializer)
    }
}

impl<'a> FactsV2<'a> {
    pub(super) fn new(facts: &Facts<'a>) -> Self {
        let mut texts = Texts { list: [TextV2 { kind: 0, text: Text("") }; TEXTS], len: 0 };
        for (kind, text) in facts.texts() {
            if !text.is_empty() {
                texts.list[texts.len] = TextV2 { kind, text: Text(text) };
                texts.len += 1;
            }
        }
        Self {
            texts,
            proxy_ip: facts.proxy.map_or([0; 16], |proxy| octets_of(proxy.ip())),
            proxy_port: facts.proxy.map_or(0, |proxy| proxy.port()),
            list_score: facts.list_score,
            marks: if facts.lmtp { LMTP } else { 0 }
                | if facts.require_tls { REQUIRE_TLS } else { 0 },
            ret: facts.ret,
            mt_priority: facts.mt_priority.unwrap_or(NO_PRIORITY),
        }
    }
}

impl ArchivedFactsV2<'_> {
    pub(super) fn read(&self) -> Facts<'_> {
        let ip = Ipv6Addr::from(self.proxy_ip);
        let proxy = SocketAddr::new(ip.to_canonical(), self.proxy_port.to_native());
        let mut facts = Facts {
            lmtp: self.marks & LMTP != 0,
            proxy: (!ip.is_unspecified()).then_some(proxy),
            list_score: self.list_score.to_native(),
            ret: self.ret,
            require_tls: self.marks & REQUIRE_TLS != 0,
            mt_priority: Some(self.mt_priority).filter(|&priority| priority != NO_PRIORITY),
            ..Facts::default()
        };
        for text in self.texts.iter() {
            facts.set(text.kind, text.text.as_str());
        }
        facts
    }
}

/// An address as records hold it.
pub(super) fn octets_of(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}
