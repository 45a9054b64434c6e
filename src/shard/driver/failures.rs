//! Addresses from which AUTH fails too often. Each shard counts alone.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use super::Driver;
use crate::shard::connection::Connection;

/// Failures are counted over this time.
const WINDOW: Duration = Duration::from_secs(60);

/// How long an address is shut out.
const BLOCK: Duration = Duration::from_secs(5 * 60);

/// Addresses remembered, of about 50 octets each: a network of more that guesses costs each of its
/// members a handshake and a hash for each guess.
const ADDRESSES_MAX: usize = 4_096;

/// See the module's page.
pub(super) struct AuthFailures {
    limit: Option<u32>,
    found: HashMap<IpAddr, Failures>,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    /// When this is forgotten: the end of the window, or of the block.
    until: Duration,
}

impl AuthFailures {
    /// `limit`: failures within a minute that block an address; `None`: it is never blocked.
    pub(super) fn new(limit: Option<u32>) -> Self {
        Self { limit, found: HashMap::new() }
    }

    /// Counts a failure.
    pub(super) fn note(&mut self, address: IpAddr, now: Duration) {
        let Some(limit) = self.limit else { return };
        let address = network(address);
        if self.found.len() >= ADDRESSES_MAX && !self.found.contains_key(&address) {
            self.make_room(limit, now);
        }
        let fresh = Failures { count: 0, until: now + WINDOW };
        let failures = self.found.entry(address).or_insert(fresh);
        if failures.until <= now {
            *failures = fresh;
        }
        failures.count = failures.count.saturating_add(1);
        if failures.count == limit.max(1) {
            failures.until = now + BLOCK;
        }
    }

    /// Whether an address is shut out.
    pub(super) fn is_blocked(&self, address: IpAddr, now: Duration) -> bool {
        let Some(limit) = self.limit else { return false };
        // Nobody fails: nothing is looked up.
        !self.found.is_empty()
            && self
                .found
                .get(&network(address))
                .is_some_and(|failures| failures.count >= limit.max(1) && now < failures.until)
    }

    /// Forgets what is over, or else the address that has failed least and is forgotten first.
    fn make_room(&mut self, limit: u32, now: Duration) {
        self.found.retain(|_, failures| now < failures.until);
        if self.found.len() >= ADDRESSES_MAX {
            let least = self.found.iter().min_by_key(|(_, failures)| {
                (failures.count >= limit, failures.until, failures.count)
            });
            if let Some(address) = least.map(|(address, _)| *address) {
                self.found.remove(&address);
            }
        }
    }
}

/// Whom an address stands for: an IPv6 /64 is one customer's.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address => address,
    }
}

impl Driver {
    /// Counts a failure of this connection's, if there was one.
    pub(super) fn note_auth_failure(&mut self, connection: &mut Connection) {
        if connection.session.take_auth_failure() {
            let address = connection.peer.ip();
            if !self.options.exempt(address) {
                self.failures.note(address, self.now);
            }
        }
    }

    /// Whether too many AUTH commands from there have failed.
    pub(super) fn is_blocked(&self, address: IpAddr) -> bool {
        self.failures.is_blocked(address, self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// G9.
    #[test]
    fn g9_an_address_is_blocked_for_five_minutes() {
        let mut failures = AuthFailures::new(Some(3));
        let guesser = address("192.0.2.1");
        for at in 0..2 {
            failures.note(guesser, SECOND * at);
            assert!(!failures.is_blocked(guesser, SECOND * at));
        }
        // The window has passed.
        failures.note(guesser, SECOND * 60);
        assert!(!failures.is_blocked(guesser, SECOND * 60));
        failures.note(guesser, SECOND * 61);
        failures.note(guesser, SECOND * 62);
        assert!(failures.is_blocked(guesser, SECOND * 62));
        assert!(failures.is_blocked(address("::ffff:192.0.2.1"), SECOND * 62));
        assert!(!failures.is_blocked(address("192.0.2.2"), SECOND * 62));
        // What fails meanwhile does not make it longer.
        failures.note(guesser, SECOND * 100);
        assert!(failures.is_blocked(guesser, SECOND * 361));
        assert!(!failures.is_blocked(guesser, SECOND * 362));
        failures.note(guesser, SECOND * 363);
        assert!(!failures.is_blocked(guesser, SECOND * 363));
    }

    #[test]
    fn g9_a_network_of_ipv6_is_one_address() {
        let mut failures = AuthFailures::new(Some(2));
        failures.note(address("2001:db8::1"), SECOND);
        failures.note(address("2001:db8::ffff:0:0:2"), SECOND);
        assert!(failures.is_blocked(address("2001:db8:0:0:3::"), SECOND));
        assert!(!failures.is_blocked(address("2001:db8:0:1::1"), SECOND));
    }

    #[test]
    fn no_limit_blocks_nobody() {
        let mut failures = AuthFailures::new(None);
        (0..1000).for_each(|_| failures.note(address("192.0.2.1"), SECOND));
        assert!(!failures.is_blocked(address("192.0.2.1"), SECOND) && failures.found.is_empty());
    }

    /// A flood of addresses takes no more room, and frees none that is blocked.
    #[test]
    fn the_memory_is_bounded() {
        let mut failures = AuthFailures::new(Some(2));
        let guesser = address("192.0.2.1");
        failures.note(guesser, SECOND);
        failures.note(guesser, SECOND);
        for number in 0..6_000_u32 {
            failures.note(IpAddr::from(number.to_be_bytes()), SECOND * 2);
        }
        assert_eq!(failures.found.len(), ADDRESSES_MAX);
        assert!(failures.is_blocked(guesser, SECOND * 2));
    }
}
