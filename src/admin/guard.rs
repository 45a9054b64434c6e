//! Who may request what.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;

use super::page;

/// Demands the token, except of probes, which a container runtime sends without one, and of a browser
/// that loads the live page, which asks its user for the token and holds nothing itself. A page of a
/// browser's must not order anything: browsers say with each POST where it comes from.
pub(super) async fn guard(
    State(token): State<Option<Arc<str>>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    if request.method() == Method::POST && headers.contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "requests from web pages are not allowed\n")
            .into_response();
    }
    let path = request.uri().path();
    let probe = matches!(path, "/healthz" | "/readyz");
    let empty_page = path.starts_with("/page/") || path == "/" && page::is_wanted(headers);
    let Some(token) = token.filter(|_| !probe && !empty_page) else {
        return next.run(request).await;
    };
    let brought = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let brought = brought.and_then(|value| value.strip_prefix(b"Bearer "));
    if brought.is_some_and(|brought| bool::from(brought.ct_eq(token.as_bytes()))) {
        return next.run(request).await;
    }
    let asks = [(header::WWW_AUTHENTICATE, "Bearer")];
    (
        StatusCode::UNAUTHORIZED,
        asks,
        "a token is required (server.admin.token_file): \
         Authorization: Bearer TOKEN\n",
    )
        .into_response()
}
