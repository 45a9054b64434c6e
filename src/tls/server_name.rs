//! Server names in TLS (SNI) that are not host names: `mx:25`, `[mx.example.org]`, `x\`, UTF-8,
//! octets of any kind. RFC 6066 §3 lets a server continue without a name it does not recognise, and
//! mail is better accepted under the default certificate than not at all. rustls ends such a
//! handshake with illegal_parameter, and offers no choice.
//!
//! So rustls does not get to see these names. Before it reads a ClientHello whose name it would
//! refuse, the extension gets another number, which is unknown and therefore ignored (RFC 8446
//! §4.1.2):
//!
//! ```text
//!   peer --hello--> hide: server_name -> HIDDEN --> rustls --> Restoring: HIDDEN -> server_name
//!                                                                 |
//!                                                                 v
//!                                          the transcript, as the peer has it (RFC 8446 §4.4.1)
//! ```
//!
//! Both sides hash what was sent, and finish only if their hashes are the same. So the provider's
//! hashes put the number back when they are given that hello. What is signed and verified is thus
//! exactly what the peer sent, and nothing but the name is left out of any decision.
//!
//! Two kinds are left alone, and refused by rustls as before: a hello that is cut into several
//! records, and under TLS 1.2 with client certificates the signature over the messages themselves.

use std::{cell::Cell, sync::LazyLock};

use rustls::{
    CipherSuite, CipherSuiteCommon, SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite,
    crypto::{
        aws_lc_rs,
        hash::{Context, Hash, HashAlgorithm, Output},
    },
    pki_types::ServerName,
};

/// Of the extension server_name (RFC 6066 §3).
const SERVER_NAME: u16 = 0;
/// In its place: for private use (RFC 8447 §7), so that IANA gives it to nobody.
const HIDDEN: u16 = 0xff5a;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const HOST_NAME: u8 = 0;
/// Octets of a record's header.
const RECORD_HEADER: usize = 5;
/// Octets of a message's header.
const MESSAGE_HEADER: usize = 4;

/// Takes the name out of the sight of rustls for one call, in the records of that call. Says whether
/// there was one to be taken.
pub(super) struct Hiding(bool);

impl Hiding {
    pub(super) fn begin(records: &mut [u8]) -> Self {
        let mut rest = records;
        while let Some((header, _)) = rest.split_first_chunk::<RECORD_HEADER>() {
            let &[kind, _, _, high, low] = header;
            let end = RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]));
            let Some((record, behind)) = rest.split_at_mut_checked(end) else { break };
            let message = record.get_mut(RECORD_HEADER..).unwrap_or_default();
            if kind == HANDSHAKE
                && let Some(at) = malformed_name(message)
                && let Some(number) = message.get_mut(at..at + 2)
            {
                number.copy_from_slice(&HIDDEN.to_be_bytes());
                HIDDEN_AT.set(Some(at));
                return Self(true);
            }
            rest = behind;
        }
        Self(false)
    }

    /// Whether a name was hidden.
    pub(super) fn hides(&self) -> bool {
        self.0
    }
}

impl Drop for Hiding {
    fn drop(&mut self) {
        HIDDEN_AT.set(None);
    }
}

thread_local! {
    /// Where in the hello that is being read the number stands.
    static HIDDEN_AT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Where the number of a server_name stands that rustls would refuse; `None`: there is none, or
/// this is no whole ClientHello (RFC 8446 §4.1.2).
fn malformed_name(message: &[u8]) -> Option<usize> {
    let mut hello = Octets { octets: message, at: 0 };
    let (CLIENT_HELLO, len) = (hello.number(1)? as u8, hello.number(3)?) else { return None };
    if len != message.len() - MESSAGE_HEADER {
        return None;
    }
    // Version and random; session, suites, compression.
    hello.skip(2 + 32)?;
    for width in [1, 2, 1] {
        let len = hello.number(width)?;
        hello.skip(len)?;
    }
    let extensions = hello.number(2)?;
    if hello.at + extensions != message.len() {
        return None;
    }
    let mut found = None;
    while hello.at < message.len() {
        let at = hello.at;
        let (number, len) = (hello.number(2)?, hello.number(2)?);
        let content = hello.skip(len)?;
        match u16::try_from(number).ok()? {
            // Twice is an error of its own.
            SERVER_NAME if found.is_some() => return None,
            SERVER_NAME => found = Some((at, is_taken(content))),
            HIDDEN => return None,
            _ => {}
        }
    }
    found.filter(|(_, taken)| !taken).map(|(at, _)| at)
}

/// Whether rustls takes this content of a server_name: one name, of a host or an address.
fn is_taken(content: &[u8]) -> bool {
    let mut list = Octets { octets: content, at: 0 };
    let mut name = || {
        if list.number(2)? != content.len() - 2 || list.number(1)? as u8 != HOST_NAME {
            return None;
        }
        let len = list.number(2)?;
        let name = list.skip(len)?;
        (list.at == content.len()).then_some(name)
    };
    name().is_some_and(|name| ServerName::try_from(name).is_ok())
}

struct Octets<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Octets<'a> {
    fn skip(&mut self, count: usize) -> Option<&'a [u8]> {
        let octets = self.octets.get(self.at..)?.get(..count)?;
        self.at += count;
        Some(octets)
    }

    /// A number of so many octets.
    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.skip(width)?.iter().fold(0, |number, octet| number << 8 | usize::from(*octet)))
    }
}

/// A hash of the provider that is fed a hello as the peer sent it.
struct Restoring(&'static dyn Hash);

impl Hash for Restoring {
    fn start(&self) -> Box<dyn Context> {
        Box::new(RestoringContext(self.0.start()))
    }

    fn hash(&self, data: &[u8]) -> Output {
        self.0.hash(data)
    }

    fn output_len(&self) -> usize {
        self.0.output_len()
    }

    fn algorithm(&self) -> HashAlgorithm {
        self.0.algorithm()
    }
}

struct RestoringContext(Box<dyn Context>);

impl Context for RestoringContext {
    fn fork_finish(&self) -> Output {
        self.0.fork_finish()
    }

    fn fork(&self) -> Box<dyn Context> {
        Box::new(Self(self.0.fork()))
    }

    fn finish(self: Box<Self>) -> Output {
        self.0.finish()
    }

    fn update(&mut self, data: &[u8]) {
        let hidden = HIDDEN_AT.get().filter(|_| data.first() == Some(&CLIENT_HELLO));
        match hidden.and_then(|at| Some((data.get(..at)?, data.get(at..at + 2)?, at + 2))) {
            Some((before, number, behind)) if number == HIDDEN.to_be_bytes() => {
                self.0.update(before);
                self.0.update(&SERVER_NAME.to_be_bytes());
                self.0.update(data.get(behind..).unwrap_or_default());
            }
            _ => self.0.update(data),
        }
    }
}

/// The suites of the provider, with hashes that restore. Made once for the process.
pub(super) fn cipher_suites() -> Vec<SupportedCipherSuite> {
    static SUITES: LazyLock<Vec<SupportedCipherSuite>> =
        LazyLock::new(|| aws_lc_rs::default_provider().cipher_suites.iter().map(wrapped).collect());
    SUITES.clone()
}

fn wrapped(suite: &SupportedCipherSuite) -> SupportedCipherSuite {
    let common = |common: &CipherSuiteCommon| CipherSuiteCommon {
        suite: CipherSuite::from(u16::from(common.suite)),
        hash_provider: Box::leak(Box::new(Restoring(common.hash_provider))),
        confidentiality_limit: common.confidentiality_limit,
    };
    match suite {
        SupportedCipherSuite::Tls13(suite) => {
            SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
                common: common(&suite.common),
                hkdf_provider: suite.hkdf_provider,
                aead_alg: suite.aead_alg,
                quic: suite.quic,
            })))
        }
        SupportedCipherSuite::Tls12(suite) => {
            SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
                common: common(&suite.common),
                prf_provider: suite.prf_provider,
                kx: suite.kx,
                sign: suite.sign,
                aead_alg: suite.aead_alg,
            })))
        }
    }
}
