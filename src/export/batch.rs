//! Reads records from one shard's log, a batch at a time: the mail data is put together in one
//! piece of memory, each record a slice of it.

use std::{io, ops::Range, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use crossbeam::channel::{Receiver, Sender, bounded};

use super::{
    BatchOptions, Filter, Record,
    record::{append_data, domain},
};
use mailrace_log::consumer::Reader;
use mailrace_log::{
    Damage, Identity, Log, Offset, ReadError, RecordView, Verdict, VerdictMarks, VerdictReader,
    Visit, unix_micros,
};

/// Large records, those of more than `batch.bytes`, that an exporter holds at once.
const LARGE_AT_ONCE: usize = 2;

/// What was read in one go.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Those meant, in order.
    pub(super) records: Vec<Record>,
    /// The offset after what was read, skipped or lost; `None` if nothing was.
    pub(super) end: Option<u64>,
    /// Records passed over.
    pub(super) filtered: u64,
    /// Places where records are lost.
    pub(super) damage: Vec<Damage>,
    /// Offsets `.0 .. .1` that were not found where they were due: those a failed write had taken,
    /// damage, or what was deleted before it was read.
    pub(super) gaps: Vec<(u64, u64)>,
    /// Held while it is a large record.
    pub(super) large: Option<Large>,
    /// Nothing more fits in.
    pub(super) full: bool,
}

impl Batch {
    /// Octets of mail data.
    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().map(|record| record.data.len() as u64).sum()
    }
}

/// The right to hold a large record; given back when dropped.
#[derive(Debug)]
pub(super) struct Large(Sender<()>);

impl Drop for Large {
    fn drop(&mut self) {
        // The other end may be gone at shutdown.
        let _ = self.0.try_send(());
    }
}

/// Rights to hold a large record, of one exporter.
#[derive(Clone, Debug)]
pub(super) struct LargeRecords {
    free: Receiver<()>,
    back: Sender<()>,
}

impl LargeRecords {
    pub(super) fn new() -> Self {
        let (back, free) = bounded(LARGE_AT_ONCE);
        for _ in 0..LARGE_AT_ONCE {
            let _ = back.try_send(());
        }
        Self { free, back }
    }

    fn take(&self) -> Option<Large> {
        self.free.try_recv().ok().map(|()| Large(self.back.clone()))
    }
}

/// Reads batches of one shard. Blocks.
#[derive(Debug)]
pub(super) struct BatchReader {
    reader: Reader,
    identity: Identity,
    options: BatchOptions,
    filter: Filter,
    large_records: LargeRecords,
    /// Records below were sent before.
    replayed_until: u64,
    /// The offset that is due.
    due: u64,
    verdicts: Option<Verdicts>,
    /// The next record waits for its verdict.
    waits: bool,
}

/// Where a reader finds verdicts, and how long records wait for theirs.
#[derive(Debug)]
pub(super) struct Verdicts {
    reader: VerdictReader,
    marks: Arc<VerdictMarks>,
    wait: Duration,
}

/// What is known of a record's sender.
enum Known {
    /// It comes.
    NotYet,
    /// It is there, or there is none.
    Verdict(Option<Box<Verdict>>),
    /// It was waited for in vain.
    Pending,
}

impl Verdicts {
    pub(super) fn new(log: &Log, marks: Arc<VerdictMarks>, wait: Duration) -> Self {
        Self { reader: VerdictReader::new(log, Some(marks.clone())), marks, wait }
    }

    fn of(&mut self, shard: u16, offset: u64, view: RecordView<'_>) -> io::Result<Known> {
        // Asked first: what is not to come any more is there.
        let may_come = self.marks.may_come(shard, offset);
        if let Some(verdict) = self.reader.get(shard, view.segment(), offset)? {
            return Ok(Known::Verdict(Some(Box::new(verdict))));
        }
        let waited = unix_micros().saturating_sub(view.received_at());
        Ok(match may_come {
            false => Known::Verdict(None),
            true if u128::try_from(waited).is_ok_and(|waited| waited < self.wait.as_micros()) => {
                Known::NotYet
            }
            true => Known::Pending,
        })
    }
}

impl BatchReader {
    pub(super) fn new(
        reader: Reader,
        options: BatchOptions,
        filter: Filter,
        large_records: LargeRecords,
    ) -> Self {
        let identity = Identity { node: reader.log().node(), shard: reader.shard() };
        let due = reader.next_offset();
        let (verdicts, waits) = (None, false);
        Self {
            reader,
            identity,
            options,
            filter,
            large_records,
            replayed_until: 0,
            due,
            verdicts,
            waits,
        }
    }

    /// Joins verdicts to records.
    pub(super) fn with_verdicts(self, verdicts: Option<Verdicts>) -> Self {
        Self { verdicts, ..self }
    }

    /// Whether the next record waits for its verdict.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    pub(super) fn seek(&mut self, offset: u64, replayed_until: u64) -> Result<(), ReadError> {
        self.replayed_until = replayed_until;
        self.due = offset;
        self.reader.seek(offset)
    }

    /// How many offsets of a gap lie before the log's start: they were deleted.
    pub(super) fn deleted_of(&self, gap: (u64, u64)) -> Result<u64, ReadError> {
        let segments = self.reader.log().segments(self.identity.shard)?;
        let start = segments.first().map_or(gap.1, |first| first.base_offset);
        let deleted = gap.0..start.min(gap.1);
        if deleted.is_empty() {
            return Ok(0);
        }
        let left_out = self.reader.log().left_out(self.identity.shard)?;
        Ok(deleted.end - deleted.start - left_out.count(deleted))
    }

    /// Reads on, into a batch that has room. What is there is all that is there now.
    pub(super) fn fill(&mut self, batch: &mut Batch) -> Result<(), ReadError> {
        let Self {
            reader,
            identity,
            options,
            filter,
            large_records,
            replayed_until,
            due,
            verdicts,
            waits,
        } = self;
        *waits = false;
        let mut room = BytesMut::new();
        let mut places: Vec<(usize, Range<usize>)> = Vec::new();
        let mut bytes = batch.bytes();
        let mut passed = 0_usize;
        let polled = reader.poll(&mut |log, offset, view| {
            if offset > *due {
                batch.gaps.push((*due, offset));
            }
            *due = offset;
            let mut is_meant = meant(filter, view);
            let (mut verdict, mut pending) = (None, false);
            if let (Some(verdicts), true) = (verdicts.as_mut(), is_meant) {
                match verdicts.of(identity.shard, offset, view)? {
                    Known::NotYet => {
                        *waits = true;
                        return Ok(Visit::Later);
                    }
                    Known::Pending => pending = true,
                    Known::Verdict(found) => verdict = found,
                }
                is_meant = judged(filter, verdict.as_deref());
            }
            if !is_meant {
                *due = offset + 1;
                batch.filtered += 1;
                batch.end = Some(offset + 1);
                passed += 1;
                // A filter that passes over all must not keep the lane from its other work.
                return Ok(if passed >= 100_000 { Visit::Enough } else { Visit::More });
            }
            let is_large = view.bytes() > options.bytes;
            if batch.records.len() + 1 > options.records
                || (bytes + view.bytes() > options.bytes && !batch.records.is_empty())
            {
                batch.full = true;
                return Ok(Visit::Later);
            }
            if is_large {
                // Without the right to hold one it is shown again.
                batch.full = !batch.records.is_empty();
                batch.large = large_records.take();
                if batch.large.is_none() {
                    return Ok(Visit::Later);
                }
            }
            let at = room.len();
            if let Err(error) = append_data(log, identity.shard, view, &mut room) {
                room.truncate(at);
                return match error.is_damage() {
                    true => {
                        // Its fragments are damaged (D10): lost, and told as such.
                        let (segment, position) = (0, 0);
                        let (end, missing) = (None, false);
                        batch.damage.push(Damage { segment, offset, position, end, missing });
                        batch.end = Some(offset + 1);
                        *due = offset + 1;
                        Ok(Visit::More)
                    }
                    false => Err(error.into()),
                };
            }
            let mut record =
                Record::new(identity.record_id(Offset::new(offset)), view, Bytes::new());
            record.replay = offset < *replayed_until;
            (record.verdict, record.verdict_pending) = (verdict, pending);
            places.push((batch.records.len(), at..room.len()));
            *due = offset + 1;
            batch.records.push(record);
            batch.end = Some(offset + 1);
            bytes += view.bytes();
            batch.full = is_large || batch.records.len() >= options.records;
            Ok(if batch.full { Visit::Enough } else { Visit::More })
        });
        // Also where the poll failed: what was read before that is in the batch, and is not shown
        // again.
        let room = room.freeze();
        for (at, range) in places {
            if let Some(record) = batch.records.get_mut(at) {
                record.data = room.slice(range);
            }
        }
        let damage = polled?;
        let next = reader.next_offset();
        if batch.records.is_empty() && !*waits && next > *due {
            // Recovery left these offsets out: nothing is to come of them.
            *due = next;
            batch.end = batch.end.max(Some(next));
        }
        if let Some(last) = damage.last() {
            // Nothing behind the damage may have been seen yet: it is passed with the next record,
            // unless its end is known.
            batch.end = batch.end.max(Some(last.end.unwrap_or(last.offset)));
            // What is lost was not deleted.
            for &Damage { offset, end, .. } in &damage {
                let Some(end) = end else { continue };
                let rest = |(from, to): (u64, u64)| {
                    [(from, to.min(offset)), (from.max(end), to)].into_iter().filter(|(a, b)| a < b)
                };
                batch.gaps = batch.gaps.iter().copied().flat_map(rest).collect();
            }
        }
        batch.damage.extend(damage);
        Ok(())
    }

    /// One record by its offset, as a batch of its own.
    pub(super) fn single(&self, offset: u64) -> Result<Record, ReadError> {
        let id = self.identity.record_id(Offset::new(offset));
        let joins = self.verdicts.is_some();
        self.reader.log().clone().get(id, |log, view| {
            let mut record = Record { replay: true, ..Record::read(log, id, view)? };
            if joins {
                record.verdict = log.verdict(id.shard, offset, view)?.map(Box::new);
            }
            Ok(record)
        })
    }
}

/// Whether the filter lets a verdict through.
fn judged(filter: &Filter, verdict: Option<&Verdict>) -> bool {
    filter.auth.iter().all(|(method, wanted)| {
        let mut words = verdict.into_iter().flat_map(Verdict::words);
        words.any(|(of, word)| of == *method && wanted.contains(&word))
    })
}

/// Whether the filter lets a record through, as far as its envelope says.
fn meant(filter: &Filter, view: RecordView<'_>) -> bool {
    let among = |wanted: &[String], domain: &str| wanted.iter().any(|name| name == domain);
    (filter.listener.is_empty() || among(&filter.listener, view.listener()))
        && (filter.from_domain.is_empty() || among(&filter.from_domain, &domain(view.mail_from())))
        && (filter.rcpt_domain.is_empty()
            || view.forward_paths().any(|path| among(&filter.rcpt_domain, &domain(path))))
}
