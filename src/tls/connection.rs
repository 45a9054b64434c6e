//! One connection's TLS: octets in, octets out.

use std::{fmt, mem, rc::Rc, sync::Arc};

use rustls::{
    CipherSuite, HandshakeKind, ProtocolVersion, ServerConfig,
    server::UnbufferedServerConnection,
    unbuffered::{
        ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
        UnbufferedStatus, WriteTraffic,
    },
};

use super::{Config, callbacks, client::Client, server_name::Hiding, suites::puts_chacha_first};

/// Octets of a record's header: type, version, length.
const HEADER_BYTES: usize = 5;

/// Octets a record may have after its header: 16 KiB and what TLS 1.2 may add (RFC 5246 §6.2.3).
const RECORD_BYTES_MAX: usize = (16 << 10) + 2048;

/// Octets kept for a handshake message that comes in many records. rustls takes no message over
/// 64 KiB; each octet in a record of its own is not how anybody sends one.
const KEPT_BYTES_MAX: usize = 128 << 10;

/// Plaintext in one record.
const PLAIN_BYTES: usize = 16 << 10;

/// Header, tag and explicit nonce of a record, rounded up.
const OVERHEAD_BYTES: usize = 64;

/// Why a connection cannot go on; for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub(super) String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// A fatal alert (RFC 6066 §3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// What was agreed on. Outlives nothing but its connection, on its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// Name in IANA's registry.
    pub cipher: &'static str,
    /// The name that the client asked for (SNI).
    pub server_name: Option<Box<str>>,
    /// The protocol that the client named (ALPN).
    pub protocol: Option<Box<str>>,
    /// By a ticket of an earlier connection.
    pub resumed: bool,
    client: Option<Box<Client>>,
    binding: Option<[u8; 32]>,
}

impl Facts {
    /// Subject of the client's verified certificate (RFC 4514).
    pub fn client(&self) -> Option<&str> {
        self.client.as_ref().map(|client| &*client.subject)
    }

    /// Whom the client's verified certificate stands for: its first mailbox, else its first host,
    /// else its common name. The identity of EXTERNAL (RFC 4422 §A).
    pub fn client_subject(&self) -> Option<&str> {
        self.client.as_ref()?.identity.as_deref()
    }

    /// `tls-exporter` (RFC 9266), of TLS 1.3 alone: of TLS 1.2 it would need an extended master
    /// secret, which not every client has.
    pub fn channel_binding(&self) -> Option<[u8; 32]> {
        self.binding
    }
}

/// See the module's page. Lives as long as its connection, on its shard.
///
/// ```text
///   kept: [ records that are whole, but not their message | beginning of a record ]
///                                                   whole ^
/// ```
pub struct Tls {
    connection: UnbufferedServerConnection,
    /// Of its listener, for clients that put ChaCha20-Poly1305 first; `None` once the hello is there.
    chacha: Option<Arc<ServerConfig>>,
    /// What could not be taken yet; holds memory while a record is incomplete.
    kept: Vec<u8>,
    /// Invariant: `whole <= kept.len()`, at the border of a record.
    whole: usize,
    pending: Vec<u8>,
    name: Option<Box<str>>,
    binding: Option<[u8; 32]>,
    /// Made once, at the end of the handshake.
    facts: Option<Rc<Facts>>,
    /// A name that is none is refused.
    wants_known_name: bool,
    /// The client asked for one that is none.
    malformed_name: bool,
    closed_by_peer: bool,
    failed: bool,
}

impl Tls {
    /// The server's side of a connection from its first octet of TLS on.
    ///
    /// # Errors
    /// The provider has no random numbers.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config.server.clone())?,
            chacha: Some(config.server_chacha.clone()),
            kept: Vec::new(),
            whole: 0,
            pending: Vec::new(),
            name: None,
            binding: None,
            facts: None,
            wants_known_name: config.wants_known_name(),
            malformed_name: false,
            closed_by_peer: false,
            failed: false,
        })
    }

    /// Takes octets from the peer, which are decrypted in place, and passes on plaintext together
    /// with the result of the handshake before it.
    ///
    /// Check [`Tls::pending_bytes`] afterwards. Octets after a close_notify are not looked at.
    ///
    /// # Errors
    /// The handshake failed or a record is not authentic: nothing more is read or written except
    /// the pending alert.
    pub fn feed(
        &mut self,
        octets: &mut [u8],
        mut take: impl FnMut(&Rc<Facts>, &[u8]),
    ) -> Result<(), Error> {
        let mut rest = octets;
        while !rest.is_empty() && !self.closed_by_peer && !self.failed {
            if self.kept.is_empty() {
                let (records, beginning) = rest.split_at_mut(whole_records(rest));
                let used = self.process(records, &mut take)?;
                let records = records.get(used..).unwrap_or_default();
                if !(records.is_empty() && beginning.is_empty()) {
                    // Room for the whole record at once: its end is not to move its beginning. Full
                    // records are larger than receive buffers, so this is every record of bulk.
                    let record = match record_bytes(beginning) {
                        Record::Whole(bytes) => bytes,
                        Record::Unknown | Record::Bad => beginning.len(),
                    };
                    self.kept.reserve_exact(records.len() + record);
                    self.kept.extend_from_slice(records);
                    self.whole = self.kept.len();
                    self.kept.extend_from_slice(beginning);
                }
                break;
            }
            let missing = self.missing();
            self.kept.reserve(missing);
            let count = missing.min(rest.len());
            let (head, tail) = rest.split_at_mut(count);
            self.kept.extend_from_slice(head);
            rest = tail;
            if self.missing() == 0 {
                let mut kept = mem::take(&mut self.kept);
                self.whole = 0;
                let used = self.process(&mut kept, &mut take)?;
                kept.drain(..used.min(kept.len()));
                self.whole = kept.len();
                // Memory is held only while it is needed.
                self.kept = if kept.is_empty() { Vec::new() } else { kept };
            }
        }
        if self.kept.len() > KEPT_BYTES_MAX {
            self.fail();
            return Err(Error("a message in too many records".to_owned()));
        }
        if self.closed_by_peer {
            self.fail_reading();
        }
        Ok(())
    }

    /// Octets that go to the peer ahead of anything else: handshake, alert, key update.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Moves these octets to the end of `into`.
    pub fn take_pending(&mut self, into: &mut Vec<u8>) {
        // Their memory goes along: an established connection keeps none.
        into.extend_from_slice(&mem::take(&mut self.pending));
    }

    /// Whether the handshake is over and nothing has failed: the client is who began it, and
    /// plaintext may go either way.
    pub fn is_established(&self) -> bool {
        !self.failed && !self.connection.is_handshaking()
    }

    /// Whether a close_notify has come: what was received is all there was. An end of the stream
    /// without it is a truncation, by the peer or by others (RFC 8446 §6.1).
    pub fn is_closed_by_peer(&self) -> bool {
        self.closed_by_peer
    }

    /// Appends `plain` to `into`, encrypted, after what is [pending](Tls::pending_bytes).
    ///
    /// # Errors
    /// The handshake is not over, the connection has failed, or its keys are used up.
    pub fn encrypt(&mut self, plain: &[u8], into: &mut Vec<u8>) -> Result<(), Error> {
        let room = plain.len() + (plain.len() / PLAIN_BYTES + 1) * OVERHEAD_BYTES;
        self.write(into, room, |traffic, out| traffic.encrypt(plain, out))
    }

    /// Appends a close_notify to `into`; the last that is said.
    ///
    /// # Errors
    /// As [`Tls::encrypt`].
    pub fn close_notify(&mut self, into: &mut Vec<u8>) -> Result<(), Error> {
        self.write(into, OVERHEAD_BYTES, |traffic, out| traffic.queue_close_notify(out))
    }

    /// What was agreed on; `None` before the end of the handshake.
    pub fn facts(&self) -> Option<&Rc<Facts>> {
        self.facts.as_ref()
    }

    /// Whether the client asked for a name that is none, which is as good as none: it is shown the
    /// default certificate, or turned away where a known name is demanded.
    pub fn has_malformed_name(&self) -> bool {
        self.malformed_name
    }

    /// See [`Facts::client_subject`].
    pub fn client_subject(&self) -> Option<&str> {
        self.facts.as_ref()?.client_subject()
    }

    /// See [`Facts::channel_binding`].
    pub fn channel_binding(&self) -> Option<[u8; 32]> {
        self.facts.as_ref()?.channel_binding()
    }

    /// Octets of this connection on the heap, rustls' own callbacks.
    pub fn kept_bytes(&self) -> usize {
        self.kept.capacity() + self.pending.capacity()
    }

    /// Octets to the end of the record that begins in `kept`, or to the end of its header.
    fn missing(&self) -> usize {
        let record = self.kept.get(self.whole..).unwrap_or_default();
        match record_bytes(record) {
            Record::Whole(bytes) => bytes.saturating_sub(record.len()),
            Record::Unknown => HEADER_BYTES - record.len(),
            Record::Bad => 0,
        }
    }

    /// Has rustls take whole records; says how many octets of them are done with.
    fn process(
        &mut self,
        records: &mut [u8],
        take: &mut impl FnMut(&Rc<Facts>, &[u8]),
    ) -> Result<usize, Error> {
        if records.is_empty() {
            return Ok(0);
        }
        if let Some(chacha) = self.chacha.take()
            && puts_chacha_first(records)
        {
            self.connection = UnbufferedServerConnection::new(chacha)?;
        }
        let handshaking = self.connection.is_handshaking();
        let hiding = handshaking.then(|| Hiding::begin(records));
        if hiding.as_ref().is_some_and(Hiding::hides) {
            self.malformed_name = true;
            if self.wants_known_name {
                self.pending = UNRECOGNIZED_NAME.into();
                self.fail();
                return Err(Error("the server name asked for (SNI) is not a name".to_owned()));
            }
        }
        let mut used = 0;
        let result = loop {
            let rest = records.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(rest);
            used += discard;
            match state {
                // It keeps what is not taken, and is asked again.
                Ok(ConnectionState::ReadTraffic(_)) if self.facts.is_none() => {
                    self.facts = self.agreed().map(Rc::new);
                    if self.facts.is_none() {
                        break Err(Error("data ahead of the end of the handshake".to_owned()));
                    }
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    let facts = self.facts.as_ref().expect("made above, and never taken");
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                used += record.discard;
                                take(facts, record.payload);
                            }
                            Err(_) => break,
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.pending),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.closed_by_peer = true,
                Ok(ConnectionState::Closed) => {
                    self.closed_by_peer = true;
                    break Ok(used);
                }
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => {
                    break Ok(used);
                }
                Ok(_) => break Err(Error("early data, which was not offered".to_owned())),
                Err(error) => break Err(error.into()),
            }
        };
        drop(hiding);
        if handshaking {
            self.take_aside();
            if self.facts.is_none() && !self.connection.is_handshaking() {
                self.facts = self.agreed().map(Rc::new);
            }
        }
        if result.is_err() {
            self.alert();
            if callbacks::take_refusal() {
                // rustls has but access_denied for it.
                self.pending = UNRECOGNIZED_NAME.into();
            }
            self.fail();
        }
        result
    }

    /// What callbacks of rustls left on this thread in the call just made.
    fn take_aside(&mut self) {
        if let Some(name) = callbacks::take_name() {
            self.name = Some(name);
        }
        if let Some(binding) = callbacks::take_binding() {
            self.binding = Some(binding);
        }
    }

    /// What was agreed on, once the handshake is over.
    fn agreed(&mut self) -> Option<Facts> {
        if self.connection.is_handshaking() {
            return None;
        }
        self.take_aside();
        let suite = self.connection.negotiated_cipher_suite()?.suite();
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into();
        let certificate = self.connection.peer_certificates().and_then(|chain| chain.first());
        Some(Facts {
            version: match self.connection.protocol_version()? {
                ProtocolVersion::TLSv1_2 => "TLSv1.2",
                _ => "TLSv1.3",
            },
            // rustls puts TLS13_ before the names that have no TLS_ELLIPTIC_CURVE in them.
            cipher: match suite {
                CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
                CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
                suite => suite.as_str()?,
            },
            server_name: self.name.take(),
            protocol: self.connection.alpn_protocol().map(text),
            resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
            client: certificate.and_then(|der| Client::from_der(der)).map(Box::new),
            binding: self.binding,
        })
    }

    /// Takes the alert that reports a failure to the peer. rustls is asked for nothing else: it
    /// must not continue reading.
    fn alert(&mut self) {
        while self.connection.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(data)) =
                self.connection.process_tls_records(&mut []).state
        {
            encode(data, &mut self.pending);
        }
    }

    fn fail(&mut self) {
        self.failed = true;
        self.fail_reading();
    }

    /// Nothing more is read.
    fn fail_reading(&mut self) {
        self.kept = Vec::new();
        self.whole = 0;
    }

    fn write(
        &mut self,
        into: &mut Vec<u8>,
        mut room: usize,
        mut write: impl FnMut(&mut WriteTraffic<'_, Server>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), Error> {
        if !self.is_established() {
            return Err(Error("not established".to_owned()));
        }
        self.take_pending(into);
        loop {
            let records = self.kept.get_mut(..self.whole).unwrap_or_default();
            match self.connection.process_tls_records(records).state? {
                ConnectionState::EncodeTlsData(data) => encode(data, into),
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(mut traffic) => {
                    let start = into.len();
                    into.resize(start + room, 0);
                    let written = write(&mut traffic, into.get_mut(start..).unwrap_or_default());
                    into.truncate(start + written.as_ref().map_or(0, |count| *count));
                    match written {
                        Ok(_) => return Ok(()),
                        Err(EncryptError::InsufficientSize(InsufficientSizeError {
                            required_size,
                        })) if required_size > room => room = required_size,
                        Err(error) => return Err(Error(error.to_string())),
                    }
                }
                _ => return Err(Error("the session can no longer send".to_owned())),
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("kept", &self.kept.len()).finish_non_exhaustive()
    }
}

type Server = rustls::server::ServerConnectionData;

fn encode(mut data: EncodeTlsData<'_, Server>, into: &mut Vec<u8>) {
    let start = into.len();
    let mut room = 512;
    loop {
        into.resize(start + room, 0);
        match data.encode(into.get_mut(start..).unwrap_or_default()) {
            Ok(count) => return into.truncate(start + count),
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                room = required_size;
            }
            Err(EncodeError::AlreadyEncoded) => return into.truncate(start),
        }
    }
}

enum Record {
    /// Octets it has, header included.
    Whole(usize),
    /// Its header is not there yet.
    Unknown,
    /// No header of TLS: rustls is to say so at once, not when as many octets have come as it
    /// seems to ask for.
    Bad,
}

fn record_bytes(octets: &[u8]) -> Record {
    let &[kind, major, _, high, low, ..] = octets else { return Record::Unknown };
    let len = usize::from(high) << 8 | usize::from(low);
    // RFC 8446 §5.1: types from change_cipher_spec to application_data, and heartbeat.
    if !(20..=24).contains(&kind) || major != 3 || len > RECORD_BYTES_MAX {
        return Record::Bad;
    }
    Record::Whole(HEADER_BYTES + len)
}

/// Octets of the whole records at the front.
fn whole_records(octets: &[u8]) -> usize {
    let mut end = 0;
    while let Some(rest) = octets.get(end..) {
        match record_bytes(rest) {
            Record::Whole(bytes) if bytes <= rest.len() => end += bytes,
            Record::Bad => return octets.len(),
            Record::Whole(_) | Record::Unknown => break,
        }
    }
    end
}
