//! Addresses from which AUTH fails too often. Each shard counts alone.

use std::{collections::HashMap, time::Duration};

use super::addresses::Network;

/// Failures are counted over this time.
const WINDOW: Duration = Duration::from_secs(60);

/// How long an address is shut out.
const BLOCK: Duration = Duration::from_secs(5 * 60);

/// Addresses remembered, of about 64 octets each. A larger herd that guesses pushes out those of it
/// that have failed least, and pays a handshake for each guess.
const ADDRESSES_MAX: usize = 4_096;

/// See the module's page.
#[derive(Default)]
pub(super) struct AuthFailures {
    found: HashMap<Network, Failures>,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    blocked: bool,
    /// When this is forgotten: the end of the window, or of the block.
    until: Duration,
}

impl AuthFailures {
    /// Counts a failure; `limit` of them within a minute block an address.
    pub(super) fn note(&mut self, network: Network, limit: u32, now: Duration) {
        if self.found.len() >= ADDRESSES_MAX && !self.found.contains_key(&network) {
            self.make_room(now);
        }
        let fresh = Failures { count: 0, blocked: false, until: now + WINDOW };
        let failures = self.found.entry(network).or_insert(fresh);
        if failures.until <= now {
            *failures = fresh;
        }
        failures.count = failures.count.saturating_add(1);
        if failures.count >= limit && !failures.blocked {
            failures.blocked = true;
            failures.until = now + BLOCK;
        }
    }

    /// Whether nobody has failed.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether an address is shut out.
    pub(super) fn is_blocked(&self, network: Network, now: Duration) -> bool {
        let failures = self.found.get(&network);
        failures.is_some_and(|failures| failures.blocked && now < failures.until)
    }

    /// Forgets what is over, or else what will be first; who is blocked comes last.
    fn make_room(&mut self, now: Duration) {
        self.found.retain(|_, failures| now < failures.until);
        if self.found.len() >= ADDRESSES_MAX {
            let first = self.found.iter().min_by_key(|(_, f)| (f.blocked, f.count, f.until));
            if let Some(network) = first.map(|(network, _)| *network) {
                self.found.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> Network {
        Network::of(text.parse().unwrap())
    }

    /// G9.
    #[test]
    fn g9_an_address_is_blocked_for_five_minutes() {
        let mut failures = AuthFailures::default();
        let guesser = address("192.0.2.1");
        for at in 0..2 {
            failures.note(guesser, 3, SECOND * at);
            assert!(!failures.is_blocked(guesser, SECOND * at));
        }
        // The window has passed.
        failures.note(guesser, 3, SECOND * 60);
        assert!(!failures.is_blocked(guesser, SECOND * 60));
        failures.note(guesser, 3, SECOND * 61);
        failures.note(guesser, 3, SECOND * 62);
        assert!(failures.is_blocked(guesser, SECOND * 62));
        assert!(failures.is_blocked(address("::ffff:192.0.2.1"), SECOND * 62));
        assert!(!failures.is_blocked(address("192.0.2.2"), SECOND * 62));
        // What fails meanwhile does not make it longer.
        failures.note(guesser, 3, SECOND * 100);
        assert!(failures.is_blocked(guesser, SECOND * 361));
        assert!(!failures.is_blocked(guesser, SECOND * 362));
        failures.note(guesser, 3, SECOND * 363);
        assert!(!failures.is_blocked(guesser, SECOND * 363));
    }

    #[test]
    fn g9_a_network_of_ipv6_is_one_address() {
        let mut failures = AuthFailures::default();
        failures.note(address("2001:db8::1"), 2, SECOND);
        failures.note(address("2001:db8::ffff:0:0:2"), 2, SECOND);
        assert!(failures.is_blocked(address("2001:db8:0:0:3::"), SECOND));
        assert!(!failures.is_blocked(address("2001:db8:0:1::1"), SECOND));
    }

    /// A flood of addresses takes no more room, and frees none that is blocked.
    #[test]
    fn the_memory_is_bounded() {
        let mut failures = AuthFailures::default();
        let guesser = address("192.0.2.1");
        failures.note(guesser, 2, SECOND);
        failures.note(guesser, 2, SECOND);
        for number in 0..6_000_u32 {
            let network = Network::of(IpAddr::from(number.to_be_bytes()));
            failures.note(network, 2, SECOND * 2);
        }
        assert_eq!(failures.found.len(), ADDRESSES_MAX);
        assert!(failures.is_blocked(guesser, SECOND * 2));
    }
}
