//! Which cipher suite is agreed on.
//!
//! The order is ours, and the same for all clients: AES-128-GCM with SHA-256 first, for which CPUs have
//! instructions; SHA-384, which has none on most of them, costs a handshake more than the cipher. A client
//! that puts ChaCha20-Poly1305 first says that it has no instructions for AES: it gets what it asks for.

use rustls::{CipherSuite, SupportedCipherSuite, version::TLS13};

use super::server_name;

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Aes,
    ChaCha,
}

/// The suites of the provider in this order.
pub(super) fn cipher_suites(order: Order) -> Vec<SupportedCipherSuite> {
    let mut suites = server_name::cipher_suites();
    // A stable sort: within a rank the provider's order stays, ECDSA ahead of RSA.
    suites.sort_by_key(|suite| (suite.version() != &TLS13, rank(suite.suite(), order)));
    suites
}

fn rank(suite: CipherSuite, order: Order) -> u8 {
    let name = suite.as_str().unwrap_or_default();
    match name {
        _ if name.contains("CHACHA20") => {
            if order == Order::ChaCha {
                0
            } else {
                3
            }
        }
        _ if name.contains("AES_128") => 1,
        _ => 2,
    }
}

/// Octets of a record's header and of a message's; version and random.
const AHEAD_OF_SESSION: usize = 5 + 4 + 2 + 32;

/// Whether these records begin with the hello of a client whose first suite is ChaCha20-Poly1305.
pub(super) fn puts_chacha_first(records: &[u8]) -> bool {
    first_suite(records).is_some_and(|suite| {
        CipherSuite::from(suite).as_str().is_some_and(|name| name.contains("CHACHA20_POLY1305"))
    })
}

/// The first suite that a client offers, GREASE values (RFC 8701) left out.
fn first_suite(records: &[u8]) -> Option<u16> {
    let session = records.get(AHEAD_OF_SESSION..)?;
    let (&bytes, rest) = session.split_first()?;
    let (length, suites) = rest.get(usize::from(bytes)..)?.split_first_chunk::<2>()?;
    let suites = suites.get(..usize::from(u16::from_be_bytes(*length)))?;
    let mut suites = suites.chunks_exact(2).map(|suite| u16::from_be_bytes([suite[0], suite[1]]));
    suites.find(|suite| suite & 0x0f0f != 0x0a0a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_with_128_bits_is_first_and_chacha_where_it_is_preferred() {
        let names = |order| -> Vec<&str> {
            cipher_suites(order).iter().filter_map(|suite| suite.suite().as_str()).collect()
        };
        assert_eq!(
            names(Order::Aes),
            [
                "TLS13_AES_128_GCM_SHA256",
                "TLS13_AES_256_GCM_SHA384",
                "TLS13_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            ]
        );
        let chacha = names(Order::ChaCha);
        assert_eq!(chacha.len(), 9);
        assert_eq!(chacha[0], "TLS13_CHACHA20_POLY1305_SHA256");
        assert_eq!(chacha[3], "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256");
    }

    #[test]
    fn the_first_suite_is_read_and_grease_is_left_out() {
        let hello = |suites: &[u16]| -> Vec<u8> {
            let mut octets = vec![0; AHEAD_OF_SESSION];
            octets.extend([3, 7, 7, 7]);
            octets.extend((suites.len() as u16 * 2).to_be_bytes());
            octets.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
            octets
        };
        assert_eq!(first_suite(&hello(&[0x1302, 0x1303])), Some(0x1302));
        assert!(puts_chacha_first(&hello(&[0x3a3a, 0x1303, 0x1301])));
        assert!(puts_chacha_first(&hello(&[0xcca9, 0xc02b])));
        assert!(!puts_chacha_first(&hello(&[0x1301, 0x1303])));
        let whole = hello(&[0x1303]);
        for cut in 0..whole.len() {
            assert!(!puts_chacha_first(&whole[..cut]), "{cut}");
        }
        assert_eq!(first_suite(&hello(&[])), None);
    }
}
