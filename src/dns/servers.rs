//! Which DNS servers are asked.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
};

/// Where the system names its DNS servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The servers that are configured, else those of `/etc/resolv.conf`.
#[must_use]
pub fn servers(configured: &[SocketAddr]) -> Vec<SocketAddr> {
    match configured {
        [] => servers_of_machine(fs::read_to_string(RESOLV_CONF)),
        servers => servers.to_vec(),
    }
}

/// The servers of resolv.conf(5). A file that is missing or names none is no reason not to start:
/// as resolver(3) does, a server on this machine is asked then.
fn servers_of_machine(resolv_conf: io::Result<String>) -> Vec<SocketAddr> {
    let (servers, trouble) = match resolv_conf {
        Ok(text) => (system_servers(&text), "it names no usable DNS server".to_owned()),
        Err(error) => (Vec::new(), error.to_string()),
    };
    if servers.is_empty() {
        tracing::warn!(
            "{RESOLV_CONF}: {trouble}; using 127.0.0.1:53; set server.dns.servers to choose others"
        );
        return vec![SocketAddr::from(([127, 0, 0, 1], 53))];
    }
    servers
}

/// The `nameserver` lines of resolv.conf(5).
fn system_servers(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some("nameserver")
            && let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok())
        {
            servers.push(SocketAddr::new(address, 53));
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_the_system_are_found() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\n\
                    nameserver\t2001:db8::1 # second\nnameserver fe80::1%eth0\noptions edns0\n";
        let servers = servers_of_machine(Ok(text.to_owned()));
        let wanted: [SocketAddr; 2] =
            ["192.0.2.1:53", "[2001:db8::1]:53"].map(|text| text.parse().unwrap());
        assert_eq!(servers, wanted);
        let missing = io::Error::from(io::ErrorKind::NotFound);
        for none in [Ok("search example\nnameserver fe80::1%eth0\n".to_owned()), Err(missing)] {
            assert_eq!(servers_of_machine(none), ["127.0.0.1:53".parse::<SocketAddr>().unwrap()]);
        }
    }
}
