//! The live page: one HTML, one script, one style sheet and uPlot, compiled in, compressed once.
//!
//! It loads nothing from elsewhere and says so to the browser (Content-Security-Policy). Its data come
//! from `/v1/live`, with the token where one is configured.

use std::{io::Write, sync::LazyLock};

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};

/// Scripts and styles of this server alone, no frames, no forms.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
struct File {
    name: &'static str,
    content_type: &'static str,
    plain: &'static [u8],
    gzip: Vec<u8>,
}

impl File {
    fn new(name: &'static str, content_type: &'static str, plain: &'static [u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // A Vec takes everything.
        let _ = encoder.write_all(plain);
        Self { name, content_type, plain, gzip: encoder.finish().unwrap_or_default() }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let takes = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
        let gzip = takes.is_some_and(|takes| takes.contains("gzip")) && !self.gzip.is_empty();
        let body = if gzip { self.gzip.clone() } else { self.plain.to_vec() };
        let mut response = (
            [
                (header::CONTENT_TYPE, self.content_type),
                (header::CACHE_CONTROL, "no-cache"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::REFERRER_POLICY, "no-referrer"),
                (header::VARY, "accept, accept-encoding"),
            ],
            body,
        )
            .into_response();
        if gzip {
            let gzip = HeaderValue::from_static("gzip");
            response.headers_mut().insert(header::CONTENT_ENCODING, gzip);
        }
        response
    }
}

static HTML: LazyLock<File> = LazyLock::new(|| {
    File::new("index.html", "text/html; charset=utf-8", include_bytes!("page/index.html"))
});

static FILES: LazyLock<[File; 4]> = LazyLock::new(|| {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    const STYLE: &str = "text/css; charset=utf-8";
    [
        File::new("live.js", SCRIPT, include_bytes!("page/live.js")),
        File::new("live.css", STYLE, include_bytes!("page/live.css")),
        File::new("uplot.js", SCRIPT, include_bytes!("page/uplot.js")),
        File::new("icon.svg", "image/svg+xml", include_bytes!("page/icon.svg")),
    ]
});

/// Whether a browser asks: it wants HTML, which programs do not ask for.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// The page itself.
pub(super) fn html(headers: &HeaderMap) -> Response {
    HTML.answer(headers)
}

/// `GET /page/{file}`
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match FILES.iter().find(|file| file.name == name) {
        Some(file) => file.answer(&headers),
        None => (StatusCode::NOT_FOUND, "there is no such file\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At most 100 KB go over the wire.
    #[test]
    fn the_page_is_small() {
        let files = FILES.iter().chain([&*HTML]);
        let (plain, gzip) = files.fold((0, 0), |(plain, gzip), file| {
            assert!(!file.gzip.is_empty() && file.gzip.len() < file.plain.len(), "{}", file.name);
            (plain + file.plain.len(), gzip + file.gzip.len())
        });
        assert!(plain < 100_000 && gzip < 50_000, "{plain} bytes, {gzip} compressed");
    }
}
