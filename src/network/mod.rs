//! Networks of clients, as the configuration and filters name them.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

/// A network, such as `127.0.0.0/8`; an address without a prefix length is itself alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether `peer` lies in it; an IPv4-mapped address counts as the IPv4 address.
    #[must_use]
    pub fn contains(&self, peer: IpAddr) -> bool {
        self.0.contains(&peer.to_canonical())
    }
}

impl Network {
    /// What one sender mostly has: the /24 of an IPv4 address, the /64 of an IPv6 one.
    #[must_use]
    pub fn around(peer: IpAddr) -> Self {
        let peer = peer.to_canonical();
        let bits = if peer.is_ipv4() { 24 } else { 64 };
        Self(IpNet::new(peer, bits).map_or(IpNet::from(peer), |net| net.trunc()))
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(Self).map_err(|_| format!("{text:?} is not a network such as 192.0.2.0/24 or ::1"))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_network_around_it() {
        for (peer, around) in [
            ("192.0.2.7", "192.0.2.0/24"),
            ("::ffff:192.0.2.7", "192.0.2.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(Network::around(peer.parse().unwrap()).to_string(), around);
        }
    }

    #[test]
    fn networks_contain() {
        let contains = |network: &str, peer: &str| {
            network.parse::<Network>().unwrap().contains(peer.parse().unwrap())
        };
        assert!(contains("127.0.0.0/8", "127.9.9.9"));
        assert!(contains("127.0.0.0/8", "::ffff:127.0.0.1"));
        assert!(!contains("127.0.0.0/8", "128.0.0.1"));
        assert!(contains("::1", "::1") && !contains("::1", "::2"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && contains("::/0", "2001:db8::1"));
        assert!(!contains("::/0", "192.0.2.1"));
        for bad in ["", "192.0.2", "10.0.0.0/33", "::/129", "192.0.2.0/x"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
