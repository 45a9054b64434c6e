//! The target: `smtp://HOST:PORT`, `smtps://HOST:PORT`, `lmtp://HOST:PORT`, `lmtp+unix:PATH`.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

/// Port of `mailrace serve` without a configuration file.
const PORT: u16 = 2525;
/// How long an address of several may take to answer.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// RFC 8314 §3.3.
const TLS_PORT: u16 = 465;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Smtp,
    /// RFC 2033: LHLO, and after the mail data a reply for each accepted recipient.
    Lmtp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    url: String,
    pub(super) protocol: Protocol,
    /// All that the name has, in the resolver's order; one of a unix socket.
    pub(super) addresses: Vec<Address>,
    /// The name a certificate must have; none of a unix socket.
    pub(super) host: Option<String>,
    /// TLS from the first octet on.
    pub(super) is_tls: bool,
}

impl Target {
    /// Reads a URL and looks its host up.
    ///
    /// # Errors
    /// A text for the user: what is wrong with the URL, or that the host has no address.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let bad = |what: &str| {
            format!(
                "{url}: {what}; a target is smtp://HOST:PORT, smtps://HOST:PORT, lmtp://HOST:PORT \
                 or lmtp+unix:PATH"
            )
        };
        if let Some(path) = url.strip_prefix("lmtp+unix:") {
            if path.is_empty() {
                return Err(bad("no path"));
            }
            return Ok(Self {
                url: url.to_owned(),
                protocol: Protocol::Lmtp,
                addresses: vec![Address::Unix(PathBuf::from(path))],
                host: None,
                is_tls: false,
            });
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("no scheme"))?;
        let protocol = match scheme {
            "smtp" | "smtps" => Protocol::Smtp,
            "lmtp" => Protocol::Lmtp,
            _ => return Err(bad("unknown scheme")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let is_tls = scheme == "smtps";
        let (host, port) = split_port(authority, if is_tls { TLS_PORT } else { PORT })
            .ok_or_else(|| bad("bad port"))?;
        if host.is_empty() || host.contains(['/', '@', '?', '#']) {
            return Err(bad("bad host"));
        }
        let mut addresses = Vec::new();
        for address in (host, port).to_socket_addrs().map_err(|error| format!("{url}: {error}"))? {
            let address = Address::Tcp(address);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(format!("{url}: the host has no address"));
        }
        Ok(Self { url: url.to_owned(), protocol, addresses, host: Some(host.to_owned()), is_tls })
    }

    /// Whether it lies beyond loopback and private networks, where a load test is an attack
    /// unless its owner agreed.
    pub(super) fn is_public(&self) -> bool {
        self.addresses.iter().any(|address| match address {
            Address::Unix(_) => false,
            Address::Tcp(address) => !is_private(address.ip()),
        })
    }

    /// The first address that takes a connection. A name that has one address is not asked: the
    /// run's own connections find out.
    ///
    /// # Errors
    /// Where none does; the text lists what was tried.
    pub(super) fn reach(&self) -> io::Result<Address> {
        if let [address] = &self.addresses[..] {
            return Ok(address.clone());
        }
        let mut tried = Vec::new();
        for address in &self.addresses {
            let Address::Tcp(peer) = address else { return Ok(address.clone()) };
            match TcpStream::connect_timeout(peer, CONNECT_WAIT) {
                Ok(_) => return Ok(address.clone()),
                Err(error) => tried.push(format!("{peer}: {error}")),
            }
        }
        Err(io::Error::other(format!("no address of the host answers: {}", tried.join("; "))))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// `[::1]:25`, `host:25`, `host`.
fn split_port(authority: &str, default: u16) -> Option<(&str, u16)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok()?)),
            None => rest.is_empty().then_some((host, default)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((authority, default)),
    }
}

/// Loopback, private (RFC 1918, RFC 4193) and link-local addresses (RFC 3927, RFC 4291 §2.5.6).
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let target = Target::parse("smtp://127.0.0.1:25").unwrap();
        assert_eq!(target.addresses, [Address::Tcp("127.0.0.1:25".parse().unwrap())]);
        assert_eq!(target.protocol, Protocol::Smtp);
        let target = Target::parse("lmtp://[::1]:24/").unwrap();
        assert_eq!(target.addresses, [Address::Tcp("[::1]:24".parse().unwrap())]);
        let target = Target::parse("smtp://127.0.0.1").unwrap();
        assert_eq!(target.addresses, [Address::Tcp("127.0.0.1:2525".parse().unwrap())]);
        let target = Target::parse("lmtp+unix:/run/lmtp").unwrap();
        assert_eq!(target.addresses, [Address::Unix("/run/lmtp".into())]);
        for bad in ["", "127.0.0.1:25", "http://a", "smtp://", "smtp://127.0.0.1:x", "lmtp+unix:"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
        let target = Target::parse("smtps://[::1]").unwrap();
        assert_eq!(target.addresses, [Address::Tcp("[::1]:465".parse().unwrap())]);
        assert_eq!((target.host.as_deref(), target.is_tls), (Some("::1"), true));
    }

    #[test]
    fn only_near_targets_are_private() {
        for near in ["127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "[::1]", "[fd00::1]"] {
            assert!(!Target::parse(&format!("smtp://{near}:25")).unwrap().is_public(), "{near}");
        }
        for far in ["192.0.2.1", "8.8.8.8", "172.32.0.1", "[2001:db8::1]", "[::ffff:8.8.8.8]"] {
            assert!(Target::parse(&format!("smtp://{far}:25")).unwrap().is_public(), "{far}");
        }
    }
}
