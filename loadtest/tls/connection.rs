//! One connection's TLS.

use std::{
    fmt,
    io::{self, BufRead, IoSlice, Write},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, ClientConnection, HandshakeKind, pki_types::ServerName,
};

use super::super::socket::Connection;

/// Why TLS cannot begin or go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Error {
    /// The server's certificate is not believed.
    Certificate(String),
    /// The other side is no TLS, refused ours, or breaks its rules.
    Broken(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Certificate(text) | Self::Broken(text)) = self;
        write!(f, "TLS: {text}")
    }
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(fault) => {
                Self::Certificate(format!("the server's certificate {}", verdict(&fault)))
            }
            rustls::Error::NoCertificatesPresented => {
                Self::Certificate("the server shows no certificate".to_owned())
            }
            error => Self::Broken(error.to_string()),
        }
    }
}

/// rustls shows most of these by the names of its types.
fn verdict(fault: &CertificateError) -> &'static str {
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet"
        }
        CertificateError::Revoked => "is revoked",
        CertificateError::UnknownIssuer => {
            "is not signed by a trusted authority (--ca-file adds one)"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another name"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for servers"
        }
        CertificateError::BadSignature => "has an invalid signature",
        CertificateError::BadEncoding => "cannot be read",
        _ => {
            "is not acceptable (a version 1 certificate, or an extension or algorithm that is not supported)"
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::OtherError;

    use super::*;

    #[test]
    fn no_name_of_a_type_is_shown() {
        let version = io::Error::other("UnsupportedCertVersion");
        for fault in [
            CertificateError::Other(OtherError(Arc::new(version))),
            CertificateError::UnknownIssuer,
            CertificateError::Expired,
            CertificateError::NotValidForName,
        ] {
            let text = Error::from(rustls::Error::InvalidCertificate(fault)).to_string();
            assert!(text.starts_with("TLS: the server's certificate "), "{text}");
            for name in ["Other", "Unsupported", "UnknownIssuer", "NotValid", "{"] {
                assert!(!text.contains(name), "{text}");
            }
        }
    }
}

/// What was agreed on, for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Agreed {
    pub(in super::super) version: String,
    pub(in super::super) cipher: String,
    /// Of the key exchange.
    pub(in super::super) group: String,
}

/// What [`Tls::feed`] hands out, in this order.
#[derive(Debug)]
pub(in super::super) enum Heard<'a> {
    /// The handshake is over, by a ticket of an earlier connection or not.
    Secured {
        resumed: bool,
    },
    Plain(&'a [u8]),
}

/// The client's side, from its first octet of TLS on. Call [`Tls::write`] behind everything.
#[derive(Debug)]
pub(in super::super) struct Tls {
    connection: ClientConnection,
    is_secured: bool,
    /// Octets of plaintext encrypted since the kernel last had all of it.
    pub(in super::super) taken: usize,
}

impl Tls {
    pub(super) fn new(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        let connection = ClientConnection::new(config, name)?;
        Ok(Self { connection, is_secured: false, taken: 0 })
    }

    /// Takes what the server sent.
    ///
    /// # Errors
    /// The handshake failed, or a record cannot be believed. An alert may wait for [`Self::write`].
    pub(in super::super) fn feed(
        &mut self,
        mut octets: &[u8],
        mut take: impl FnMut(Heard<'_>),
    ) -> Result<(), Error> {
        // Behind a close_notify nothing is taken.
        while !octets.is_empty()
            && self.connection.read_tls(&mut octets).is_ok_and(|count| count > 0)
        {
            self.connection.process_new_packets()?;
            if !self.is_secured && !self.connection.is_handshaking() {
                self.is_secured = true;
                let kind = self.connection.handshake_kind();
                take(Heard::Secured { resumed: kind == Some(HandshakeKind::Resumed) });
            }
            let mut reader = self.connection.reader();
            while let Ok(plain @ [_, ..]) = reader.fill_buf() {
                take(Heard::Plain(plain));
                let count = plain.len();
                reader.consume(count);
            }
        }
        Ok(())
    }

    /// Whether plaintext can be sent.
    pub(in super::super) fn is_secured(&self) -> bool {
        self.is_secured
    }

    /// Encrypts as much as it has room for; says how much that was.
    pub(in super::super) fn encrypt(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = self.connection.writer().write_vectored(slices)?;
        self.taken += count;
        Ok(count)
    }

    /// Hands octets to the kernel; whether it took all there were.
    ///
    /// # Errors
    /// As `writev(2)`; `WouldBlock` where there is no room.
    pub(in super::super) fn write(&mut self, connection: &mut Connection) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Wire(connection)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// The last that is said; the connection closes behind it.
    pub(in super::super) fn say_goodbye(&mut self, connection: &mut Connection) {
        self.connection.send_close_notify();
        // A server that went first does not miss it.
        let _ = self.write(connection);
    }

    /// What was agreed on; `None` before the end of the handshake.
    pub(in super::super) fn agreed(&self) -> Option<Agreed> {
        let version = self.connection.protocol_version()?;
        let suite = self.connection.negotiated_cipher_suite()?.suite();
        let group = self.connection.negotiated_key_exchange_group();
        Some(Agreed {
            version: match version {
                rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2",
                _ => "TLSv1.3",
            }
            .to_owned(),
            // rustls puts TLS13_ before the names that have no TLS_ELLIPTIC_CURVE in them.
            cipher: suite.as_str().unwrap_or_default().replacen("TLS13_", "TLS_", 1),
            group: group.and_then(|group| group.name().as_str()).unwrap_or_default().to_owned(),
        })
    }
}

/// A connection as rustls writes to it.
struct Wire<'a>(&'a mut Connection);

impl Write for Wire<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.write(&[IoSlice::new(octets)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
