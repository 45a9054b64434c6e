//! What the server does at this moment, for people who look for something: `GET /v1/trace` follows
//! sessions, `GET /v1/hitters` says who sends the most, `POST /v1/dump` writes the flight recorder to
//! a file.
//!
//! All three name addresses, so they are guarded like the log (see [`super::v1`]).

use std::{convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminState,
    pages::{JSON, Pages, TEXT, reply},
};
use crate::{
    log::{format_time_micros, private_file, unix_micros},
    metrics::{HitBy, Hitters, ShardState, merged},
    shard::{
        flight,
        trace::{Filter, Following, TraceEvent, What},
    },
};

/// How often a trace looks for events.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A quiet trace sends an empty line this often, so that either side sees that the other is gone.
const QUIET_LOOKS: u32 = 20;

/// Events in one piece of an answer.
const PIECE_EVENTS: usize = 512;

/// Longest wait for a shard's sketches.
const COPY_WAIT: Duration = Duration::from_secs(1);

pub(super) fn router(pages: Arc<Pages>) -> Router {
    Router::new()
        .route("/v1/trace", get(trace))
        .route("/v1/hitters", get(hitters))
        .route("/v1/dump", post(dump))
        .with_state(pages)
}

/// The parameters of a trace.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    client: Option<String>,
    listener: Option<String>,
    from: Option<String>,
    rcpt: Option<String>,
}

/// What a request asks for is wrong.
fn bad(why: &str) -> Response {
    reply(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n"))
}

async fn trace(
    State(pages): State<Arc<Pages>>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    let Wanted { client, listener, from, rcpt } = match query {
        Ok(Query(wanted)) => wanted,
        Err(failed) => return bad(&failed.body_text()),
    };
    let client = match client.as_deref().map(str::parse).transpose() {
        Ok(client) => client,
        Err(error) => return bad(&format!("client: {error}")),
    };
    let filter = Filter { client, listener, from, rcpt };
    let AdminState { traces, published, .. } = pages.state();
    let seen = traces.seen();
    let Some(following) = traces.watch(filter) else {
        let what = "too many traces at once: end one and try again\n";
        return reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, what);
    };
    // The answer begins once the shards know: what happens from then on is in it.
    let running = published.iter().filter(|shard| shard.state() != ShardState::Stopped).count();
    let deadline = tokio::time::Instant::now() + COPY_WAIT;
    while traces.seen() < seen + running as u64 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let body = futures_util::stream::unfold((following, 0), async |(following, mut quiet)| {
        loop {
            let piece = piece(&following);
            if !piece.is_empty() {
                let piece: Result<_, Infallible> = Ok(Bytes::from(piece));
                return Some((piece, (following, 0)));
            }
            quiet += 1;
            if quiet % QUIET_LOOKS == 1 {
                return Some((Ok(Bytes::from_static(b"\n")), (following, quiet)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    let headers =
        [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(body)).into_response()
}

/// The events that are there, a line each.
fn piece(following: &Following) -> String {
    let mut lines = String::new();
    let dropped = following.take_dropped();
    if dropped > 0 {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{}", json!({ "event": "dropped", "events": dropped }));
    }
    for _ in 0..PIECE_EVENTS {
        let Some(event) = following.poll() else { break };
        let _ = writeln!(lines, "{}", line(&event));
    }
    lines
}

fn line(event: &TraceEvent) -> Value {
    let seconds = |micros: u64| micros as f64 / 1e6;
    let (name, more) = match &event.what {
        What::Opened => ("opened", json!({})),
        What::Handshake { tls, took } => {
            ("handshake", json!({ "ok": !tls.is_empty(), "tls": tls, "seconds": seconds(*took) }))
        }
        What::Refused { stage, code, reason, from, rcpt } => (
            "refused",
            json!({ "stage": stage, "code": code, "reason": reason, "from": from, "rcpt": rcpt }),
        ),
        What::Received { from, rcpts, recipients, bytes, took } => (
            "received",
            json!({
                "from": from, "rcpts": rcpts, "recipients": recipients, "bytes": bytes,
                "seconds": seconds(*took),
            }),
        ),
        What::Stored { id, commit, took } => (
            "stored",
            json!({ "id": id, "commit_seconds": seconds(*commit), "seconds": seconds(*took) }),
        ),
        What::Closed { reason, messages, took } => {
            ("closed", json!({ "reason": reason, "messages": messages, "seconds": seconds(*took) }))
        }
    };
    let mut line = json!({
        "time": format_time_micros(i64::try_from(event.at).unwrap_or(i64::MAX)),
        "event": name,
        "shard": event.shard,
        "session": event.session,
        "client": event.client.ip().to_canonical(),
        "port": event.client.port(),
        "listener": event.listener,
    });
    if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
        line.extend(more);
    }
    line
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct By {
    by: String,
    limit: Option<usize>,
}

async fn hitters(
    State(pages): State<Arc<Pages>>,
    query: Result<Query<By>, QueryRejection>,
) -> Response {
    let By { by, limit } = match query {
        Ok(Query(wanted)) => wanted,
        Err(failed) => return bad(&failed.body_text()),
    };
    let limit = limit.unwrap_or(20).min(1_000);
    let (hits, total): (Vec<Value>, u64) = if by == "reply" {
        // They are few, and counted exactly.
        let mut codes = std::collections::BTreeMap::new();
        for stats in pages.copies().await {
            for (code, count) in stats.names.replies.iter().zip(&stats.replies) {
                *codes.entry(*code).or_insert(0) += count;
            }
        }
        let mut codes: Vec<(&str, u64)> = codes.into_iter().filter(|(_, n)| *n > 0).collect();
        codes.sort_by_key(|(code, count)| (std::cmp::Reverse(*count), *code));
        let hit = |(code, count): &(&str, u64)| json!({ "key": code, "count": count, "error": 0 });
        (codes.iter().map(hit).collect(), codes.iter().map(|(_, count)| count).sum())
    } else if let Some(by) = HitBy::named(&by) {
        let hits = merged(sketches(&pages).await.iter().map(|shard| shard.hits(by)));
        let total = hits.iter().map(|hit| hit.count).sum();
        let hit = |hit: &crate::metrics::Hit| json!({ "key": hit.key, "count": hit.count, "error": hit.error });
        (hits.iter().map(hit).collect(), total)
    } else {
        return bad("by: client, sender-domain, rcpt-domain or reply");
    };
    let hits: Vec<_> = hits.into_iter().take(limit).collect();
    reply(
        StatusCode::OK,
        JSON,
        json!({ "by": by, "total": total, "hits": hits }).to_string() + "\n",
    )
}

/// A copy of each shard's sketches; shards that do not answer are left out.
async fn sketches(pages: &Pages) -> Vec<Hitters> {
    let running = || {
        let shards = pages.state().published.iter();
        shards.filter(|shard| shard.state() != ShardState::Stopped)
    };
    let _one_at_a_time = pages.hitters_lock().await;
    running().for_each(|shard| shard.request_hitters());
    let deadline = tokio::time::Instant::now() + COPY_WAIT;
    let (mut found, wanted) = (Vec::new(), running().count());
    while found.len() < wanted && tokio::time::Instant::now() < deadline {
        found.extend(running().filter_map(|shard| shard.take_hitters()).map(|copy| *copy));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    found
}

/// Writes the flight recorder into the data directory; answers with the path.
async fn dump(State(pages): State<Arc<Pages>>) -> Response {
    let now = u64::try_from(unix_micros()).unwrap_or(0);
    let path = pages.state().log.dir.join(format!("flight-{now}.bin"));
    let written = private_file()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| flight::write(&pages.state().recorders, now, &mut file));
    match written {
        Ok(()) => reply(StatusCode::OK, TEXT, format!("{}\n", path.display())),
        Err(error) => {
            let what = format!("cannot write {}: {error}\n", path.display());
            reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, what)
        }
    }
}
