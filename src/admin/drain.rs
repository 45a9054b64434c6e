//! `/v1/drain`: begins the orderly end, and says how far it is.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    Readiness,
    pages::{JSON, Pages, TEXT, reply},
    survey::survey,
};
use crate::{log::Log, metrics::ShardState};

/// A wish for a drain.
#[derive(Debug)]
pub struct DrainRequest {
    /// The server stays once its ports are closed, and exports, until it is stopped.
    pub stay: bool,
    /// The place for the answer: how long the ports stay open; `None`: it stops already, and cannot
    /// stay.
    pub answer: oneshot::Sender<Option<Duration>>,
}

/// Wishes for a drain.
pub type DrainRequests = crossbeam::channel::Receiver<DrainRequest>;

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is none.
    Serving,
    /// The ports are open still.
    Lead,
    /// The ports are closed, sessions are finished.
    Sessions,
    /// The log has ended.
    Closed,
}

impl Phase {
    fn of(ready: &Readiness, mut shards: impl Iterator<Item = ShardState>) -> Self {
        let ended = |state| matches!(state, ShardState::Draining | ShardState::Stopped);
        if ready.closed.load(Ordering::Acquire) {
            Self::Closed
        } else if !ready.draining.load(Ordering::Acquire) {
            Self::Serving
        } else if shards.any(ended) {
            Self::Sessions
        } else {
            Self::Lead
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Lead => "lead",
            Self::Sessions => "sessions",
            Self::Closed => "closed",
        }
    }
}

/// Begins the drain that SIGTERM begins too; with `?stay=1` the server stays and exports. Asked
/// again, it says how much time is left.
pub(super) async fn begin(State(pages): State<Arc<Pages>>, RawQuery(query): RawQuery) -> Response {
    let stay = query.is_some_and(|query| query.split('&').any(|pair| pair == "stay=1"));
    let (answer, lead) = oneshot::channel();
    let gone =
        || reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the server has stopped\n".to_owned());
    if pages.state().drains.try_send(DrainRequest { stay, answer }).is_err() {
        return gone();
    }
    // At once: who asks now and looks at /readyz next must not be sent mail.
    pages.state().ready.set_draining();
    match lead.await {
        Ok(Some(lead)) => {
            let mut text = json!({ "draining": true, "lead_seconds": lead.as_secs_f64() });
            if stay {
                text["stays"] = json!(true);
            }
            reply(StatusCode::ACCEPTED, JSON, format!("{text}\n"))
        }
        Ok(None) => {
            let what = "the server is stopping already, and does not wait for its exporters\n";
            reply(StatusCode::CONFLICT, TEXT, what.to_owned())
        }
        Err(_) => gone(),
    }
}

/// How far the drain is, and what those it waits for have not taken.
pub(super) async fn progress(State(pages): State<Arc<Pages>>) -> Response {
    let (dir, marks) = (pages.state().log.dir.clone(), pages.state().log.marks.clone());
    let (ready, awaited) = (pages.state().ready.clone(), pages.state().ready.awaited());
    let states = pages.state().published.iter().map(|published| published.state());
    // Before the survey: a log that has ended gets no more records meanwhile.
    let phase = Phase::of(&ready, states);
    let sessions: u64 = pages.copies().await.iter().map(|copy| copy.sessions()).sum();
    let read = move || survey(&Log::open(&dir)?, &marks, &awaited);
    let surveyed = tokio::task::spawn_blocking(read).await;
    let surveyed = match surveyed {
        Ok(Ok(surveyed)) => surveyed,
        Ok(Err(error)) => {
            return reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n"));
        }
        Err(error) => {
            return reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n"));
        }
    };
    let awaited: Vec<_> = surveyed.iter().filter(|group| group.is_awaited).collect();
    let left: u64 = awaited.iter().map(|group| group.left()).sum();
    let rest: Vec<Value> = awaited.iter().flat_map(|group| group.rest()).collect();
    let dead = awaited.iter().filter(|group| group.dead() > 0);
    let dead: Vec<_> = dead.map(|of| json!({ "group": of.name, "dead": of.dead() })).collect();
    let text = json!({
        "phase": phase.name(),
        "sessions": sessions,
        "waits_for": awaited.iter().map(|group| &group.name).collect::<Vec<_>>(),
        "records_left": left,
        "left": rest,
        "dead_letters": dead,
        "exported": phase == Phase::Closed && left == 0,
    });
    reply(StatusCode::OK, JSON, format!("{text}\n"))
}
