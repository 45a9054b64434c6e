//! The connections of the admin listener: how many there may be, and how long one may take to ask.
//!
//! A head of a request that is not complete within [`HEAD_MAX`] ends its connection, and so does the
//! wait for the next one. Where there are [`CONNECTIONS_MAX`] already, the oldest that has never asked
//! anything makes room, so that a probe gets through whoever holds connections open. Only where all of
//! them have asked is a new one refused, with 503.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Body, extract::Request, http::StatusCode, response::IntoResponse};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::sleep,
};

/// Some consumers, viewers of the page, Prometheus, probes; each costs a descriptor of the mail's.
pub(super) const CONNECTIONS_MAX: usize = 512;

/// For the head of a request, and between two requests.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// For the body of a request: all are small.
const BODY_MAX: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: usize = 1 << 20;

/// Between two lines of the log about connections that were refused or ended for others.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// After an accept that failed, for want of descriptors mostly.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\n\
                      content-length: 38\r\nconnection: close\r\n\r\n\
                      too many connections; try again later\n";

/// Accepts and serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    let open = Arc::new(Open::default());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Some(place) = Open::admit(&open) {
                    tokio::spawn(converse(stream, router.clone(), place));
                } else {
                    // It fits into the socket's buffer; who does not read it sees the close.
                    let _ = stream.try_write(BUSY);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the admin listener cannot accept");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Serves one connection to its end.
async fn converse(stream: TcpStream, router: Router, place: Place) {
    let asked = Arc::clone(&place.one);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        asked.asked.store(true, Ordering::Relaxed);
        answer(router.clone(), request)
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Whatever ends it is the client's matter.
        _ = serving => {}
        () = place.one.ended.notified() => {}
    }
}

/// The router gets requests that are complete: no handler waits for a client.
async fn answer(
    router: Router,
    request: hyper::Request<Incoming>,
) -> Result<axum::response::Response, std::convert::Infallible> {
    use tower_service::Service as _;
    let (head, body) = request.into_parts();
    let whole = axum::body::to_bytes(Body::new(body), BODY_BYTES_MAX);
    let body = match tokio::time::timeout(BODY_MAX, whole).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let what = "the request's body is incomplete, or larger than 1 MiB\n";
            return Ok((StatusCode::PAYLOAD_TOO_LARGE, what).into_response());
        }
        Err(_) => {
            let close = [(axum::http::header::CONNECTION, "close")];
            let what = "the request's body took too long\n";
            return Ok((StatusCode::REQUEST_TIMEOUT, close, what).into_response());
        }
    };
    let mut router = router;
    router.call(Request::from_parts(head, Body::from(body))).await
}

/// One connection.
#[derive(Debug, Default)]
struct One {
    asked: AtomicBool,
    ended: Notify,
}

/// Those that are open, by age.
#[derive(Debug, Default)]
struct Open {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    all: BTreeMap<u64, Arc<One>>,
    told: Option<Instant>,
    ended: u64,
    refused: u64,
}

/// A connection's place among those that are open, for as long as it lives.
#[derive(Debug)]
struct Place {
    open: Arc<Open>,
    number: u64,
    one: Arc<One>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.lock().all.remove(&self.number);
    }
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: there is no room.
    fn admit(open: &Arc<Self>) -> Option<Place> {
        let mut inner = open.lock();
        if inner.all.len() >= CONNECTIONS_MAX {
            let idle = inner.all.iter().find(|(_, one)| !one.asked.load(Ordering::Relaxed));
            let idle = idle.map(|(number, _)| *number);
            let Some(one) = idle.and_then(|number| inner.all.remove(&number)) else {
                inner.refused += 1;
                inner.tell();
                return None;
            };
            inner.ended += 1;
            inner.tell();
            one.ended.notify_one();
        }
        let (number, one) = (inner.next, Arc::new(One::default()));
        inner.next += 1;
        inner.all.insert(number, Arc::clone(&one));
        Some(Place { open: Arc::clone(open), number, one })
    }
}

impl Inner {
    fn tell(&mut self) {
        let now = Instant::now();
        if self.told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
            return;
        }
        self.told = Some(now);
        let (ended, refused) = (std::mem::take(&mut self.ended), std::mem::take(&mut self.refused));
        tracing::warn!(
            ended,
            refused,
            "the admin listener has {CONNECTIONS_MAX} connections: those that ask nothing are \
             ended for new ones"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_asked_nothing_makes_room() {
        let open = Arc::new(Open::default());
        let places: Vec<_> = (0..CONNECTIONS_MAX).map(|_| Open::admit(&open).unwrap()).collect();
        places[0].one.asked.store(true, Ordering::Relaxed);
        let more = Open::admit(&open).unwrap();
        assert!(!open.lock().all.contains_key(&1) && open.lock().all.contains_key(&0));
        for place in places.iter().chain([&more]) {
            place.one.asked.store(true, Ordering::Relaxed);
        }
        assert!(Open::admit(&open).is_none(), "all are at work");
        drop(more);
        assert!(Open::admit(&open).is_some());
        drop(places);
        assert_eq!(open.lock().all.len(), 0);
    }

    #[test]
    fn the_refusal_has_its_length() {
        let text = std::str::from_utf8(BUSY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
