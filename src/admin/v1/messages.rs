//! One message by its id.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;

use super::{LogState, blocking, error, read_error};
use crate::{
    export::{Record, event_line},
    log::{Log, RecordId},
};

/// Mail data within the JSON of one message, at most: all that the default limits let in.
const INLINE_MAX: u64 = 64 << 20;

pub(super) async fn event(State(state): State<LogState>, Path(id): Path<String>) -> Response {
    blocking(move || match read(&state, &id) {
        Ok(record) => {
            let line = event_line(&record, &state.document(INLINE_MAX));
            ([(header::CONTENT_TYPE, "application/cloudevents+json")], line).into_response()
        }
        Err(answer) => *answer,
    })
    .await
}

/// The mail data as it was sent. One range is honoured (RFC 9110 §14.2); several get all of it.
pub(super) async fn raw(
    State(state): State<LogState>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok()).map(str::to_owned);
    blocking(move || match read(&state, &id) {
        Ok(record) => raw_answer(&record.data, range.as_deref()),
        Err(answer) => *answer,
    })
    .await
}

fn raw_answer(data: &Bytes, range: Option<&str>) -> Response {
    let len = data.len() as u64;
    let common = [
        (header::CONTENT_TYPE, "message/rfc822".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        // A mail in a browser is a download, never a page of this origin.
        (header::CONTENT_DISPOSITION, "attachment; filename=message.eml".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    match range.and_then(|range| parse_range(range, len)) {
        None => (common, Body::from(data.clone())).into_response(),
        Some(None) => {
            let told = [(header::CONTENT_RANGE, format!("bytes */{len}"))];
            (StatusCode::RANGE_NOT_SATISFIABLE, told).into_response()
        }
        Some(Some((from, to))) => {
            let told = [(header::CONTENT_RANGE, format!("bytes {from}-{}/{len}", to - 1))];
            // Both lie within the data's length, a usize.
            let part = data.slice(from as usize..to as usize);
            (StatusCode::PARTIAL_CONTENT, common, told, Body::from(part)).into_response()
        }
    }
}

/// `None`: not a single range of bytes, to be ignored. `Some(None)`: nothing lies there. Half-open.
fn parse_range(text: &str, len: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let count: u64 = last.trim().parse().ok()?;
        return Some((count > 0 && len > 0).then(|| (len.saturating_sub(count), len)));
    }
    let first: u64 = first.trim().parse().ok()?;
    let end = match last.trim() {
        "" => len,
        last => last.parse::<u64>().ok().filter(|&last| last >= first)?.saturating_add(1).min(len),
    };
    Some((first < len).then_some((first, end)))
}

/// Reads a record whole.
fn read(state: &LogState, id: &str) -> Result<Record, Box<Response>> {
    let id: RecordId =
        id.parse().map_err(|failed| Box::new(error(StatusCode::BAD_REQUEST, failed)))?;
    if id.offset.get() >= state.marks.get(id.shard) {
        // Not synced yet, or never written: nobody was told of it.
        return Err(Box::new(error(StatusCode::NOT_FOUND, format!("no record {id}"))));
    }
    Log::open(&state.dir)
        .and_then(|log| log.get(id, |log, view| Ok(Record::read(log, id, view)?)))
        .map_err(|failed| Box::new(read_error(&failed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, wanted) in [
            ("bytes=0-9", Some(Some((0, 10)))),
            ("bytes=90-", Some(Some((90, 100)))),
            ("bytes=90-500", Some(Some((90, 100)))),
            ("bytes=-7", Some(Some((93, 100)))),
            ("bytes=-700", Some(Some((0, 100)))),
            ("bytes=100-", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=9-3", None),
            ("bytes=0-1,5-6", None),
            ("lines=0-1", None),
            ("bytes=a-b", None),
        ] {
            assert_eq!(parse_range(text, 100), wanted, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Some(None));
    }
}
