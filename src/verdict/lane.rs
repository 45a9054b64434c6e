//! One shard's lane: a thread that reads records, judges several at a time, and writes verdicts.
//!
//! ```text
//!  reader --> under way (64 mails) --> done, in any order --> journal, synced ten times a second
//!                                                              committed: all below are done
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use mailrace_log::{
    Damage, LeftOut, Log, RecordView, Verdict, VerdictWriter, Visit, consumer::Reader, unix_micros,
};
use tokio::time::{Instant, sleep_until};

use crate::{
    Envelope, Methods,
    judge::ENGINE,
    letter::{Letter, LetterReader},
    plane::{ListenerRules, OwnDomains, Shared},
};

/// Mails judged at a time: most of what they take is waiting for DNS.
const UNDER_WAY_MAX: usize = 64;

/// How often an idle lane looks at its shard's mark.
const IDLE: Duration = Duration::from_millis(20);

/// Verdicts are synced at most so often: the disk is the shards'.
const SYNC_EVERY: Duration = Duration::from_millis(100);

/// After an error of the disk.
const PAUSE: Duration = Duration::from_secs(1);

/// Octets of mail data that are read at a time before what is done is written.
const READ_BYTES_MAX: u64 = 64 << 20;

/// A record and its verdict.
type Judged = (u64, u64, Verdict);

struct Lane {
    shared: Arc<Shared>,
    shard: u16,
    reader: Reader,
    /// As it was at the start: recovery is over by then.
    left_out: LeftOut,
    writer: VerdictWriter,
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = Judged> + Send>>>,
    /// Offsets that are read and have no verdict in the journal yet.
    open: BTreeSet<u64>,
    done: Vec<Judged>,
    synced: Instant,
}

/// A mail to be judged.
struct Job {
    segment: u64,
    offset: u64,
    client: IpAddr,
    helo: String,
    mail_from: String,
    authenticated: bool,
    methods: Methods,
    own: OwnDomains,
    letter: Letter,
}

/// Starts a lane's thread. It ends by `stop` alone.
pub(crate) fn start(
    shared: Arc<Shared>,
    log: &Log,
    shard: u16,
    begin: Option<u64>,
) -> io::Result<JoinHandle<()>> {
    let mark = begin.unwrap_or_else(|| shared.marks.get(shard));
    let writer = VerdictWriter::open(log, shard, mark, shared.visible.clone())?;
    let reader = Reader::open(log.dir(), shard, writer.committed())?.below(shared.marks.clone());
    let left_out = log.left_out(shard)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name(format!("verdict/{shard}")).spawn(move || {
        mailrace_sys::lower_priority(mailrace_sys::BACKGROUND);
        runtime.block_on(async move {
            let lane = Lane {
                shared,
                shard,
                reader,
                left_out,
                writer,
                under_way: FuturesUnordered::new(),
                open: BTreeSet::new(),
                done: Vec::new(),
                synced: Instant::now(),
            };
            lane.run().await;
        });
    })
}

impl Lane {
    async fn run(mut self) {
        while !self.shared.stops() {
            if let Err(error) = self.turn().await {
                let shard = self.shard;
                tracing::error!(shard, %error, "verdicts are paused and will be retried");
                tokio::time::sleep(PAUSE).await;
            }
        }
        // What is done is saved; what is under way is read again at the next start.
        if let Err(error) = self.flush(true) {
            let shard = self.shard;
            tracing::error!(shard, %error, "the last verdicts were not saved");
        }
    }

    async fn turn(&mut self) -> io::Result<()> {
        self.fill()?;
        let next = match self.done.is_empty() {
            true => Instant::now() + IDLE,
            false => (self.synced + SYNC_EVERY).min(Instant::now() + IDLE),
        };
        let judged = match self.under_way.is_empty() {
            true => {
                sleep_until(next).await;
                None
            }
            false => tokio::select! {
                judged = self.under_way.next() => judged,
                () = sleep_until(next) => None,
            },
        };
        self.note(judged);
        while let Some(judged) = self.under_way.next().now_or_never() {
            if judged.is_none() {
                break;
            }
            self.note(judged);
        }
        if self.synced.elapsed() >= SYNC_EVERY {
            self.flush(false)?;
        }
        Ok(())
    }

    fn note(&mut self, judged: Option<Judged>) {
        let Some(judged) = judged else { return };
        for (method, word) in judged.2.words() {
            self.shared.metrics.result(method, word.name());
        }
        self.done.push(judged);
    }

    /// Writes what is done, and says how far all are.
    fn flush(&mut self, now: bool) -> io::Result<()> {
        self.synced = Instant::now();
        if !self.done.is_empty() {
            // Kept until it is written: after an error it is tried again.
            self.writer.append(&self.done)?;
            for (_, offset, _) in self.done.drain(..) {
                self.open.remove(&offset);
            }
        }
        let all_below = self.open.first().copied().unwrap_or(self.reader.next_offset());
        self.writer.commit(all_below, now)?;
        let mark = self.shared.marks.get(self.shard);
        let left_out = self.left_out.count(all_below..mark);
        let lag = mark.saturating_sub(all_below).saturating_sub(left_out);
        self.shared.metrics.set_lag(self.shard, lag);
        Ok(())
    }

    /// Reads records until enough are under way.
    fn fill(&mut self) -> io::Result<()> {
        let mark = self.shared.marks.get(self.shard);
        let room = UNDER_WAY_MAX.saturating_sub(self.under_way.len());
        if room == 0 || mark <= self.reader.next_offset() || self.done.len() >= 10_000 {
            return Ok(());
        }
        let rules = self.shared.rules();
        let mut intake = Intake {
            shard: self.shard,
            rules: &rules,
            writer: &self.writer,
            late_below: mark.saturating_sub(self.shared.queue_max),
            room,
            bytes: 0,
            jobs: Vec::new(),
            skipped: BTreeMap::new(),
        };
        let damage = self.reader.poll(&mut |log, offset, record| intake.take(log, offset, record));
        let Intake { jobs, skipped, .. } = intake;
        for job in jobs {
            self.open.insert(job.offset);
            self.under_way.push(Box::pin(judge(self.shared.clone(), job)));
        }
        for (offset, segment) in skipped {
            self.open.insert(offset);
            self.shared.metrics.skip();
            self.done.push((segment, offset, unjudged("too many messages were waiting")));
        }
        self.tell_damage(&damage?);
        Ok(())
    }

    fn tell_damage(&self, damage: &[Damage]) {
        for damage in damage {
            let shard = self.shard;
            tracing::error!(shard, "records without a verdict: {damage}");
        }
    }
}

/// One poll of the reader.
struct Intake<'a> {
    shard: u16,
    rules: &'a HashMap<String, ListenerRules>,
    writer: &'a VerdictWriter,
    /// Records below have waited too long.
    late_below: u64,
    room: usize,
    bytes: u64,
    jobs: Vec<Job>,
    /// Segments by offset.
    skipped: BTreeMap<u64, u64>,
}

impl Intake<'_> {
    fn take(&mut self, log: &Log, offset: u64, record: RecordView<'_>) -> io::Result<Visit> {
        let Some(rules) = self.rules.get(record.listener()) else { return Ok(Visit::More) };
        if self.writer.judged(offset) {
            return Ok(Visit::More);
        }
        if offset < self.late_below {
            self.skipped.insert(offset, record.segment());
            return Ok(if self.skipped.len() < 10_000 { Visit::More } else { Visit::Enough });
        }
        let mut letter = LetterReader::default();
        let read = log.mail_data(self.shard, record, |piece| {
            letter.push(piece);
            Ok(())
        });
        if let Err(error) = read {
            // Mail data that is lost is said where it is exported; here there is nothing to judge.
            let shard = self.shard;
            tracing::error!(shard, offset, %error, "mail data without a verdict");
            return Ok(Visit::More);
        }
        let facts = record.facts();
        self.jobs.push(Job {
            segment: record.segment(),
            offset,
            client: record.client().ip(),
            helo: record.helo().to_owned(),
            mail_from: record.mail_from().to_owned(),
            authenticated: !facts.auth_user.is_empty(),
            methods: rules.methods,
            own: rules.own.clone(),
            letter: letter.finish(),
        });
        self.bytes += record.bytes();
        let enough = self.jobs.len() >= self.room || self.bytes >= READ_BYTES_MAX;
        Ok(if enough { Visit::Enough } else { Visit::More })
    }
}

async fn judge(shared: Arc<Shared>, job: Job) -> Judged {
    let envelope = Envelope {
        client: job.client,
        helo: &job.helo,
        mail_from: &job.mail_from,
        receiver: &shared.receiver,
        authenticated: job.authenticated,
    };
    let verdict = shared.judge.judge(&envelope, &job.letter, job.methods, &*job.own.0).await;
    (job.segment, job.offset, verdict)
}

/// For a mail that is not looked at.
fn unjudged(why: &str) -> Verdict {
    Verdict {
        engine: ENGINE.to_owned(),
        judged_at: unix_micros(),
        skipped: why.to_owned(),
        ..Verdict::default()
    }
}
