//! What a listener wants to know about its clients, and what follows from the answers.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::{join, join_all};
use hickory_resolver::proto::rr::Name;
use tokio::time::{Instant, timeout_at};

use super::ClientRules;
use crate::{
    dns::{Found, RecordType, Resolver},
    policy::ClientAdvice,
};

/// Names of one client that are confirmed: more are a mistake, or a trap.
const NAMES_MAX: usize = 4;

/// Octets of the longest name of an IPv6 address under a zone, without the zone.
const REVERSED_BYTES_MAX: usize = 64;

/// [`ClientRules`], ready to be asked.
pub(super) struct Rules {
    lists: Vec<List>,
    rules: ClientRules,
}

struct List {
    /// As it is named in the reply, in A-label form.
    zone: Arc<str>,
    weight: i32,
    /// It was reported that the list does not answer us.
    told: AtomicBool,
}

impl Rules {
    /// The error names the zone.
    pub(super) fn new(rules: &ClientRules) -> Result<Self, String> {
        let list = |(zone, weight): &(String, i32)| {
            let name = Name::from_utf8(zone).map_err(|error| format!("{zone}: {error}"))?;
            let name = name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
            // RFC 1035 §2.3.4: 255 octets with a length before each label and an empty one.
            if name.len() + REVERSED_BYTES_MAX + 2 > 255 {
                return Err(format!("{zone}: too long"));
            }
            Ok(List { zone: name.into(), weight: *weight, told: AtomicBool::new(false) })
        };
        let lists = rules.lists.iter().map(list).collect::<Result<_, String>>()?;
        Ok(Self { lists, rules: rules.clone() })
    }

    /// Asks all at once; what has no answer at the deadline counts nothing.
    pub(super) async fn advice(&self, dns: &Resolver, address: IpAddr) -> ClientAdvice {
        let deadline = Instant::now() + self.rules.deadline;
        let listed = join_all(self.lists.iter().map(|list| async move {
            let asked = timeout_at(deadline, list.has(dns, address)).await;
            asked.unwrap_or(false).then_some(list)
        }));
        let name = async {
            match self.rules.reverse {
                true => timeout_at(deadline, name_of(dns, address)).await.ok().flatten(),
                false => None,
            }
        };
        let (listed, name) = join(listed, name).await;
        let (score, worst) = weigh(listed.into_iter().flatten());
        let refused_by =
            worst.filter(|_| score >= self.rules.reject_at).map(|list| list.zone.clone());
        ClientAdvice { name: name.unwrap_or_default(), score, refused_by }
    }
}

/// The sum, and the list that weighs most against the client.
fn weigh<'a>(listed: impl Iterator<Item = &'a List>) -> (i32, Option<&'a List>) {
    let mut score = 0_i32;
    let mut worst: Option<&List> = None;
    for list in listed {
        score = score.saturating_add(list.weight);
        if list.weight > worst.map_or(0, |worst| worst.weight) {
            worst = Some(list);
        }
    }
    (score, worst)
}

impl List {
    /// RFC 5782 §2.1: an A record in 127.0.0.0/8 says that the list has the address.
    async fn has(&self, dns: &Resolver, address: IpAddr) -> bool {
        let name = format!("{}{}", reversed(address), self.zone);
        let Found::Addresses(codes) = dns.ask(&name, RecordType::A).await else { return false };
        let codes = codes.iter().filter_map(|code| match code {
            IpAddr::V4(code) if code.is_loopback() => Some(*code),
            _ => None,
        });
        let mut listed = false;
        for code in codes {
            match is_error(code) {
                true if self.told.swap(true, Ordering::Relaxed) => {}
                true => tracing::warn!(
                    "the list {} refuses queries from our DNS server (answer {code}): see its \
                     terms of use",
                    self.zone
                ),
                false => listed = true,
            }
        }
        listed
    }
}

/// What large lists answer to servers that ask too much, or without being allowed to.
fn is_error(code: Ipv4Addr) -> bool {
    matches!(code.octets(), [127, 255, 255, _])
}

/// The first of the client's names that has its address in turn: anybody can claim any name for an
/// address of his own (RFC 8601 §2.7.3, "iprev").
async fn name_of(dns: &Resolver, address: IpAddr) -> Option<String> {
    let kind = if address.is_ipv4() { RecordType::A } else { RecordType::AAAA };
    let Found::Names(names) = dns.names_of(address).await else { return None };
    let names = names.iter().filter(|name| is_printable(name)).take(NAMES_MAX);
    let names = names.map(|name| async move {
        match dns.ask(name, kind).await {
            Found::Addresses(addresses) => addresses.contains(&address).then_some(name),
            _ => None,
        }
    });
    join_all(names).await.into_iter().flatten().next().map(|name| name.to_string())
}

/// A name as it may stand in the record: letters, digits, hyphens, underscores and dots only.
fn is_printable(name: &str) -> bool {
    let fine = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    !name.is_empty() && name.bytes().all(fine)
}

/// `1.2.0.192.` or 32 nibbles, with a final dot (RFC 5782 §2.1, §2.4).
fn reversed(address: IpAddr) -> String {
    let mut text = String::with_capacity(REVERSED_BYTES_MAX);
    // Writing to a string cannot fail.
    match address {
        IpAddr::V4(address) => {
            for octet in address.octets().iter().rev() {
                let _ = write!(text, "{octet}.");
            }
        }
        IpAddr::V6(address) => {
            for octet in address.octets().iter().rev() {
                let _ = write!(text, "{:x}.{:x}.", octet & 15, octet >> 4);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_reversed() {
        assert_eq!(reversed("192.0.2.99".parse().unwrap()), "99.2.0.192.");
        // The example of RFC 5782 §2.4.
        assert_eq!(
            reversed("2001:db8:1:2:3:4:567:89ab".parse().unwrap()),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2."
        );
    }

    #[test]
    fn weights_are_added_and_the_worst_is_named() {
        let lists = [("a", 2), ("b", 5), ("c", -4), ("d", 5), ("e", i32::MAX)]
            .map(|(zone, weight)| List { zone: zone.into(), weight, told: AtomicBool::new(false) });
        let weighed = |chosen: &[usize]| {
            let (score, worst) = weigh(chosen.iter().map(|at| &lists[*at]));
            (score, worst.map(|list| list.zone.to_string()))
        };
        assert_eq!(weighed(&[]), (0, None));
        assert_eq!(weighed(&[2]), (-4, None));
        assert_eq!(weighed(&[0, 1, 2, 3]), (8, Some("b".to_owned())));
        assert_eq!(weighed(&[4, 1]), (i32::MAX, Some("e".to_owned())));
    }

    #[test]
    fn zones_are_names_with_room_for_an_address() {
        let rules = |zone: &str| {
            let lists = vec![(zone.to_owned(), 1)];
            let rules = Rules::new(&ClientRules { lists, ..ClientRules::default() })?;
            Ok::<_, String>(rules.lists[0].zone.to_string())
        };
        assert_eq!(rules("Ü.example").as_deref(), Ok("xn--tda.example"));
        assert!(rules(&["a"; 96].join(".")).is_err());
        assert!(rules(&["a"; 95].join(".")).is_ok());
    }

    #[test]
    fn odd_names_are_not_kept() {
        assert!(is_printable("mx_1.example"));
        for odd in ["a\nb.example", "a b.example", "a\\b.example", ""] {
            assert!(!is_printable(odd), "{odd:?}");
        }
    }
}
