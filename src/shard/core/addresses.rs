//! Sessions of each client address, and how fast it opens them.
//!
//! IPv6 is counted by its /64, since a client that has one address of it has them all. Each shard
//! counts alone, because shards share nothing, and connections are spread over them by a hash of
//! the ports. A shard lets an address have twice its even share of the limit, and no more than the
//! limit. So an address has at most twice the limit in all (and two for each shard, from rounding).
//! Chance gives a shard more than twice its share only where the share is small, so it does not
//! refuse a client far below the limit.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// Addresses remembered; beyond, who is not known yet is not counted, so that a flood of addresses
/// cannot use up memory. 48 octets each.
const ADDRESSES_MAX: usize = 1 << 20;

/// Bounds for one address on one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Sessions at a time; `None`: no limit.
    pub(super) sessions: Option<u32>,
    /// New sessions a minute; `None`: no limit.
    pub(super) per_minute: Option<u32>,
}

impl Bounds {
    /// The part of limits of the whole process that one of `shards` allows.
    pub(super) fn of_shard(sessions: Option<u32>, per_minute: Option<u32>, shards: u32) -> Self {
        let share = |limit| share(limit, shards);
        Self { sessions: sessions.map(share), per_minute: per_minute.map(share) }
    }
}

/// The part of a limit of the whole process that one of `shards` allows.
pub(super) fn share(limit: u32, shards: u32) -> u32 {
    limit.div_ceil(shards.max(1)).saturating_mul(2).min(limit)
}

/// Why an address gets no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It has as many as it may have.
    Sessions,
    /// It opens them too fast.
    Rate,
}

/// What is counted as one: an IPv4 address, an IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Network(u128);

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u128::from(v4.to_ipv6_mapped())),
            IpAddr::V6(v6) => Self(u128::from(v6) & !u128::from(u64::MAX)),
        }
    }
}

#[derive(Debug, Default)]
struct Entry {
    sessions: u32,
    /// When the sessions so far are paid for at the allowed rate (GCRA: the theoretical arrival
    /// time of ITU-T I.371).
    paid_until: Duration,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    entries: HashMap<Network, Entry>,
    swept: Duration,
}

impl Addresses {
    /// Counts a new session of `network`, or says why there is none. Every session that was let in
    /// is ended by [`Addresses::leave`].
    pub(super) fn enter(
        &mut self,
        network: Network,
        bounds: Bounds,
        now: Duration,
    ) -> Result<(), Refused> {
        self.sweep(now);
        if self.entries.len() >= ADDRESSES_MAX && !self.entries.contains_key(&network) {
            return Ok(());
        }
        let entry = self.entries.entry(network).or_default();
        if bounds.sessions.is_some_and(|most| entry.sessions >= most) {
            return Err(Refused::Sessions);
        }
        if let Some(per_minute) = bounds.per_minute {
            let minute = Duration::from_secs(60);
            let cost = minute / per_minute.max(1);
            let paid = entry.paid_until.max(now) + cost;
            // A whole minute's worth may come at once.
            if paid > now + minute {
                return Err(Refused::Rate);
            }
            entry.paid_until = paid;
        }
        entry.sessions += 1;
        Ok(())
    }

    /// A session of `network` is over.
    pub(super) fn leave(&mut self, network: Network) {
        if let Some(entry) = self.entries.get_mut(&network) {
            entry.sessions = entry.sessions.saturating_sub(1);
        }
    }

    /// Forgets those of which nothing is left, once a minute.
    fn sweep(&mut self, now: Duration) {
        if now < self.swept + Duration::from_secs(60) {
            return;
        }
        self.swept = now;
        self.entries.retain(|_, entry| entry.sessions > 0 || entry.paid_until > now);
        self.entries.shrink_to(self.entries.len() * 2);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }
}

/// A whole /64 for IPv6, for logs.
impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Ipv6Addr::from(self.0).to_canonical() {
            IpAddr::V4(v4) => v4.fmt(f),
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::of(text.parse().unwrap())
    }

    const NOW: Duration = Duration::from_secs(1_000);

    /// BAD-INPUTS I6.
    #[test]
    fn i6_a_whole_64_is_one() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1:2:3"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("2001:db8::1").to_string(), "2001:db8::/64");
        assert_eq!(network("192.0.2.1").to_string(), "192.0.2.1");
    }

    #[test]
    fn sessions_are_counted_in_and_out() {
        let mut addresses = Addresses::default();
        let bounds = Bounds { sessions: Some(2), per_minute: None };
        let (a, b) = (network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(addresses.enter(a, bounds, NOW), Ok(()));
        assert_eq!(addresses.enter(a, bounds, NOW), Ok(()));
        assert_eq!(addresses.enter(a, bounds, NOW), Err(Refused::Sessions));
        assert_eq!(addresses.enter(b, bounds, NOW), Ok(()), "another one has its own");
        addresses.leave(a);
        assert_eq!(addresses.enter(a, bounds, NOW), Ok(()));
        // A reload may have taken the limit down; leaving never goes below nothing.
        for _ in 0..5 {
            addresses.leave(a);
        }
        assert_eq!(addresses.enter(a, bounds, NOW), Ok(()));
    }

    #[test]
    fn the_rate_lets_a_minute_come_at_once_and_no_more() {
        let mut addresses = Addresses::default();
        let bounds = Bounds { sessions: None, per_minute: Some(60) };
        let a = network("192.0.2.1");
        let mut let_in = |at: Duration| addresses.enter(a, bounds, at).is_ok();
        assert_eq!((0..100).filter(|_| let_in(NOW)).count(), 60);
        // Then one a second, evenly.
        let later = (1..=100_u64).filter(|at| let_in(NOW + Duration::from_millis(100 * at)));
        assert_eq!(later.count(), 10);
        assert_eq!((0..100).filter(|_| let_in(NOW + Duration::from_secs(600))).count(), 60);
    }

    /// All shards together let an address have at most twice the limit and two for each shard.
    #[test]
    fn the_bound_when_each_shard_counts_alone() {
        for limit in 1..200 {
            for shards in 1..=64 {
                let bounds = Bounds::of_shard(Some(limit), Some(limit), shards);
                let each = bounds.sessions.unwrap();
                assert_eq!(bounds.per_minute, Some(each));
                assert!(each * shards <= 2 * (limit + shards), "{limit} over {shards}");
                assert!(each * shards >= limit, "{limit} over {shards}: the limit can be reached");
                assert!(each <= limit && each >= 1, "{limit} over {shards}");
            }
        }
        assert_eq!(Bounds::of_shard(Some(50), None, 1).sessions, Some(50), "one shard is exact");
        assert_eq!(Bounds::of_shard(None, None, 4), Bounds::default());
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut addresses = Addresses::default();
        let bounds = Bounds { sessions: Some(5), per_minute: Some(60) };
        for host in 0..1000_u32 {
            let address = Network::of(IpAddr::V4((0x0a00_0000 + host).into()));
            addresses.enter(address, bounds, NOW).unwrap();
            if host > 0 {
                addresses.leave(address);
            }
        }
        assert_eq!(addresses.len(), 1000);
        addresses.enter(network("192.0.2.1"), bounds, NOW + Duration::from_secs(120)).unwrap();
        assert_eq!(addresses.len(), 2, "one that is still there, and the new one");
    }
}
