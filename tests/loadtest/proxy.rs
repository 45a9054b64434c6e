//! PROXY headers, as a server reads them.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    peer::{Claim, Seen},
    *,
};

/// What a server saw of a run with these options.
fn seen(arguments: &[&str]) -> (SocketAddr, Vec<Seen>) {
    let (server, told) = peer::start();
    let common = ["-n", "12", "-c", "3", "--messages-per-connection", "2"];
    let report = report(server, &[&common, arguments].concat());
    assert_eq!(count(&report, "/totals/acked"), 12, "{arguments:?}");
    assert_eq!(count(&report, "/errors/total"), 0, "{arguments:?}");
    let seen: Vec<Seen> = told.try_iter().collect();
    assert!(seen.len() >= 6, "{arguments:?}: {}", seen.len());
    (server, seen)
}

#[test]
fn claimed_addresses_are_of_the_network() {
    for version in ["v1", "v2"] {
        for (net, inside) in [("10.32.0.0/11", "10."), ("2001:db8:5::/48", "2001:db8:5::")] {
            let (server, seen) = seen(&["--proxy-protocol", version, "--client-net", net]);
            let mut sources = BTreeSet::new();
            for Seen { claim, peer } in &seen {
                let Ok(Claim::Relayed(source, destination)) = claim else { panic!("{claim:?}") };
                assert!(source.ip().to_string().starts_with(inside), "{source}");
                assert!(source.port() >= 1024);
                sources.insert(source.ip());
                if source.is_ipv4() {
                    assert_eq!(*destination, server);
                }
                // Only claimed: nothing is bound.
                assert_eq!(peer.ip().to_string(), "127.0.0.1");
            }
            assert_eq!(sources.len(), seen.len(), "{sources:?}");
        }
    }
}

#[test]
fn without_a_network_the_own_address_is_claimed() {
    for version in ["v1", "v2"] {
        let (server, seen) = seen(&["--proxy-protocol", version, "--threads", "2"]);
        for Seen { claim, peer } in seen {
            assert_eq!(claim, Ok(Claim::Relayed(peer, server)));
        }
    }
}

#[test]
fn without_a_header_the_network_is_bound() {
    // The server of the test wants a header; a sink does not, and cannot tell who came.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let target = format!("smtp://{address}");
    let mut child = loadtest()
        .args([&target[..], "-n", "1", "-c", "1", "--client-net", "127.77.0.0/16"])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (_, peer) = listener.accept().unwrap();
    let IpAddr::V4(ip) = peer.ip() else { panic!("{peer}") };
    assert_eq!(ip.octets()[..2], [127, 77]);
    child.kill().unwrap();
    child.wait().unwrap();
}
