//! The segment files of a shard: made ahead, zero-filled, sealed; and the disk's free space.
//!
//! Everything here that can block runs on glommio's blocking pool; the driver only collects
//! results. A segment is handed to the appender once it is allocated, its directory entry is
//! durable and its blocks are zero-filled: a sync in it is then a flush of the device and not a
//! commit of the file system's journal.
//!
//! Write and fdatasync of a 16 KiB group, p50 / p99 in microseconds
//! (`cargo bench --bench segment_choice`, ext4 on virtio): growing file 207 / 448, allocated only
//! 204 / 264, zero-filled 130 / 203, written over an old one 147 / 311. Ways to commit,
//! zero-filled: linked on the shard's ring 183 / 345, glommio's `DmaFile` 220 / 370. Two blocking
//! calls would be the fastest, but would block the shard.
//!
//! If the appender would run out of room before the filling is complete, the segment is handed over
//! partly filled: a sync then costs a journal commit, and loses nothing.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fs::{File, OpenOptions},
    future::Future,
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use glommio::io::DmaFile;

use super::executor::source_of;
use crate::{
    log::{self, FreeSpace, IndexEntry, Manifest, Seal, Spare},
    shard::{SharedState, core::Completion},
};

/// One step of zero-filling on the blocking pool: after each it is asked whether the segment is
/// wanted as it is.
const FILL_STEP: u64 = 4 << 20;

/// Filled before a segment may be handed over at all.
const FILL_FIRST: u64 = 8 << 20;

const CHECK_EVERY: Duration = Duration::from_secs(1);

/// How long the end of a shard waits for the blocking pool.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// A seal that could not be written is tried again then.
const SEAL_AGAIN: Duration = Duration::from_secs(1);

/// See the module's page.
pub(super) struct Segments {
    dir: PathBuf,
    space: Rc<Space>,
    files: Vec<(u64, File)>,
    inbox: Rc<RefCell<Inbox>>,
}

/// What tasks of the executor leave for the shard.
#[derive(Default)]
struct Inbox {
    made: Option<io::Result<(Spare, File)>>,
    /// Behind the highest number that was tried.
    tried: u64,
    /// The appender is near its end: hand over what is filled.
    urgent: bool,
    busy: usize,
    disk_full: bool,
    /// What the last look at the free space found.
    space: Option<(bool, u64)>,
    manifest: Option<Manifest>,
    /// Seals in the order they came; the task that holds the manifest writes them.
    seals: VecDeque<Seal>,
    /// Segments whose seals are durable by now.
    sealed: Vec<u64>,
}

impl Segments {
    /// `next_number` comes from recovery.
    pub(super) fn new(
        dir: &Path,
        next_number: u64,
        manifest: Manifest,
        disk_low: u64,
        shared: Arc<SharedState>,
    ) -> Self {
        let inbox = Inbox {
            tried: next_number,
            urgent: true,
            manifest: Some(manifest),
            ..Inbox::default()
        };
        let space = Rc::new(Space { dir: dir.to_owned(), low: Cell::new(disk_low), shared });
        let segments = Self {
            dir: dir.to_owned(),
            space: space.clone(),
            files: Vec::new(),
            inbox: Rc::new(RefCell::new(inbox)),
        };
        let inbox = segments.inbox.clone();
        background(async move {
            while !space.shared.is_finished() {
                space.look(&inbox, 0).await;
                glommio::timer::sleep(CHECK_EVERY).await;
            }
        });
        segments
    }

    /// Free octets under which MAIL is refused, from now on.
    pub(super) fn set_disk_low(&self, disk_low: u64) {
        self.space.low.set(disk_low);
    }

    /// Makes a segment in the background; [`Segments::poll`] has it once it is ready.
    pub(super) fn prepare(&self, number: u64, bytes: u64) {
        let (dir, inbox, space) = (self.dir.clone(), self.inbox.clone(), self.space.clone());
        background(async move {
            inbox.borrow_mut().busy += 1;
            // A fast sender fills a disk within less than a second: each segment is a look, and what
            // it is about to take counts as taken.
            space.look(&inbox, bytes).await;
            let made = prepare(&dir, number, bytes, &inbox).await;
            let mut inbox = inbox.borrow_mut();
            inbox.busy -= 1;
            if let Err(error) = &made {
                tracing::error!(%error, dir = %dir.display(), "no new log segment could be created");
                let raw = error.raw_os_error();
                inbox.disk_full |= matches!(raw, Some(libc::ENOSPC | libc::EDQUOT));
            }
            inbox.made = Some(made);
        });
    }

    /// Hands over the segment that is being made as it is.
    pub(super) fn hurry(&self) {
        self.inbox.borrow_mut().urgent = true;
    }

    /// What the background has for the shard.
    pub(super) fn poll(&mut self) -> Option<Completion> {
        let mut inbox = self.inbox.borrow_mut();
        if let Some((full, room)) = inbox.space.take() {
            return Some(Completion::Space { full, room });
        }
        if let Some(number) = inbox.sealed.pop() {
            return Some(Completion::Sealed(number));
        }
        let made = inbox.made.take()?;
        let spare = made.map(|(spare, file)| {
            inbox.urgent = false;
            self.files.push((spare.number, file));
            spare
        });
        Some(Completion::Segment(spare))
    }

    /// The descriptor of a segment that was handed over.
    pub(super) fn file(&self, number: u64) -> RawFd {
        let found = self.files.iter().find(|(at, _)| *at == number);
        found.expect("the appender writes to segments it was given").1.as_raw_fd()
    }

    /// Work of the executor's is under way: the shard sleeps shorter.
    pub(super) fn busy(&self) -> bool {
        self.inbox.borrow().busy > 0
    }

    /// A segment will not be written again: its seal is made durable in the background.
    pub(super) fn sealed(&mut self, seal: Seal) {
        self.files.retain(|(number, _)| *number != seal.number);
        let (inbox, shared) = (self.inbox.clone(), self.space.shared.clone());
        inbox.borrow_mut().seals.push_back(seal);
        background(async move {
            // The manifest travels to the pool and back. A task that finds it away has nothing to
            // do: the one that brings it back looks for further seals.
            loop {
                let taken = {
                    let mut inbox = inbox.borrow_mut();
                    let Some(manifest) = inbox.manifest.take() else { return };
                    let Some(seal) = inbox.seals.pop_front() else {
                        inbox.manifest = Some(manifest);
                        return;
                    };
                    inbox.busy += 1;
                    (manifest, seal)
                };
                let (manifest, seal, done) = blocking(move || {
                    let (mut manifest, seal) = taken;
                    let done = manifest.append(&seal);
                    (manifest, seal, done)
                })
                .await;
                {
                    let mut inbox = inbox.borrow_mut();
                    inbox.busy -= 1;
                    inbox.manifest = Some(manifest);
                    match &done {
                        Ok(()) => inbox.sealed.push(seal.number),
                        Err(_) => inbox.seals.push_front(seal),
                    }
                }
                if let Err(error) = done {
                    // Recovery walks a segment without a seal: slower, nothing lost; but nobody must
                    // take its number for one that was never used, and after a failed write the log
                    // waits for the seal.
                    tracing::warn!(%error, "a segment's seal cannot be written; it is tried again");
                    glommio::timer::sleep(SEAL_AGAIN).await;
                    if shared.is_finished() {
                        return;
                    }
                }
            }
        });
    }

    /// Seals within the call: the shard's last act, once nothing is under way.
    pub(super) fn finish(&mut self, seal: Option<Seal>) {
        let mut inbox = self.inbox.borrow_mut();
        let Inbox { manifest: Some(manifest), seals, tried, .. } = &mut *inbox else { return };
        let seals: Vec<_> = seals.drain(..).chain(seal).collect();
        if let Err(error) = manifest.close(&seals, *tried) {
            tracing::warn!(%error, dir = %self.dir.display(), "seals not written");
        }
    }

    /// An entry of the sparse index; a lost one costs a reader some time.
    pub(super) fn index(&mut self, entry: IndexEntry) {
        let dir = self.dir.clone();
        background(async move {
            if let Err(error) = blocking(move || log::append_index(&dir, &entry)).await {
                tracing::debug!(%error, "index entry not written");
            }
        });
    }
}

/// A number whose name is taken is passed over: what lies there may hold mail.
async fn prepare(
    dir: &Path,
    mut number: u64,
    bytes: u64,
    inbox: &RefCell<Inbox>,
) -> io::Result<(Spare, File)> {
    let spare = loop {
        let at = dir.to_owned();
        let made = blocking(move || log::prepare_segment(&at, number, bytes)).await;
        let tried = inbox.borrow().tried.max(number + 1);
        inbox.borrow_mut().tried = tried;
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let path = log::segment_path(dir, number);
                tracing::warn!(path = %path.display(), "a file already has the name of the next \
                    segment");
                number += 1;
            }
            made => break made?,
        }
    };
    let filled = fill(dir, &spare, inbox).await;
    if filled.is_err() {
        // The next try makes the file of this number afresh.
        let at = dir.to_owned();
        let _ = blocking(move || log::discard_segment(&at, number)).await;
    }
    filled.map(|file| (spare, file))
}

async fn fill(dir: &Path, spare: &Spare, inbox: &RefCell<Inbox>) -> io::Result<File> {
    let (path, bytes) = (log::segment_path(dir, spare.number), spare.bytes);
    let mut file = blocking(move || {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path)
    })
    .await?;
    let mut position = 0;
    while position < bytes && !(inbox.borrow().urgent && position >= FILL_FIRST) {
        let step = FILL_STEP.min(bytes - position);
        file = blocking(move || log::fill_zeros(&file, position, step).map(|()| file)).await?;
        position += step;
    }
    blocking(move || file.sync_data().map(|()| file)).await
}

/// The free space of the log's file system (D9).
struct Space {
    dir: PathBuf,
    low: Cell<u64>,
    shared: Arc<SharedState>,
}

impl Space {
    /// Judges it, with hysteresis; `taken` of it are spoken for.
    async fn look(&self, inbox: &RefCell<Inbox>, taken: u64) {
        let at = self.dir.clone();
        let Ok(space) = blocking(move || log::free_space(&at)).await else { return };
        let FreeSpace { free, inodes_low, .. } = space;
        let free = free.saturating_sub(taken);
        let low = space.threshold(self.low.get());
        let mut inbox = inbox.borrow_mut();
        let full = inodes_low || if inbox.disk_full { free < low + low / 4 } else { free < low };
        if full != inbox.disk_full {
            tracing::warn!(free, low, full, "disk space");
        }
        inbox.disk_full = full;
        inbox.space = Some((full, free.saturating_sub(low)));
    }
}

thread_local! {
    /// Closures of this thread's executor that run on the blocking pool.
    static IN_FLIGHT: Cell<usize> = const { Cell::new(0) };
}

/// Runs a closure on the blocking pool. A panic there would hang the caller forever: it ends the
/// process instead (D17).
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    IN_FLIGHT.set(IN_FLIGHT.get() + 1);
    let result = glommio::executor()
        .spawn_blocking(move || {
            std::panic::catch_unwind(AssertUnwindSafe(work))
                .unwrap_or_else(|_| std::process::abort())
        })
        .await;
    IN_FLIGHT.set(IN_FLIGHT.get() - 1);
    result
}

/// Waits until nothing runs on the blocking pool, for some seconds at most: where a closure outlives
/// its executor, glommio's pool panics.
pub(super) async fn settle_pool() {
    let began = Instant::now();
    while IN_FLIGHT.get() > 0 && began.elapsed() < SETTLE_MAX {
        glommio::timer::sleep(Duration::from_millis(1)).await;
    }
}

/// Spawns a task of the shard's own: a panic in it ends the process (D17).
pub(super) fn background(task: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(async move {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            std::process::abort();
        }
    })
    .detach();
}

/// Opens the executor's first file, by which glommio judges the device: one that exists and is a block
/// long. With another one it takes the device for one with polled I/O and spins.
pub(super) async fn probe_device(dir: &Path) -> io::Result<()> {
    let meta = DmaFile::open(dir.join("shard.meta")).await.map_err(source_of)?;
    meta.close().await.map_err(source_of)
}

#[cfg(test)]
mod tests {

    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;

    fn on_executor<T: Send + 'static>(work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        let builder = LocalExecutorBuilder::new(Placement::Unbound)
            .ring_depth(256)
            .io_memory(64 << 10)
            .preempt_timer(Duration::from_millis(1));
        builder.spawn(|| async move { work().await }).unwrap().join().unwrap()
    }

    #[test]
    fn glommio_does_not_take_the_disk_for_a_polled_one() {
        // glommio 0.9: a file that is new or shorter than a block as the first of an
        // executor makes it busy-poll.
        let (_dir, shard) = shard();
        on_executor(async move || {
            probe_device(&shard).await.unwrap();
            let file = DmaFile::open(shard.join("shard.meta")).await.unwrap();
            file.read_at(0, 4096).await.unwrap();
            file.close().await.unwrap();
            let stats = glommio::executor().io_stats();
            assert_eq!(stats.poll_ring.file_reads().0, 0);
            assert_eq!(stats.poll_ring.file_writes().0, 0);
        });
    }

    async fn made(segments: &mut Segments) -> io::Result<Spare> {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < Duration::from_secs(20), "an answer comes");
            match segments.poll() {
                Some(Completion::Segment(made)) => break made,
                _ => glommio::timer::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    fn shard() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let data = log::DataDir::open(dir.path()).unwrap();
        let shard = data.make_shard(0).unwrap();
        (dir, shard)
    }

    fn begun(shard: &Path) -> (Segments, Arc<SharedState>) {
        let manifest = Manifest::open(&shard.join("manifest")).unwrap();
        let shared = Arc::new(SharedState::new(crate::metrics::Published::new()));
        (Segments::new(shard, 1, manifest, 0, shared.clone()), shared)
    }

    #[test]
    fn a_failed_segment_is_removed_and_a_name_that_is_taken_is_passed_over() {
        let (_dir, shard) = shard();
        on_executor(async move || {
            let (mut segments, shared) = begun(&shard);
            segments.prepare(1, 1 << 20);
            assert_eq!(made(&mut segments).await.unwrap().number, 1);
            // Made, and not filled: direct writes are of whole blocks. Then on to the same number.
            segments.prepare(2, 4_097);
            made(&mut segments).await.unwrap_err();
            assert!(!log::segment_path(&shard, 2).exists());
            segments.prepare(2, 1 << 20);
            assert_eq!(made(&mut segments).await.unwrap().number, 2);
            let taken = log::segment_path(&shard, 3);
            std::fs::write(&taken, "put here").unwrap();
            segments.prepare(3, 1 << 20);
            assert_eq!(made(&mut segments).await.unwrap().number, 4);
            assert_eq!(std::fs::read(&taken).unwrap(), b"put here");
            // No file system has room for it. It was tried: an orderly stop says that it was not
            // used, as of the others, so that nobody misses it.
            segments.prepare(5, 1 << 60);
            made(&mut segments).await.unwrap_err();
            segments.finish(None);
            let manifest = Manifest::open(&shard.join("manifest")).unwrap();
            for number in 1..=5 {
                assert!(manifest.find(number).is_some_and(|seal| seal.removed), "{number}");
            }
            shared.finished();
        });
    }

    /// glommio's pool panics where a closure outlives its executor.
    #[test]
    fn a_shard_waits_for_what_runs_on_its_pool() {
        on_executor(async || {
            let done = Rc::new(Cell::new(false));
            let told = done.clone();
            background(async move {
                blocking(|| std::thread::sleep(Duration::from_millis(50))).await;
                told.set(true);
            });
            glommio::executor().yield_task_queue_now().await;
            assert!(IN_FLIGHT.get() == 1 && !done.get(), "it runs");
            settle_pool().await;
            assert!(done.get(), "it has ended");
        });
    }

    #[test]
    fn a_seal_that_could_not_be_written_is_tried_again() {
        let (_dir, shard) = shard();
        on_executor(async move || {
            let path = shard.join("manifest");
            let full = Manifest::open(Path::new("/dev/full")).unwrap();
            let shared = Arc::new(SharedState::new(crate::metrics::Published::new()));
            let mut segments = Segments::new(&shard, 3, full, 0, shared.clone());
            let seal = |number| Seal {
                number,
                nonce: [7; 16],
                first_offset: number,
                end_offset: number + 1,
                end_position: 8_192,
                damaged: false,
                skipped: 0,
                reach: None,
                removed: false,
            };
            segments.sealed(seal(1));
            let began = Instant::now();
            // The task runs at the first wait.
            glommio::timer::sleep(Duration::from_millis(1)).await;
            while segments.inbox.borrow().manifest.is_none() {
                assert!(began.elapsed() < Duration::from_secs(20), "the write fails");
                glommio::timer::sleep(Duration::from_millis(1)).await;
            }
            segments.inbox.borrow_mut().manifest = Some(Manifest::open(&path).unwrap());
            segments.sealed(seal(2));
            let written = || Manifest::open(&path).unwrap().seals().to_vec();
            while written().len() < 2 {
                assert!(began.elapsed() < Duration::from_secs(20), "both are written");
                glommio::timer::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(written(), [seal(1), seal(2)]);
            shared.finished();
        });
    }

    #[test]
    fn a_spare_is_filled_with_zeros_and_handed_over_once() {
        let (_dir, shard) = shard();
        on_executor(async move || {
            let (mut segments, shared) = begun(&shard);
            segments.prepare(1, 1 << 20);
            let spare = made(&mut segments).await.unwrap();
            assert_eq!((spare.number, spare.bytes), (1, 1 << 20));
            let octets = std::fs::read(log::segment_path(&shard, 1)).unwrap();
            assert!(octets.len() == 1 << 20 && octets.iter().all(|&octet| octet == 0));
            assert!(!matches!(segments.poll(), Some(Completion::Segment(_))), "once");
            // The directory goes: the failure comes as an answer.
            std::fs::remove_dir_all(&shard).unwrap();
            segments.prepare(2, 1 << 20);
            made(&mut segments).await.unwrap_err();
            shared.finished();
        });
    }
}
