//! From the 250 to a consumer: follows the log of the loaded server as a consumer does, and notes
//! when it sees each message.
//!
//! It looks every millisecond, so latencies can be too long by that much. A record may be seen
//! before the client has read its 250, which counts as no time at all.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{
    dialogue::Nanos,
    mail::{ID_LINE_BYTES, Mail, Sequence},
    measure::{Measure, histogram},
};
use mailrace_log::{Follower, Log, RecordView};

/// Between two looks at the end of the log.
const LOOK: Duration = Duration::from_millis(1);
/// How long what was acknowledged is waited for at the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A message and the time of its 250.
pub(super) type Ack = (Sequence, Nanos);

/// What a consumer saw.
#[derive(Debug)]
pub(super) struct Seen {
    /// Nanoseconds from the 250 to the consumer.
    pub(super) latency: Histogram<u64>,
    /// The same by the second of the 250, as the measure has them.
    pub(super) intervals: Vec<Histogram<u64>>,
    /// Messages that the consumer saw before the client read the 250.
    pub(super) before_ack: u64,
    /// Acknowledged messages that never came.
    pub(super) unseen: u64,
}

/// The thread that follows; dropped before its end, it ends too.
#[derive(Debug)]
pub(super) struct Consumer {
    wanted: Sender<Vec<Ack>>,
    thread: JoinHandle<io::Result<Times>>,
}

impl Consumer {
    /// Begins at the end of every shard's log.
    ///
    /// # Errors
    /// Where the directory is no data directory, or the file system refuses to read.
    pub(super) fn start(dir: &Path, mail: Arc<Mail>, base: Instant) -> io::Result<Self> {
        let (wanted, asked) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let dir = dir.to_owned();
        let thread = thread::spawn(move || follow(&dir, &mail, base, &ready, &asked));
        match is_ready.recv() {
            Ok(()) => Ok(Self { wanted, thread }),
            Err(_) => match thread.join() {
                Ok(end) => Err(end.err().unwrap_or_else(|| io::Error::other("it ended at once"))),
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
    }

    /// Waits until all that was acknowledged is seen, or is not going to be.
    ///
    /// # Errors
    /// Where the log could not be read.
    pub(super) fn finish(self, measure: &Measure) -> io::Result<Seen> {
        // Where the thread has failed nobody listens, and the join tells why.
        let _ = self.wanted.send(measure.ack_times.clone());
        let times = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let mut seen = Seen {
            latency: histogram(),
            intervals: measure.intervals.iter().map(|_| histogram()).collect(),
            before_ack: 0,
            unseen: 0,
        };
        for &(sequence, acked) in &measure.ack_times {
            let Some(at) = times.get(sequence) else {
                seen.unseen += 1;
                continue;
            };
            seen.before_ack += u64::from(at < acked);
            let took = at.saturating_sub(acked);
            seen.latency.saturating_record(took);
            let second = (acked.saturating_sub(measure.window.start) / 1_000_000_000) as usize;
            // What comes behind the window counts in its last second.
            let last = seen.intervals.len().saturating_sub(1);
            if let Some(interval) = seen.intervals.get_mut(second.min(last)) {
                interval.saturating_record(took);
            }
        }
        Ok(seen)
    }
}

/// When each message was seen first.
#[derive(Debug, Default)]
struct Times(Vec<Option<Nanos>>);

impl Times {
    fn get(&self, sequence: Sequence) -> Option<Nanos> {
        usize::try_from(sequence).ok().and_then(|at| self.0.get(at).copied().flatten())
    }

    fn note(&mut self, sequence: Sequence, now: Nanos) {
        // A number beyond all reason is not of a message we sent; the check of the log tells of it.
        let Some(at) = usize::try_from(sequence).ok().filter(|at| *at < 1 << 32) else { return };
        if at >= self.0.len() {
            self.0.resize(at + 1, None);
        }
        self.0[at].get_or_insert(now);
    }
}

fn follow(
    dir: &Path,
    mail: &Mail,
    base: Instant,
    ready: &Sender<()>,
    asked: &Receiver<Vec<Ack>>,
) -> io::Result<Times> {
    let log = Log::open(dir)?;
    let mut followers = Vec::new();
    for shard in log.shards()? {
        let (_, end) = log.ends(shard)?;
        followers.push(Follower::new(&log, shard, end)?);
    }
    // The other end waits for it.
    let _ = ready.send(());
    let mut times = Times::default();
    let mut look = |times: &mut Times| {
        for follower in &mut followers {
            let shard = follower.shard();
            // Damage is the affair of the check of the log; what it hides stays unseen.
            follower.poll(&mut |_, record| {
                let now = base.elapsed().as_nanos() as Nanos;
                if let Some(sequence) = sequence_of(&log, shard, record, mail)? {
                    times.note(sequence, now);
                }
                Ok(())
            })?;
        }
        Ok::<_, io::Error>(())
    };
    let wanted = loop {
        look(&mut times)?;
        match asked.recv_timeout(LOOK) {
            Ok(wanted) => break wanted,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(times),
        }
    };
    let end = Instant::now() + PATIENCE;
    loop {
        look(&mut times)?;
        let all = wanted.iter().all(|(sequence, _)| times.get(*sequence).is_some());
        if all || Instant::now() > end {
            return Ok(times);
        }
        thread::sleep(LOOK);
    }
}

/// The message a record claims to be, from the first line of its mail data.
fn sequence_of(
    log: &Log,
    shard: u16,
    record: RecordView<'_>,
    mail: &Mail,
) -> io::Result<Option<Sequence>> {
    if record.fragments().next().is_none() {
        return Ok(mail.sequence_of(record.inline()));
    }
    let mut first = Vec::with_capacity(ID_LINE_BYTES);
    let read = log.mail_data(shard, record, |chunk| {
        let room = ID_LINE_BYTES - first.len();
        first.extend_from_slice(&chunk[..chunk.len().min(room)]);
        Ok(())
    });
    match read {
        Err(error) if !error.is_damage() => Err(error.into()),
        _ => Ok(mail.sequence_of(&first)),
    }
}
