//! Who sends the most: space-saving sketches, one of each kind for each shard.
//!
//! A sketch keeps [`PLACES`] keys with their counts. One that is not among them takes the place of
//! the smallest, and its count, which it may owe to others: the error, kept with it. So a count is
//! never too small, it is too large by at most its error, and whatever has more than a
//! [`PLACES`]th of all is among them (Metwally, Agrawal and El Abbadi 2005). Nothing is allocated
//! once the keys have grown to their length. What is found is for the page and `top`; a label of a
//! metric it never is, as anybody can make up keys.

use std::{
    collections::HashMap,
    fmt::Write,
    hash::{BuildHasherDefault, Hasher},
    net::{IpAddr, Ipv6Addr},
};

/// Keys of one sketch: those with more than 1 % of all are certain to be there.
const PLACES: usize = 128;

/// Octets of a key; the rest is cut off.
const KEY_BYTES_MAX: usize = 64;

/// By what messages are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HitBy {
    /// Address of the client; of IPv6 its /64.
    Client,
    /// Domain of the reverse-path.
    SenderDomain,
    /// Domain of each forward-path.
    RcptDomain,
}

impl HitBy {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Client, Self::SenderDomain, Self::RcptDomain];

    /// As in the command line and the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::SenderDomain => "sender-domain",
            Self::RcptDomain => "rcpt-domain",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.name() == name)
    }
}

/// One key of a sketch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// What was counted.
    pub key: String,
    /// How often, at most.
    pub count: u64,
    /// By how much that may be too large.
    pub error: u64,
}

/// See the module's page.
#[derive(Clone, Debug, Default)]
struct Sketch {
    /// Places by the hash of their key. Two keys with the same one count as the same: nobody is
    /// harmed who did not make them up.
    places: HashMap<u64, usize, BuildHasherDefault<Hashed>>,
    hits: Vec<(u64, Hit)>,
}

impl Sketch {
    /// Counts a key once; `write` says it, where it is not known yet.
    fn count(&mut self, hash: u64, write: impl FnOnce(&mut String)) {
        if let Some((_, hit)) = self.places.get(&hash).and_then(|at| self.hits.get_mut(*at)) {
            hit.count += 1;
            return;
        }
        let mut at = self.hits.len();
        if at < PLACES {
            self.hits.push((hash, Hit::default()));
        } else {
            let smallest = self.hits.iter().enumerate().min_by_key(|(_, (_, hit))| hit.count);
            at = smallest.map_or(0, |(at, _)| at);
        }
        let Some((known, hit)) = self.hits.get_mut(at) else { return };
        self.places.remove(known);
        self.places.insert(hash, at);
        *known = hash;
        hit.key.clear();
        write(&mut hit.key);
        (hit.error, hit.count) = (hit.count, hit.count + 1);
    }

    /// The keys, the most frequent first.
    fn hits(&self) -> Vec<Hit> {
        let mut hits: Vec<_> = self.hits.iter().map(|(_, hit)| hit.clone()).collect();
        order(&mut hits);
        hits
    }
}

/// All sketches of a shard.
#[derive(Clone, Debug, Default)]
pub struct Hitters([Sketch; HitBy::ALL.len()]);

impl Hitters {
    /// Counts a domain once. Letters of ASCII count in lower case.
    pub fn domain(&mut self, by: HitBy, domain: &str) {
        let domain = cut(domain);
        if let Some(sketch) = self.0.get_mut(by as usize) {
            sketch.count(hash(domain.as_bytes()), |key| {
                key.push_str(domain);
                key.make_ascii_lowercase();
            });
        }
    }

    /// Counts a client once.
    pub fn client(&mut self, address: IpAddr) {
        let [sketch, ..] = &mut self.0;
        match address.to_canonical() {
            IpAddr::V4(address) => {
                sketch.count(mix(0, u64::from(address.to_bits())), |key| {
                    // Writing to a string cannot fail.
                    let _ = write!(key, "{address}");
                });
            }
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                sketch.count(mix(1, (network >> 64) as u64), |key| {
                    let _ = write!(key, "{}/64", Ipv6Addr::from_bits(network));
                });
            }
        }
    }

    /// The keys of this kind.
    #[must_use]
    pub fn hits(&self, by: HitBy) -> Vec<Hit> {
        self.0.get(by as usize).map(Sketch::hits).unwrap_or_default()
    }
}

/// Puts together what several shards found; the most frequent first.
#[must_use]
pub fn merged(shards: impl IntoIterator<Item = Vec<Hit>>) -> Vec<Hit> {
    let mut all = std::collections::BTreeMap::<String, (u64, u64)>::new();
    for hit in shards.into_iter().flatten() {
        let (count, error) = all.entry(hit.key).or_default();
        *count += hit.count;
        *error += hit.error;
    }
    let hit = |(key, (count, error))| Hit { key, count, error };
    let mut hits: Vec<_> = all.into_iter().map(hit).collect();
    order(&mut hits);
    hits
}

fn order(hits: &mut [Hit]) {
    hits.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
}

/// As much of a key as is kept.
fn cut(key: &str) -> &str {
    key.get(..key.floor_char_boundary(KEY_BYTES_MAX)).unwrap_or_default()
}

/// Of the lower case of a text; eight octets at a time.
fn hash(text: &[u8]) -> u64 {
    text.chunks(8).fold(text.len() as u64, |hash, chunk| {
        let mut octets = [0; 8];
        octets.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        mix(hash, u64::from_le_bytes(octets) | 0x2020_2020_2020_2020)
    })
}

fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

/// Takes what is a hash already.
#[derive(Clone, Copy, Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        self.0 = hash(octets);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequent_are_found_among_many() {
        let mut hitters = Hitters::default();
        let mut count = |domain: &str| hitters.domain(HitBy::SenderDomain, domain);
        for at in 0..100_000_u32 {
            match at % 10 {
                0..4 => count(if at % 20 == 0 { "BIG.example" } else { "big.Example" }),
                4..6 => count("second.example"),
                _ => count(&format!("{}.example", at.wrapping_mul(2_654_435_761))),
            }
        }
        let hits = hitters.hits(HitBy::SenderDomain);
        assert_eq!(hits.len(), PLACES);
        for (at, key, times) in [(0, "big.example", 40_000), (1, "second.example", 20_000)] {
            let hit = &hits[at];
            assert_eq!(hit.key, key);
            assert!(hit.count >= times && hit.count - hit.error <= times, "{hit:?}");
        }
        // A sketch's error is bounded by what it counted over its places.
        assert!(hits.iter().all(|hit| hit.error <= 100_000 / PLACES as u64));
        assert_eq!(hits.iter().map(|hit| hit.count).sum::<u64>(), 100_000);
    }

    #[test]
    fn shards_are_put_together_and_long_keys_are_cut() {
        let (mut a, mut b) = (Hitters::default(), Hitters::default());
        let client = |text: &str| text.parse().unwrap();
        a.client(client("192.0.2.1"));
        b.client(client("::ffff:192.0.2.1"));
        for last in 1..4 {
            b.client(client(&format!("2001:db8::{last}")));
        }
        let hits = merged([a.hits(HitBy::Client), b.hits(HitBy::Client)]);
        let found: Vec<_> = hits.iter().map(|hit| (hit.key.as_str(), hit.count)).collect();
        assert_eq!(found, [("2001:db8::/64", 3), ("192.0.2.1", 2)]);
        a.domain(HitBy::RcptDomain, &"\u{e9}".repeat(100));
        assert_eq!(a.hits(HitBy::RcptDomain)[0].key.len(), KEY_BYTES_MAX);
        assert_eq!(HitBy::named("rcpt-domain"), Some(HitBy::RcptDomain));
        assert_eq!(HitBy::named("address"), None);
    }
}
