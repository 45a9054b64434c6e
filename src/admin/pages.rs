//! The pages, and the rules for their status.

use super::{
    AdminState, drain, insight,
    live::{self, Live},
    page, status, upgrade,
};
use crate::metrics::{
    Detail, DiskFacts, DiskState, Extra, Format, ProcessFacts, ShardState, ShardStats, render,
};
use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, oneshot};

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";

/// A shard whose heartbeat has not moved for this long is taken for dead.
const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(5);
/// How often heartbeats are looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for a shard's copy; Prometheus gives a scrape 10 s by default.
const COPY_WAIT_MAX: Duration = Duration::from_secs(1);
/// How often a wanted copy is looked for: shards beat every few tens of milliseconds.
const COPY_POLL: Duration = Duration::from_millis(2);

pub(super) struct Pages {
    state: AdminState,
    started: Instant,
    live: Live,
    beats: std::sync::Mutex<Vec<Beat>>,
    /// Last copy of each shard. The lock is held during a scrape, so there is one at a time.
    last: Mutex<Vec<Option<ShardStats>>>,
    /// Held while the shards' sketches are asked for.
    hitters: Mutex<()>,
}

/// A shard's heartbeat counter and when it last moved.
struct Beat {
    count: u64,
    moved: Instant,
}

impl Pages {
    pub(super) fn new(state: AdminState) -> Self {
        let moved = Instant::now();
        let beats = state
            .published
            .iter()
            .map(|published| Beat { count: published.heartbeats(), moved })
            .collect();
        let last = Mutex::new(vec![None; state.published.len()]);
        let beats = std::sync::Mutex::new(beats);
        let hitters = Mutex::default();
        Self { state, started: moved, live: Live::new(), beats, last, hitters }
    }

    pub(super) fn state(&self) -> &AdminState {
        &self.state
    }

    /// Held while the shards' sketches are asked for, as each has one copy to give.
    pub(super) async fn hitters_lock(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.hitters.lock().await
    }

    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// Since the server answers here.
    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The log's disk.
    pub(super) fn disk(&self) -> Option<DiskFacts> {
        (self.state.disk)()
    }

    /// Shards whose heartbeat has not moved lately.
    fn stuck_shards(&self) -> Vec<usize> {
        let now = Instant::now();
        let mut beats = self.beats.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut stuck = Vec::new();
        let pairs = self.state.published.iter().zip(beats.iter_mut());
        for (shard, (published, beat)) in pairs.enumerate() {
            let count = published.heartbeats();
            if count != beat.count {
                *beat = Beat { count, moved: now };
            } else if published.state() == ShardState::Stopped {
                // Ended in order, while exporters go on.
            } else if now.duration_since(beat.moved) > HEARTBEAT_AGE_MAX {
                stuck.push(shard);
            }
        }
        stuck
    }

    /// Shards whose log gave up.
    fn failed_shards(&self) -> Vec<usize> {
        let states = self.state.published.iter().map(|published| published.state());
        states.enumerate().filter(|(_, s)| *s == ShardState::Failed).map(|(at, _)| at).collect()
    }

    /// Why no mail should be sent here; empty if it should.
    pub(super) fn obstacles(&self) -> Vec<String> {
        let mut obstacles = Vec::new();
        for (shard, published) in self.state.published.iter().enumerate() {
            match published.state() {
                ShardState::Serving => {}
                ShardState::Recovering => obstacles.push(format!("shard {shard} is recovering")),
                ShardState::Draining => obstacles.push(format!("shard {shard} is draining")),
                ShardState::Failed => {
                    obstacles.push(format!("the log of shard {shard} has failed"))
                }
                ShardState::Stopped => obstacles.push(format!("shard {shard} has stopped")),
            }
        }
        if !self.state.ready.listening.load(Ordering::Acquire) {
            obstacles.push("not listening".to_owned());
        }
        if self.state.ready.draining.load(Ordering::Acquire) {
            obstacles.push("draining".to_owned());
        }
        if let Some(disk) = (self.state.disk)().filter(|disk| disk.state == DiskState::Full) {
            obstacles.push(format!("disk full: {}", disk.reason));
        }
        obstacles.extend(self.state.ready.standing());
        obstacles
    }

    /// Fresh copies of all shards' counters; old ones of those that do not answer.
    pub(super) async fn copies(&self) -> Vec<ShardStats> {
        let mut last = self.last.lock().await;
        for published in &self.state.published {
            published.request();
        }
        let deadline = Instant::now() + COPY_WAIT_MAX;
        // A shard that has ended answers no more.
        let slots = self.state.published.iter().enumerate();
        let answering = slots.filter(|(_, slot)| slot.state() != ShardState::Stopped);
        let mut missing: Vec<usize> = answering.map(|(shard, _)| shard).collect();
        loop {
            missing.retain(|shard| {
                let copy = self.state.published.get(*shard).and_then(|published| published.take());
                let answered = copy.is_some();
                if let (Some(copy), Some(slot)) = (copy, last.get_mut(*shard)) {
                    *slot = Some(*copy);
                }
                !answered
            });
            if missing.is_empty() || Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(COPY_POLL).await;
        }
        for (published, copy) in self.state.published.iter().zip(&mut *last) {
            // The last copy of one that has ended was made before its last session was over.
            if let Some(copy) = copy.as_mut().filter(|_| published.state() == ShardState::Stopped) {
                copy.listeners.iter_mut().for_each(|listener| listener.sessions_active = 0);
            }
        }
        last.iter().flatten().cloned().collect()
    }
}

pub(super) fn router(pages: Arc<Pages>) -> Router {
    let hosts = pages.state.log.hosts.clone();
    let insight = super::v1::guarded(insight::router(pages.clone()), hosts);
    let v1 = super::v1::router(pages.state.log.clone()).merge(insight);
    let token = pages.state.token.as_deref().map(Arc::from);
    Router::new()
        .route("/", get(index))
        .route("/page/{file}", get(page::file))
        .route("/v1/live", get(live::watch))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/v1/status", get(status::status))
        .route("/v1/reload", post(reload))
        .route("/v1/upgrade", post(upgrade::begin))
        .route("/v1/drain", get(drain::progress).post(drain::begin))
        .with_state(pages)
        .merge(v1)
        .layer(middleware::from_fn_with_state(token, super::guard::guard))
}

/// Keeps the times of the heartbeats' moves right between probes. Runs until aborted.
pub(super) async fn watch_heartbeats(pages: Arc<Pages>) {
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        pages.stuck_shards();
    }
}

/// The live page for browsers, a list of addresses for everything else.
async fn index(State(pages): State<Arc<Pages>>, headers: HeaderMap) -> Response {
    if page::is_wanted(&headers) {
        return page::html(&headers);
    }
    let AdminState { version, revision, published, .. } = &pages.state;
    let mut text = format!("mailrace {version} ({revision})   {} shards\n\n", published.len());
    text.push_str("/          in a browser: the live page, from /v1/live\n");
    text.push_str("/metrics   counters for Prometheus; /metrics?detail=shard splits by shard\n");
    text.push_str("/healthz   200 while every shard answers\n");
    text.push_str(
        "/v1/stream  records as they arrive; also /v1/messages/ID, /v1/groups, /v1/status\n",
    );
    text.push_str("/readyz    200 while mail should be sent here\n");
    reply(StatusCode::OK, TEXT, text)
}

async fn reload(State(pages): State<Arc<Pages>>) -> Response {
    let (answer, outcome) = oneshot::channel();
    if pages.state.reloads.try_send(answer).is_err() {
        return reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, "too many reloads\n".to_owned());
    }
    let lines =
        |lines: Vec<String>| lines.iter().fold(String::new(), |all, line| all + line + "\n");
    match outcome.await {
        Ok(Ok(told)) => reply(StatusCode::OK, TEXT, lines(told)),
        Ok(Err(errors)) => reply(StatusCode::UNPROCESSABLE_ENTITY, TEXT, lines(errors)),
        Err(_) => {
            reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the server is shutting down\n".to_owned())
        }
    }
}

async fn metrics(
    State(pages): State<Arc<Pages>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let started = Instant::now();
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::wanted(&accepts.collect::<Vec<_>>().join(","));
    let native = format == Format::Protobuf;
    let by_shard = query.is_some_and(|query| query.split('&').any(|pair| pair == "detail=shard"));
    let copies = pages.copies().await;
    let AdminState { version, revision, ready, disk, export, dns, .. } = &pages.state;
    let extra = Extra {
        version: version.clone(),
        revision: revision.clone(),
        disk: disk(),
        not_durable: ready.not_durable.load(Ordering::Relaxed),
        recovery: ready.recovery(),
        warnings: ready.warnings.load(Ordering::Relaxed),
        errors: ready.errors.load(Ordering::Relaxed),
        log_lines_dropped: ready.lines_dropped.load(Ordering::Relaxed),
        process: ProcessFacts::read(),
        scrape_started: Some(started),
        detail: if by_shard { Detail::Shard } else { Detail::Summed },
        log: export.log.facts(),
        more: [export.families(native), dns.families(native)].concat(),
    };
    let mut answer = reply(StatusCode::OK, format.content_type(), render(&copies, &extra, format));
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    answer
}

async fn healthz(State(pages): State<Arc<Pages>>) -> Response {
    let stuck = pages.stuck_shards();
    let failed = pages.failed_shards();
    if stuck.is_empty() && failed.is_empty() {
        return reply(StatusCode::OK, TEXT, "ok\n".to_owned());
    }
    let mut text = String::new();
    for shard in failed {
        let _ = writeln!(text, "the log of shard {shard} has failed");
    }
    for shard in stuck {
        // Writing to a string cannot fail.
        let seconds = HEARTBEAT_AGE_MAX.as_secs();
        let _ = writeln!(text, "shard {shard} has not answered for {seconds} s");
    }
    reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
}

async fn readyz(State(pages): State<Arc<Pages>>) -> Response {
    let obstacles = pages.obstacles();
    if obstacles.is_empty() {
        // New mail is safe here; what is wrong is with the old.
        let faults = pages.state.ready.faults();
        let text = match faults.is_empty() {
            true => "ready\n".to_owned(),
            false => format!("ready, degraded\n{}\n", faults.join("\n")),
        };
        return reply(StatusCode::OK, TEXT, text);
    }
    reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, obstacles.join("\n") + "\n")
}

pub(super) fn reply(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body.into()).into_response()
}
