//! The header with which a proxy names the client whose connection it relays: HAProxy's PROXY
//! protocol, versions 1 (text) and 2 (binary), section numbers of "The PROXY protocol", 2020/03/05.
//!
//! It comes before everything, even the server's greeting. The claimed source is taken from a
//! network in turn, or is the connection's own.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{socket::ClientNet, target::Address};

/// §2.2: no older protocol begins so.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// §2.2: version 2 in the upper half, the command in the lower.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// §2.2: address family in the upper half, transport (STREAM) in the lower.
const UNSPEC: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
/// What a claimed client talked to where the target is of another family, or no TCP at all.
const SMTP_PORT: u16 = 25;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Version {
    /// A line of text
    V1,
    /// Binary
    V2,
}

/// How connections are announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proxy {
    pub(super) version: Version,
    /// Where the claimed addresses come from; `None`: those of the connection itself.
    pub(super) net: Option<ClientNet>,
}

impl Proxy {
    /// Writes the header of the `number`th connection, whose own address is `local`.
    pub(super) fn header(
        self,
        number: u64,
        local: Option<SocketAddr>,
        target: &Address,
        out: &mut Vec<u8>,
    ) {
        let source = match self.net {
            // Ports of the unprivileged range, in turn.
            Some(net) => {
                Some(SocketAddr::new(net.address(number), 1024 + (number % 64_512) as u16))
            }
            None => local,
        };
        let ends = source.map(|source| (source, destination(source, target)));
        match self.version {
            Version::V1 => text(ends, out),
            Version::V2 => binary(ends, out),
        }
    }
}

/// Both ends of a connection are of one family.
fn destination(source: SocketAddr, target: &Address) -> SocketAddr {
    match *target {
        Address::Tcp(address) if address.is_ipv4() == source.is_ipv4() => address,
        _ if source.is_ipv4() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), SMTP_PORT),
        _ => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), SMTP_PORT),
    }
}

/// §2.1
fn text(ends: Option<(SocketAddr, SocketAddr)>, out: &mut Vec<u8>) {
    // Writing into a Vec cannot fail.
    let _ = match ends {
        None => write!(out, "PROXY UNKNOWN\r\n"),
        Some((source, to)) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from_port, to_port) = (source.port(), to.port());
            write!(out, "PROXY {family} {} {} {from_port} {to_port}\r\n", source.ip(), to.ip())
        }
    };
}

/// §2.2
fn binary(ends: Option<(SocketAddr, SocketAddr)>, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    let Some((source, destination)) = ends else {
        // A connection of the proxy's own: the receiver goes by the addresses it sees.
        out.extend_from_slice(&[LOCAL, UNSPEC, 0, 0]);
        return;
    };
    let (family, bytes) = match source.ip() {
        IpAddr::V4(_) => (TCP_OVER_IPV4, 2 * (4 + 2)),
        IpAddr::V6(_) => (TCP_OVER_IPV6, 2 * (16 + 2)),
    };
    out.extend_from_slice(&[PROXY, family, 0, bytes]);
    for end in [source, destination] {
        match end.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    for end in [source, destination] {
        out.extend_from_slice(&end.port().to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: Version, net: Option<&str>, local: Option<&str>, target: &str) -> Vec<u8> {
        let net = net.map(|net| ClientNet::parse(net).unwrap());
        let target = match target.strip_prefix('/') {
            Some(path) => Address::Unix(path.into()),
            None => Address::Tcp(target.parse().unwrap()),
        };
        let mut out = Vec::new();
        let local = local.map(|local| local.parse().unwrap());
        Proxy { version, net }.header(5, local, &target, &mut out);
        out
    }

    #[test]
    fn version_2_over_ipv4_octet_by_octet() {
        let header = header(Version::V2, Some("10.0.0.0/8"), None, "127.0.0.1:2525");
        let wanted = [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54,
            0x0a, // signature
            0x21, // version 2, PROXY
            0x11, // TCP over IPv4
            0x00, 0x0c, // 12 octets follow
            10, 0, 0, 6, // source
            127, 0, 0, 1, // destination
            0x04, 0x05, // source port 1029
            0x09, 0xdd, // destination port 2525
        ];
        assert_eq!(header, wanted);
    }

    #[test]
    fn version_2_over_ipv6_octet_by_octet() {
        let header = header(Version::V2, Some("2001:db8::/32"), None, "[::1]:25");
        let wanted = [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54,
            0x0a, // signature
            0x21, // version 2, PROXY
            0x21, // TCP over IPv6
            0x00, 0x24, // 36 octets follow
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, // source
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // destination
            0x04, 0x05, // source port 1029
            0x00, 0x19, // destination port 25
        ];
        assert_eq!(header, wanted);
    }

    #[test]
    fn without_a_network_the_connection_tells_its_own_address() {
        let header = header(Version::V2, None, Some("127.0.0.9:40000"), "127.0.0.1:25");
        assert_eq!(header[12..16], [0x21, 0x11, 0x00, 0x0c]);
        assert_eq!(header[16..], [127, 0, 0, 9, 127, 0, 0, 1, 0x9c, 0x40, 0x00, 0x19]);
    }

    #[test]
    fn a_unix_socket_has_no_address_to_tell() {
        let wanted = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
        assert_eq!(header(Version::V2, None, None, "/socket"), wanted);
        assert_eq!(header(Version::V1, None, None, "/socket"), b"PROXY UNKNOWN\r\n");
        let claimed = header(Version::V2, Some("10.0.0.0/8"), None, "/socket");
        assert_eq!(claimed[16..], [10, 0, 0, 6, 127, 0, 0, 1, 0x04, 0x05, 0x00, 0x19]);
    }

    #[test]
    fn version_1_is_a_line() {
        let header = |net: &str, target: &str| {
            String::from_utf8(header(Version::V1, Some(net), None, target))
        };
        let line = header("10.0.0.0/8", "127.0.0.1:2525").unwrap();
        assert_eq!(line, "PROXY TCP4 10.0.0.6 127.0.0.1 1029 2525\r\n");
        let line = header("2001:db8::/32", "[::1]:25").unwrap();
        assert_eq!(line, "PROXY TCP6 2001:db8::6 ::1 1029 25\r\n");
        // One family for both ends.
        let line = header("2001:db8::/32", "127.0.0.1:2525").unwrap();
        assert_eq!(line, "PROXY TCP6 2001:db8::6 ::1 1029 25\r\n");
        // §2.1: 107 octets at most.
        let long = header("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "[::1]:65535").unwrap();
        assert!(long.len() <= 107, "{}", long.len());
    }
}
