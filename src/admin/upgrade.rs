//! `POST /v1/upgrade`: the program at the server's path goes on in its place.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::pages::{JSON, Pages, TEXT, reply};

/// A wish for an upgrade.
#[derive(Debug)]
pub struct UpgradeRequest {
    /// How long sessions may go on; `None`: the usual time.
    pub drain: Option<Duration>,
    /// The place for the answer: what begins, or why nothing does.
    pub answer: oneshot::Sender<Result<UpgradeBegun, String>>,
}

/// Wishes for an upgrade.
pub type UpgradeRequests = crossbeam::channel::Receiver<UpgradeRequest>;

/// An upgrade that has begun.
#[derive(Clone, Debug)]
pub struct UpgradeBegun {
    /// By which its outcome is found in `/v1/status`; microseconds since 1970.
    pub id: i64,
    /// Version of the next program.
    pub to: String,
    /// How long sessions may go on.
    pub drain: Duration,
}

/// How the last upgrade of this process went.
#[derive(Clone, Debug)]
pub struct Upgraded {
    /// See [`UpgradeBegun::id`].
    pub id: i64,
    /// Version of the program before.
    pub from: String,
    /// Why it failed: the program before goes on.
    pub failed: Option<String>,
}

impl Upgraded {
    pub(super) fn shown(&self) -> Value {
        let Self { id, from, failed } = self;
        json!({ "id": id, "from": from, "ok": failed.is_none(), "error": failed })
    }
}

/// The longest time for sessions: a day.
const DRAIN_MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// Begins an upgrade; with `?drain_ms=MILLISECONDS` sessions may go on for so long. Answers once the
/// next program was found fit.
pub(super) async fn begin(State(pages): State<Arc<Pages>>, RawQuery(query): RawQuery) -> Response {
    let mut drain = None;
    for pair in query.iter().flat_map(|query| query.split('&')) {
        let wanted = pair.strip_prefix("drain_ms=").and_then(|text| text.parse().ok());
        match wanted.filter(|wanted| *wanted <= DRAIN_MAX_MS) {
            Some(wanted) => drain = Some(Duration::from_millis(wanted)),
            None => {
                let what = "want ?drain_ms=MILLISECONDS, at most a day\n";
                return reply(StatusCode::BAD_REQUEST, TEXT, what.to_owned());
            }
        }
    }
    let (answer, begun) = oneshot::channel();
    if pages.state().upgrades.try_send(UpgradeRequest { drain, answer }).is_err() {
        let what = "an upgrade is in progress, or the server is stopping\n";
        return reply(StatusCode::CONFLICT, TEXT, what.to_owned());
    }
    match begun.await {
        Ok(Ok(UpgradeBegun { id, to, drain })) => {
            let from = &pages.state().version;
            let drain = drain.as_secs_f64();
            let text = json!({ "id": id, "from": from, "to": to, "drain_seconds": drain });
            reply(StatusCode::ACCEPTED, JSON, format!("{text}\n"))
        }
        Ok(Err(why)) => reply(StatusCode::CONFLICT, TEXT, format!("{why}\n")),
        Err(_) => {
            reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the server is stopping\n".to_owned())
        }
    }
}
