//! The stream API: the log for consumers in any language, over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/stream` | records as newline-delimited CloudEvents, or length-delimited protobuf |
//! | `POST /v1/groups/G/commit` | `{"3":726}`: the next offset wanted, by shard; durable when answered |
//! | `GET /v1/groups`, `/v1/groups/G` | where groups are |
//! | `GET /v1/messages/ID`, `…/raw` | one message, as JSON or as it was sent (with Range) |
//! | `GET /v1/shards`, `/v1/status` | marks; version, shards, groups and state |
//!
//! Reading blocks, so it is done on the blocking pool; a slow reader holds a few chunks of memory
//! and nothing else (D11). Mail is private: without a token, a request whose Host is a name that is
//! neither localhost nor configured is refused, or a web page could have its visitor's browser read
//! it (DNS rebinding).

mod groups;
mod messages;
mod stream;

use std::{io, path::PathBuf, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use crate::{
    consumer::GroupError,
    export::{DocumentOptions, Encoding, Key},
    log::{HighWaterMarks, ReadError, Waiters},
    metrics::ExportMetrics,
};

/// What the stream API reads.
#[derive(Clone)]
pub struct LogState {
    /// Data directory.
    pub dir: PathBuf,
    /// Its shards' marks.
    pub marks: Arc<HighWaterMarks>,
    /// Tells of them.
    pub waiters: Waiters,
    /// Where readers are counted.
    pub metrics: ExportMetrics,
    /// In front of `/v1/messages/…` in references.
    pub reference_url: String,
    /// By which names it may be asked.
    pub hosts: Hosts,
}

/// The names in the Host field of a request that are answered; addresses and localhost always are.
#[derive(Clone, Debug)]
pub enum Hosts {
    /// Every request has shown a token, which no page of another site knows.
    Any,
    /// These, in lower case.
    Only(Arc<[String]>),
}

impl Hosts {
    fn answer_to(&self, host: &str) -> bool {
        let name = host_name(host);
        match self {
            Self::Any => true,
            Self::Only(names) => {
                is_address(name) || names.iter().any(|known| name.eq_ignore_ascii_case(known))
            }
        }
    }
}

impl LogState {
    fn document(&self, inline_max: u64) -> DocumentOptions {
        DocumentOptions {
            encoding: Encoding::Json,
            inline_max,
            reference_url: self.reference_url.clone(),
            sha256: false,
            key: Key::RcptDomain,
        }
    }
}

pub(super) fn router(state: LogState) -> Router {
    Router::new()
        .route("/v1/stream", get(stream::stream))
        .route("/v1/groups", get(groups::list))
        .route("/v1/groups/{group}", get(groups::describe))
        .route("/v1/groups/{group}/commit", post(groups::commit))
        .route("/v1/messages/{id}", get(messages::event))
        .route("/v1/messages/{id}/raw", get(messages::raw))
        .route("/v1/shards", get(groups::shards))
        .route_layer(middleware::from_fn_with_state(state.hosts.clone(), refuse_names))
        .with_state(state)
}

/// Routes that answer as the log's do: see the module's page.
pub(super) fn guarded(router: Router, hosts: Hosts) -> Router {
    router.route_layer(middleware::from_fn_with_state(hosts, refuse_names))
}

/// See the module's page.
async fn refuse_names(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_none_or(|host| hosts.answer_to(host)) {
        return next.run(request).await;
    }
    let what = "this API answers to an IP address, to localhost, and to the names in \
                server.admin.hosts; or configure server.admin.token_file and send the token";
    error(StatusCode::MISDIRECTED_REQUEST, what)
}

/// A Host without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether the name in a Host is an address, or localhost.
fn is_address(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{value}\n")).into_response()
}

fn error(status: StatusCode, what: impl ToString) -> Response {
    json(status, &serde_json::json!({ "error": what.to_string() }))
}

/// The answer to an error of the log.
fn read_error(failed: &ReadError) -> Response {
    let status = match failed {
        ReadError::NoShard { .. }
        | ReadError::OtherNode { .. }
        | ReadError::NoRecord { .. }
        | ReadError::Deleted { .. }
        | ReadError::Missing { .. } => StatusCode::NOT_FOUND,
        ReadError::Visitor(failed) => return io_error(failed),
        ReadError::Io { .. }
        | ReadError::NoDataDir { .. }
        | ReadError::NodeMissing { .. }
        | ReadError::NodeDamaged { .. }
        | ReadError::OtherLog { .. }
        | ReadError::Unreadable { .. }
        | ReadError::Unsealed { .. }
        | ReadError::Damaged { .. }
        | ReadError::Unsupported { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    error(status, failed)
}

/// The answer to an error of the disk, or of the log where it is one of that within.
fn io_error(failed: &io::Error) -> Response {
    if let Some(failed) = failed.get_ref().and_then(|inner| inner.downcast_ref()) {
        return read_error(failed);
    }
    let status = match failed.kind() {
        io::ErrorKind::NotFound => StatusCode::NOT_FOUND,
        io::ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    error(status, failed)
}

fn group_error(failed: &GroupError) -> Response {
    match failed {
        GroupError::BadName(_) => error(StatusCode::BAD_REQUEST, failed),
        GroupError::Missing(_) => error(StatusCode::NOT_FOUND, failed),
        GroupError::Active(_) => error(StatusCode::CONFLICT, failed),
        GroupError::Io(failed) => io_error(failed),
    }
}

/// Runs what blocks on the blocking pool.
async fn blocking(work: impl FnOnce() -> Response + Send + 'static) -> Response {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|failed| error(StatusCode::INTERNAL_SERVER_ERROR, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_known_names_are_answered() {
        let none = Hosts::Only([].into());
        for good in
            ["127.0.0.1:2580", "127.0.0.1", "[::1]:2580", "[::1]", "localhost:1", "LocalHost"]
        {
            assert!(none.answer_to(good), "{good}");
        }
        for bad in ["evil.test", "evil.test:2580", "127.0.0.1.evil.test", "", "localhost.evil.test"]
        {
            assert!(!none.answer_to(bad), "{bad}");
            assert!(Hosts::Any.answer_to(bad), "{bad}");
        }
        let some = Hosts::Only(["mx.test".to_owned()].into());
        assert!(some.answer_to("MX.test:2580") && some.answer_to("mx.test"));
        assert!(!some.answer_to("a.mx.test") && !some.answer_to("mx.test.evil.test:2580"));
    }
}
