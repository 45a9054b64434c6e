//! `GET /v1/stream`: records as they come, for as long as the consumer reads.

use std::{
    io,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{LogState, error, group_error, io_error, read_error};
use crate::{
    consumer::{Active, Group, Reader},
    export::{DocumentOptions, Record, event_line, event_protobuf},
    log::{Damage, Identity, Log, Offset, Range, ReadError, Visit},
    metrics::{CorruptStage, GroupMetrics},
};

/// Chunks that wait for a slow reader.
const CHUNKS: usize = 4;

/// A chunk is sent once it is this large, or nothing more is there.
const CHUNK_BYTES: usize = 256 << 10;

/// How often an idle stream looks whether its consumer is still there and has committed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Mail data within a document, unless the request says otherwise.
const INLINE_MAX: u64 = 512 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    group: Option<String>,
    follow: Option<String>,
    shards: Option<String>,
    start: Option<String>,
    max_inflight: Option<u64>,
    member: Option<usize>,
    members: Option<usize>,
    inline_max: Option<u64>,
}

pub(super) async fn stream(
    State(state): State<LogState>,
    query: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let wanted = match query {
        Ok(Query(wanted)) => wanted,
        Err(failed) => return error(StatusCode::BAD_REQUEST, failed.body_text()),
    };
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let protobuf = accept.is_some_and(|accept| accept.contains("protobuf"));
    let (chunks, received) = mpsc::channel(CHUNKS);
    let opened = tokio::task::spawn_blocking(move || Stream::open(state, wanted, protobuf)).await;
    let opened = match opened {
        Ok(Ok(stream)) => stream,
        Ok(Err(answer)) => return *answer,
        Err(failed) => return error(StatusCode::INTERNAL_SERVER_ERROR, failed),
    };
    // A thread of its own: the blocking pool is for what ends.
    let run = std::thread::Builder::new().name("stream".to_owned()).spawn(move || {
        let mut opened = opened;
        if let Err(failed) = opened.run(&chunks) {
            tracing::warn!(error = %failed, "a stream ended");
            // The consumer sees a broken body and asks again from its committed offset.
            let _ = chunks.blocking_send(Err(failed));
        }
    });
    if let Err(failed) = run {
        return io_error(&failed);
    }
    let body = stream::unfold(received, |mut received: mpsc::Receiver<io::Result<Bytes>>| async {
        received.recv().await.map(|chunk| (chunk, received))
    });
    let media = if protobuf { "application/x-protobuf" } else { "application/x-ndjson" };
    let headers = [(header::CONTENT_TYPE, media), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(body)).into_response()
}

/// One consumer's stream. Lives as long as its connection.
struct Stream {
    state: LogState,
    lanes: Vec<Lane>,
    group: Option<Group>,
    _active: Option<Active>,
    members: Option<GroupMetrics>,
    follow: bool,
    inflight_max: u64,
    document: DocumentOptions,
    protobuf: bool,
}

struct Lane {
    reader: Reader,
    identity: Identity,
    /// Records below were sent before.
    replayed_until: u64,
    /// Where the range that was asked for ends; `u64::MAX`: it has no end.
    until: u64,
    /// That end was reached.
    done: bool,
    /// Sent, and not yet known to be committed: offset of each.
    sent: std::collections::VecDeque<u64>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(metrics) = &self.members {
            metrics.members.dec();
        }
    }
}

impl Stream {
    fn open(state: LogState, wanted: Wanted, protobuf: bool) -> Result<Self, Box<Response>> {
        let bad = |what: String| Box::new(error(StatusCode::BAD_REQUEST, what));
        let failed = |failed: ReadError| Box::new(read_error(&failed));
        let group = match &wanted.group {
            None => None,
            Some(name) => Some(
                Group::new(&state.dir, name).map_err(|failed| Box::new(group_error(&failed)))?,
            ),
        };
        // A plus that was not escaped arrives as a blank, which no range holds.
        let start = wanted.start.as_deref().map(|start| start.replace(' ', "+"));
        let start = start.map(|start| start.parse::<Range>()).transpose();
        let start = start.map_err(|failed| bad(format!("start: {failed}")))?;
        if start.is_some_and(|range| range.is_reversed()) {
            return Err(bad("start: the range is empty: it ends before it starts".to_owned()));
        }
        let follow = match wanted.follow.as_deref() {
            None | Some("0" | "false") => false,
            Some("" | "1" | "true") => true,
            Some(other) => return Err(bad(format!("follow: must be 0 or 1, not {other:?}"))),
        };
        if wanted.max_inflight.is_some() && group.is_none() {
            return Err(bad("max_inflight limits what a group has not committed: it needs \
                            group=NAME"
                .into()));
        }
        if wanted.max_inflight == Some(0) {
            return Err(bad("max_inflight must be at least 1".to_owned()));
        }
        let log = Log::open(&state.dir).map_err(failed)?;
        let shards = shards(&log.shards().map_err(failed)?, &wanted).map_err(bad)?;
        let active = match &group {
            None => None,
            Some(group) => Some(group.activate().map_err(|failed| Box::new(group_error(&failed)))?),
        };
        let mut lanes = Vec::new();
        for shard in shards {
            let lane = Lane::open(&state, &log, group.as_ref(), shard, start).map_err(failed)?;
            lanes.push(lane);
        }
        let members = group.as_ref().map(|group| state.metrics.group(group.name()));
        if let Some(metrics) = &members {
            metrics.members.inc();
        }
        let document = state.document(wanted.inline_max.unwrap_or(INLINE_MAX));
        let inflight_max = wanted.max_inflight.unwrap_or(u64::MAX);
        Ok(Self {
            state,
            lanes,
            group,
            _active: active,
            members,
            follow,
            inflight_max,
            document,
            protobuf,
        })
    }

    /// Sends until the consumer is gone, or everything is sent and it does not follow.
    fn run(&mut self, chunks: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        let shards: Vec<u16> = self.lanes.iter().map(|lane| lane.identity.shard).collect();
        let waiter = self.state.waiters.register(&shards);
        let mut looked = Instant::now();
        loop {
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.take_commits()?;
            }
            let mut chunk = BytesMut::new();
            let mut full = false;
            for at in 0..self.lanes.len() {
                full |= self.fill(at, &mut chunk)?;
            }
            if !chunk.is_empty() {
                if chunks.blocking_send(Ok(chunk.freeze())).is_err() {
                    return Ok(());
                }
                continue;
            }
            if !full && (!self.follow || self.lanes.iter().all(|lane| lane.done)) {
                return Ok(());
            }
            let _ = waiter.woken.recv_timeout(LOOK_EVERY);
            if chunks.is_closed() {
                return Ok(());
            }
        }
    }

    /// Puts records of one shard into a chunk; true where more could be there.
    fn fill(&mut self, at: usize, chunk: &mut BytesMut) -> io::Result<bool> {
        let inflight: u64 = self.lanes.iter().map(|lane| lane.sent.len() as u64).sum();
        let mut room = self.inflight_max.saturating_sub(inflight);
        let counted = self.inflight_max != u64::MAX;
        let (document, protobuf) = (&self.document, self.protobuf);
        let Some(lane) = self.lanes.get_mut(at) else { return Ok(false) };
        if lane.done {
            return Ok(false);
        }
        let Lane { reader, identity, replayed_until, until, done, sent } = lane;
        let counts = &self.state.metrics.log;
        let mut more = false;
        let damage = reader.poll(&mut |log, offset, view| {
            if offset >= *until {
                *done = true;
                return Ok(Visit::Later);
            }
            if room == 0 || chunk.len() >= CHUNK_BYTES {
                more = true;
                return Ok(Visit::Later);
            }
            let record = match Record::read(log, identity.record_id(Offset::new(offset)), view) {
                Ok(mut record) => {
                    record.replay = offset < *replayed_until;
                    record
                }
                Err(failed) if failed.is_damage() => {
                    tracing::error!(shard = identity.shard, offset, error = %failed, "damaged records skipped");
                    counts.corrupt(CorruptStage::Read);
                    return Ok(Visit::More);
                }
                Err(failed) => return Err(failed.into()),
            };
            encode(&record, document, protobuf, chunk);
            room -= 1;
            if counted {
                sent.push_back(offset);
            }
            // Where the log ends at the end of the range, no later record says so.
            *done = offset + 1 >= *until;
            Ok(Visit::More)
        })?;
        for damage in damage {
            let Damage { segment, offset, .. } = damage;
            let shard = identity.shard;
            tracing::error!(shard, offset, segment, "damaged records skipped: {damage}");
            counts.corrupt(CorruptStage::Read);
        }
        Ok(more)
    }

    /// What the group has committed makes room for more.
    fn take_commits(&mut self) -> io::Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        for lane in self.lanes.iter_mut().filter(|lane| !lane.sent.is_empty()) {
            if let Some(committed) = group.committed(lane.identity.shard)? {
                while lane.sent.pop_front_if(|offset| *offset < committed.offset).is_some() {}
            }
        }
        Ok(())
    }
}

impl Lane {
    fn open(
        state: &LogState,
        log: &Log,
        group: Option<&Group>,
        shard: u16,
        start: Option<Range>,
    ) -> Result<Self, ReadError> {
        let committed = group.map(|group| group.committed(shard)).transpose()?.flatten();
        let mark = state.marks.get(shard);
        let from = match (committed, start) {
            (Some(committed), _) => committed.offset.min(mark),
            (None, Some(range)) => log.resolve(shard, range.from)?.min(mark),
            // A group wants everything; a look at the stream wants what comes.
            (None, None) if group.is_some() => 0,
            (None, None) => mark,
        };
        let replayed_until = committed.map_or(0, |committed| committed.replayed_until);
        let until = start.and_then(|range| range.to);
        let until = until.map_or(Ok(u64::MAX), |bound| log.resolve(shard, bound))?;
        let reader = Reader::open(&state.dir, shard, from)?.below(state.marks.clone());
        let identity = Identity { node: log.node(), shard };
        let (sent, done) = (std::collections::VecDeque::new(), from >= until);
        Ok(Self { reader, identity, replayed_until, until, done, sent })
    }
}

fn encode(record: &Record, options: &DocumentOptions, protobuf: bool, chunk: &mut BytesMut) {
    if !protobuf {
        chunk.extend_from_slice(&event_line(record, options));
        chunk.extend_from_slice(b"\n");
        return;
    }
    let message = event_protobuf(record, options);
    // The length as a varint, as `parseDelimitedFrom` of the protobuf libraries wants it.
    let mut length = message.len();
    while length >= 0x80 {
        chunk.extend_from_slice(&[(length as u8) | 0x80]);
        length >>= 7;
    }
    chunk.extend_from_slice(&[length as u8]);
    chunk.extend_from_slice(&message);
}

/// The shards a request means: those it names, or all; of these every `members`-th.
fn shards(all: &[u16], wanted: &Wanted) -> Result<Vec<u16>, String> {
    let mut shards = match wanted.shards.as_deref() {
        None | Some("") => all.to_vec(),
        Some(list) => list
            .split(',')
            .map(|number| {
                let shard = number
                    .trim()
                    .parse()
                    .map_err(|_| format!("shards: {number:?} is not a shard number"))?;
                if all.contains(&shard) {
                    Ok(shard)
                } else {
                    Err(format!("there is no shard {shard}"))
                }
            })
            .collect::<Result<Vec<u16>, String>>()?,
    };
    match (wanted.member, wanted.members) {
        (None, None) => {}
        (Some(member), Some(members)) if member < members => {
            let own = |at: &usize| at % members == member;
            let kept = shards.iter().enumerate().filter(|(at, _)| own(at)).map(|(_, s)| *s);
            shards = kept.collect();
        }
        _ => {
            return Err("member and members must be given together, with member less than members"
                .to_owned());
        }
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(query: &str) -> Wanted {
        let uri: axum::http::Uri = format!("http://x/v1/stream?{query}").parse().unwrap();
        Query::<Wanted>::try_from_uri(&uri).unwrap().0
    }

    #[test]
    fn members_share_the_shards() {
        let all = [0, 1, 2, 3, 4];
        let of = |query: &str| shards(&all, &wanted(query));
        assert_eq!(of("").unwrap(), all);
        assert_eq!(of("shards=3,1").unwrap(), [3, 1]);
        let mut shared: Vec<u16> =
            (0..3).flat_map(|m| of(&format!("member={m}&members=3")).unwrap()).collect();
        shared.sort_unstable();
        assert_eq!(shared, all);
        assert!(of("shards=9").is_err() && of("member=3&members=3").is_err());
        assert!(of("member=0").is_err() && of("shards=x").is_err());
    }
}
