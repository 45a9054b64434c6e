//! A TCP connection to a name: to the first of its addresses that answers.
//!
//! `localhost` is `::1` first on most machines, and many servers listen on 127.0.0.1 alone; and a
//! network may have addresses of a family that lead nowhere. So all addresses are tried,
//! alternating between families, each begun 250 ms after the one before or as soon as that has
//! failed (RFC 8305 §4, §5).

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::net::TcpStream;

/// RFC 8305 §5, "Connection Attempt Delay".
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to `HOST:PORT`.
///
/// # Errors
/// The name has no address; or what each of them said.
///
/// # Cancellation
/// Nothing remains.
pub(super) async fn connect(server: &str) -> io::Result<TcpStream> {
    let addresses = tokio::net::lookup_host(server).await?.collect();
    race(by_turns(addresses), TcpStream::connect).await
}

/// Families in turn, the first one's first.
fn by_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (ones, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let (mut ones, mut others) = (ones.into_iter(), others.into_iter());
    let mut all = Vec::new();
    loop {
        match (ones.next(), others.next()) {
            (None, None) => return all,
            pair => all.extend([pair.0, pair.1].into_iter().flatten()),
        }
    }
}

async fn race<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let several = addresses.len() > 1;
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failed: Option<io::Error> = None;
    // Another one is due: at first, at a failure, and when the head start is over.
    while let Some(address) = waiting.next() {
        let attempt = connect(address);
        attempts.push(async move { (address, attempt.await) });
        let head_start = if waiting.len() > 0 { HEAD_START } else { Duration::MAX };
        match tokio::time::timeout(head_start, attempts.next()).await {
            Ok(Some((_, Ok(stream)))) => return Ok(stream),
            Ok(Some((address, Err(error)))) => note(&mut failed, several, address, error),
            Ok(None) | Err(_) => {}
        }
    }
    while let Some((address, attempt)) = attempts.next().await {
        match attempt {
            Ok(stream) => return Ok(stream),
            Err(error) => note(&mut failed, several, address, error),
        }
    }
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    Err(failed.unwrap_or_else(none))
}

/// Adds what an address said to what the others did.
fn note(failed: &mut Option<io::Error>, several: bool, address: SocketAddr, error: io::Error) {
    let before = failed.take().map(|error| format!("{error}; ")).unwrap_or_default();
    *failed = Some(match several {
        true => io::Error::new(error.kind(), format!("{before}{address}: {error}")),
        false => error,
    });
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work)
    }

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn rfc8305_4_families_take_turns() {
        let found = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]);
        assert_eq!(by_turns(found), addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
        assert!(by_turns(Vec::new()).is_empty());
    }

    /// The name leads to an address where nobody listens, then to the one where the server is.
    #[test]
    fn an_address_that_refuses_is_followed_by_the_next() {
        run(async {
            let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let there = server.local_addr().unwrap();
            let nobody: SocketAddr = format!("[::1]:{}", there.port()).parse().unwrap();
            let stream = race(vec![nobody, there], TcpStream::connect).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), there);
            drop(server);
            let error = race(vec![nobody, there], TcpStream::connect).await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains("[::1]") && text.contains("; 127.0.0.1"), "{text}");
            let none = race(Vec::new(), TcpStream::connect).await.unwrap_err();
            assert_eq!(none.kind(), io::ErrorKind::NotFound);
        });
    }

    /// An address that never answers does not use up the patience.
    #[test]
    fn rfc8305_5_a_silent_address_has_a_head_start_only() {
        let began = Instant::now();
        let found = addresses(&["[::1]:1", "127.0.0.1:2"]);
        let connect = async |address: SocketAddr| match address.is_ipv6() {
            true => std::future::pending().await,
            false => Ok(address),
        };
        let answered = run(race(found, connect)).unwrap();
        assert_eq!(answered.port(), 2);
        assert!((HEAD_START..Duration::from_secs(5)).contains(&began.elapsed()));
    }
}
