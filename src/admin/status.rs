//! `/v1/status`: what the server is and how it does, for people and scripts.

use std::sync::{Arc, atomic::Ordering};

use axum::{extract::State, http::StatusCode, response::Response};
use serde_json::{Value, json};

use super::{
    AdminState,
    pages::{JSON, Pages, reply},
    survey::{Surveyed, survey},
};
use crate::{log::Log, metrics::ShardState};

pub(super) async fn status(State(pages): State<Arc<Pages>>) -> Response {
    let AdminState { version, revision, published, ready, .. } = pages.state();
    let copies = pages.copies().await;
    let sessions_of = |shard: u16| {
        let copy = copies.iter().find(|copy| copy.shard == u32::from(shard));
        copy.map_or(0, |copy| copy.sessions())
    };
    let (dir, marks) = (pages.state().log.dir.clone(), pages.state().log.marks.clone());
    let awaited = ready.awaited();
    let read = tokio::task::spawn_blocking(move || {
        let log = Log::open(&dir)?;
        let mut shards = Vec::new();
        for shard in log.shards()? {
            let start = log.segments(shard)?.first().map_or(0, |first| first.base_offset);
            shards.push((shard, start, marks.get(shard).max(start)));
        }
        std::io::Result::Ok((shards, survey(&log, &marks, &awaited)?))
    });
    let (shards, groups, trouble) = match read.await {
        Ok(Ok((shards, groups))) => (shards, groups, None),
        Ok(Err(error)) => (Vec::new(), Vec::new(), Some(error.to_string())),
        Err(error) => (Vec::new(), Vec::new(), Some(error.to_string())),
    };
    let by_shard = shards.iter().map(|&(shard, start, mark)| {
        let state = published.get(usize::from(shard)).map(|slot| slot.state());
        json!({
            "shard": shard,
            "state": state.map_or("left", ShardState::name),
            "start": start,
            "high_water_mark": mark,
            "sessions": sessions_of(shard),
        })
    });
    let by_shard: Vec<Value> = by_shard.collect();
    let disk = pages.disk().map(|disk| {
        json!({
            "state": disk.state.name(),
            "free_bytes": disk.free_bytes,
            "size_bytes": disk.size_bytes,
            "reason": disk.reason,
        })
    });
    let obstacles = pages.obstacles();
    let mut degraded = ready.faults();
    degraded.extend(trouble.map(|error| format!("the log cannot be read: {error}")));
    let text = json!({
        "version": version,
        "revision": revision,
        "upgrade": ready.upgraded().map(|upgraded| upgraded.shown()),
        "uptime_seconds": pages.uptime().as_secs(),
        "shards": published.len(),
        "sessions": by_shard.iter().filter_map(|shard| shard["sessions"].as_u64()).sum::<u64>(),
        "ready": obstacles.is_empty(),
        "obstacles": obstacles,
        "degraded": degraded,
        "not_durable": ready.not_durable.load(Ordering::Relaxed),
        "warnings_logged": ready.warnings.load(Ordering::Relaxed),
        "errors_logged": ready.errors.load(Ordering::Relaxed),
        "disk": disk,
        "by_shard": by_shard,
        "groups": groups.iter().map(|group| shown(group, pages.state())).collect::<Vec<_>>(),
    });
    reply(StatusCode::OK, JSON, format!("{text}\n"))
}

fn shown(group: &Surveyed, state: &AdminState) -> Value {
    let up = group.is_exporter.then(|| state.export.is_up(&group.name));
    json!({
        "group": group.name,
        "exporter": group.is_exporter,
        "up": up,
        "lag": group.left(),
        "oldest_pending": group.oldest_pending(),
        "dead": group.dead(),
    })
}
