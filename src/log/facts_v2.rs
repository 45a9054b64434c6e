//! Facts as they lie on disk.
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

use super::{
    facts::{Facts, TEXTS},
    record::Text,
};

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
    pub(super) fn new(facts: &'a Facts<'_>) -> Self {
        let mut texts = Texts { list: [TextV2 { kind: 0, text: Text("") }; TEXTS], len: 0 };
        let present = facts.texts().into_iter().filter(|fact| !fact.text.is_empty());
        for (place, fact) in texts.list.iter_mut().zip(present) {
            *place = TextV2 { kind: fact.number, text: Text(fact.text) };
            texts.len += 1;
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

/// Octets that facts take at most in a record that has any.
pub(super) fn bytes_max(facts: &Facts<'_>) -> usize {
    let texts: usize = facts.texts().iter().map(|fact| fact.text.len()).sum();
    texts + TEXTS * size_of::<ArchivedTextV2<'_>>() + size_of::<ArchivedFactsV2<'_>>()
}

/// An address as records hold it.
pub(super) fn octets_of(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}
