//! Groups and shards.

use std::collections::BTreeMap;

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde_json::json;

use super::{LogState, blocking, error, group_error, io_error, json as reply, read_error};
use crate::{
    consumer::{Group, ShardGroup},
    log::{Committed, Log, ReadError, format_time},
};

pub(super) async fn list(State(state): State<LogState>) -> Response {
    blocking(move || {
        let listed = Log::open(&state.dir).and_then(|log| {
            let groups = Group::list(&state.dir)?;
            groups
                .iter()
                .map(|group| Ok(json!({ "group": group.name(), "shards": places(group, &log)? })))
                .collect::<Result<Vec<_>, ReadError>>()
        });
        match listed {
            Ok(groups) => reply(StatusCode::OK, &json!({ "groups": groups })),
            Err(failed) => read_error(&failed),
        }
    })
    .await
}

pub(super) async fn describe(State(state): State<LogState>, Path(name): Path<String>) -> Response {
    blocking(move || {
        let group = match Group::existing(&state.dir, &name) {
            Ok(group) => group,
            Err(failed) => return group_error(&failed),
        };
        match Log::open(&state.dir).and_then(|log| places(&group, &log)) {
            Ok(shards) => {
                reply(StatusCode::OK, &json!({ "group": group.name(), "shards": shards }))
            }
            Err(failed) => read_error(&failed),
        }
    })
    .await
}

fn places(group: &Group, log: &Log) -> Result<Vec<serde_json::Value>, ReadError> {
    let shown = |at: ShardGroup| {
        json!({
            "shard": at.shard,
            "start": at.start,
            "committed": at.committed,
            "end": at.end,
            "lag": at.lag,
            "oldest_pending": at.oldest_pending.map(format_time),
            "dead": at.dead,
        })
    };
    Ok(group.describe(log)?.into_iter().map(shown).collect())
}

/// `{"3":726}`: the next offset wanted, by shard. All of it is checked before any of it is saved;
/// the answer comes once it is durable.
pub(super) async fn commit(
    State(state): State<LogState>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    let wanted: BTreeMap<u16, u64> = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(failed) => {
            let what = format!("an object such as {{\"3\":726}} is needed: {failed}");
            return error(StatusCode::BAD_REQUEST, what);
        }
    };
    blocking(move || {
        let group = match Group::new(&state.dir, &name) {
            Ok(group) => group,
            Err(failed) => return group_error(&failed),
        };
        let shards = match Log::open(&state.dir).and_then(|log| log.shards()) {
            Ok(shards) => shards,
            Err(failed) => return read_error(&failed),
        };
        for (&shard, &offset) in &wanted {
            if !shards.contains(&shard) {
                return error(StatusCode::NOT_FOUND, format!("there is no shard {shard}"));
            }
            let mark = state.marks.get(shard);
            if offset > mark {
                let what = format!("shard {shard}: {offset} is beyond the high-water mark {mark}");
                return error(StatusCode::CONFLICT, what);
            }
        }
        for (&shard, &offset) in &wanted {
            let saved = group.offset(shard).and_then(|(mut file, _)| {
                file.seek(|now| Committed { offset, ..now.unwrap_or_default() })
            });
            if let Err(failed) = saved {
                return io_error(&failed);
            }
        }
        reply(StatusCode::OK, &json!({ "committed": wanted }))
    })
    .await
}

pub(super) async fn shards(State(state): State<LogState>) -> Response {
    blocking(move || {
        let listed = Log::open(&state.dir).and_then(|log| {
            let mut list = Vec::new();
            for shard in log.shards()? {
                let start = log.segments(shard)?.first().map_or(0, |first| first.base_offset);
                let mark = state.marks.get(shard).max(start);
                list.push(json!({ "shard": shard, "start": start, "high_water_mark": mark }));
            }
            Ok(list)
        });
        match listed {
            Ok(shards) => reply(StatusCode::OK, &json!({ "shards": shards })),
            Err(failed) => read_error(&failed),
        }
    })
    .await
}
