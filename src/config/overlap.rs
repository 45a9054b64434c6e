//! Pairs of addresses that would take each other's connections.
//!
//! Each shard binds every address with SO_REUSEPORT, so the kernel does not refuse the second
//! socket of an address: it distributes the connections at random, and one of two listeners might
//! require what the other does not.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::ListenerConfig;
use super::raw::Settings;

/// A place that is listened at, and the key that says so.
struct Place<'a> {
    key: String,
    at: At<'a>,
}

#[derive(Clone, Copy)]
enum At<'a> {
    /// `[::]` of a listener is IPv6 alone (`shard::listen`).
    Tcp(SocketAddr),
    /// `[::]` of the admin listener is IPv4 too.
    Admin(SocketAddr),
    Unix(&'a Path),
}

/// Notes each address that an earlier one overlaps.
pub(super) fn check(s: &mut Settings, listeners: &[ListenerConfig], admin: Option<SocketAddr>) {
    let mut places: Vec<Place<'_>> = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        let tcp = listener.listen.iter().map(|address| At::Tcp(*address));
        let unix = listener.listen_unix.iter().map(|path| At::Unix(path));
        let key = format!("listener.{index}.listen");
        places.extend(tcp.chain(unix).map(|at| Place { key: key.clone(), at }));
    }
    let key = "server.admin.listen".to_owned();
    places.extend(admin.map(|address| Place { key, at: At::Admin(address) }));
    for (number, place) in places.iter().enumerate() {
        let Some(earlier) = places[..number].iter().find(|other| overlap(other.at, place.at))
        else {
            continue;
        };
        let message = format!(
            "{} overlaps {} of {} ({}): connections would go to either of them at random; give \
             each an address or port of its own",
            written(place.at),
            written(earlier.at),
            earlier.key,
            s.origin(&earlier.key),
        );
        s.blame(&place.key, message);
    }
}

fn written(at: At<'_>) -> String {
    match at {
        At::Tcp(address) | At::Admin(address) => address.to_string(),
        At::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn overlap(a: At<'_>, b: At<'_>) -> bool {
    match (a, b) {
        // Components: `//` and `/./` make no difference.
        (At::Unix(a), At::Unix(b)) => a.components().eq(b.components()),
        (At::Unix(_), _) | (_, At::Unix(_)) => false,
        (At::Tcp(one) | At::Admin(one), At::Tcp(other) | At::Admin(other)) => {
            // Port 0 is another one each time.
            one.port() == other.port()
                && one.port() != 0
                && (covers(a, other) || covers(b, one) || same(one, other))
        }
    }
}

/// Whether connections to the other address come here as well.
fn covers(at: At<'_>, other: SocketAddr) -> bool {
    match at {
        At::Tcp(mine) => mine.ip().is_unspecified() && mine.is_ipv4() == other.is_ipv4(),
        At::Admin(mine) => mine.ip().is_unspecified() && (mine.is_ipv6() || other.is_ipv4()),
        At::Unix(_) => false,
    }
}

fn same(one: SocketAddr, other: SocketAddr) -> bool {
    let scope = |address: SocketAddr| match address {
        SocketAddr::V6(address) => address.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let ip = |address: SocketAddr| -> IpAddr { address.ip().to_canonical() };
    ip(one) == ip(other) && scope(one) == scope(other)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{from_text, wrong};

    /// Two listeners, and the admin listener on a port of its own.
    fn two(first: &str, second: &str) -> String {
        format!(
            "[[listener]]\nlisten = [{first}]\naccept.domains = [\"*\"]\nprotocol = \"lmtp\"\n\
             [[listener]]\nlisten = [{second}]\naccept.domains = [\"*\"]\nprotocol = \"lmtp\"\n"
        )
    }

    #[test]
    fn two_listeners_do_not_share_an_address() {
        for (first, second) in [
            ("127.0.0.1:24", "127.0.0.1:24"),
            ("0.0.0.0:24", "127.0.0.1:24"),
            ("127.0.0.1:24", "0.0.0.0:24"),
            ("[::]:24", "[::1]:24"),
            ("[::1]:24", "[::1]:24"),
            ("unix:/run/a", "unix:/run/a"),
            ("unix:/run/a", "unix:/run//./a"),
        ] {
            let text = two(&format!("{first:?}"), &format!("{second:?}"));
            let told = format!(
                "listener.1.listen (m.toml:6): {second} overlaps {first} of listener.0.listen \
                 (m.toml:2): connections would go to either of them at random; give each an \
                 address or port of its own"
            );
            wrong(&text, &[&told]);
        }
        // An IPv4 address in IPv6 form is the IPv4 one.
        let error = from_text(&two("\"0.0.0.0:24\"", "\"[::ffff:127.0.0.1]:24\"")).unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:24 overlaps 0.0.0.0:24"), "{error}");
        for (first, second) in [
            ("[::]:24", "0.0.0.0:24"),
            ("[::]:24", "127.0.0.1:24"),
            ("127.0.0.1:24", "127.0.0.2:24"),
            ("127.0.0.1:24", "127.0.0.1:26"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[fe80::1%1]:24", "[fe80::1%2]:24"),
            ("unix:/run/a", "unix:/run/b"),
        ] {
            let text = two(&format!("{first:?}"), &format!("{second:?}"));
            from_text(&text).expect(&text);
        }
    }

    #[test]
    fn nor_does_one_listener_with_itself() {
        let other = "[[listener]]\nlisten = [\"127.0.0.1:26\"]\n";
        let text = format!("[[listener]]\nlisten = [\"127.0.0.1:25\", \"127.0.0.1:25\"]\n{other}");
        let error = from_text(&text).unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:25 overlaps 127.0.0.1:25"), "{error}");
    }

    #[test]
    fn nor_with_the_admin_listener() {
        let admin = |admin: &str, listen: &str| {
            from_text(&format!(
                "[server.admin]\nlisten = {admin:?}\ntoken_file = \"/t\"\n\
                 [[listener]]\nlisten = [{listen:?}]\naccept.domains = [\"*\"]\n"
            ))
        };
        for (address, listen) in [
            ("127.0.0.1:25", "127.0.0.1:25"),
            ("127.0.0.1:25", "0.0.0.0:25"),
            ("0.0.0.0:25", "127.0.0.1:25"),
            // Of the admin listener it is both.
            ("[::]:25", "127.0.0.1:25"),
            ("[::]:25", "0.0.0.0:25"),
        ] {
            let error = admin(address, listen).unwrap_err().to_string();
            let told = format!("{address} overlaps {listen} of listener.0.listen (m.toml:5)");
            assert!(error.starts_with("server.admin.listen (m.toml:2): "), "{error}");
            assert!(error.contains(&told), "{error}");
        }
        for (address, listen) in [("127.0.0.1:25", "[::]:25"), ("127.0.0.1:26", "0.0.0.0:25")] {
            admin(address, listen).expect(listen);
        }
    }
}
