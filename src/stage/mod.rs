//! What the simulator (feature `sim`, room `sim`) may do to the other rooms: observe, fail and end
//! file operations, supply random octets and the time, and plant bugs that it must find.
//!
//! On a thread without a simulation, and in every build without the feature, it behaves as if this
//! were not here: the functions are empty and cost nothing.

use std::{io, path::Path};

/// A file operation, before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// A file is made, or opened and made where it is missing.
    Make,
    /// Octets are written to a file.
    Write,
    /// A file is made durable.
    Sync,
    /// The entries of a directory are made durable.
    SyncDir,
    /// A file is deleted.
    Remove,
    /// A file gets another name.
    Rename,
}

/// Bugs that the simulator plants to show that it would find them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A 250 leaves once its group is written, before the sync.
    ReplyBeforeSync,
    /// A sync releases holds of records beyond what it covers, also those of the next segment.
    OtherSegmentSync,
    /// A sync is begun while a write of its segment is under way.
    SyncBeforeWrite,
    /// The last block of a group is written again by the next one.
    TailBlockAgain,
    /// Recovery takes groups for its own whatever their nonce.
    NonceUnchecked,
    /// Recovery gives the last offset out again.
    OffsetReusedAfterRecovery,
    /// Recovery forgets the offsets of segments that retention has deleted.
    OffsetReusedAfterRetention,
    /// Recovery gives offsets out again of records that power took and a reader may have seen.
    OffsetReusedAfterPowerCut,
    /// The committed offset covers a batch that is under way.
    CommitBeforeAck,
    /// A segment is used on after a failed sync, and the next sync believed.
    PoisonIgnored,
    /// A short write counts as whole.
    ShortWriteTaken,
    /// Replies after a held 250 leave before it.
    ReplyOrderBroken,
    /// Retention does not ask which segments later records reach back to.
    FragmentDeletedEarly,
    /// A receive buffer that is kept for later is filled again meanwhile.
    BufferReused,
    /// A connection's slot is given to the next while its operations are under way, and their
    /// completions are taken for the next one's.
    SlotReused,
    /// A drain does not wait for replies that are held.
    DrainForgets,
    /// A message is acknowledged after its 451.
    AcceptAfterTimeout,
    /// The end of the stream completes a message.
    EndOfStreamCompletes,
    /// Retention does not ask what exporters still need.
    DeletedUnexported,
    /// A dead letter is left out of its journal.
    DeadLetterForgotten,
    /// A record's mail data loses what came in its last receive.
    LastOctetsLost,
    /// An answer that comes too late is taken for that about the next message.
    LateAnswerTaken,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::ReplyBeforeSync,
        Self::OtherSegmentSync,
        Self::SyncBeforeWrite,
        Self::TailBlockAgain,
        Self::NonceUnchecked,
        Self::OffsetReusedAfterRecovery,
        Self::OffsetReusedAfterRetention,
        Self::OffsetReusedAfterPowerCut,
        Self::CommitBeforeAck,
        Self::PoisonIgnored,
        Self::ShortWriteTaken,
        Self::ReplyOrderBroken,
        Self::FragmentDeletedEarly,
        Self::BufferReused,
        Self::SlotReused,
        Self::DrainForgets,
        Self::AcceptAfterTimeout,
        Self::EndOfStreamCompletes,
        Self::DeletedUnexported,
        Self::DeadLetterForgotten,
        Self::LastOctetsLost,
        Self::LateAnswerTaken,
    ];
}

#[cfg(feature = "sim")]
pub use on::{Stage, enter, leave, plant};

/// Whether this bug is planted on this thread.
#[inline]
#[must_use]
pub fn planted(bug: Bug) -> bool {
    #[cfg(feature = "sim")]
    return on::planted(bug);
    #[cfg(not(feature = "sim"))]
    {
        let _ = bug;
        false
    }
}

/// Does a file operation, unless it is made to fail.
///
/// # Errors
/// What the operation says, or the simulator in its place.
#[inline]
pub fn act<T>(op: FileOp, path: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(feature = "sim")]
    {
        on::with(|stage| stage.before(op, path)).unwrap_or(Ok(()))?;
        let done = work()?;
        on::with(|stage| stage.after(op, path));
        Ok(done)
    }
    #[cfg(not(feature = "sim"))]
    {
        let _ = (op, path);
        work()
    }
}

/// Random octets, where they are not to be the system's.
#[inline]
#[must_use]
pub fn random() -> Option<u64> {
    #[cfg(feature = "sim")]
    return on::with(|stage| stage.random());
    #[cfg(not(feature = "sim"))]
    None
}

/// The wall clock, where it is not the system's: microseconds since 1970.
#[inline]
#[must_use]
pub fn unix_micros() -> Option<i64> {
    #[cfg(feature = "sim")]
    return on::with(|stage| stage.unix_micros());
    #[cfg(not(feature = "sim"))]
    None
}

/// The time since the machine's boot in seconds, and the boot's name, where they are not the
/// system's.
#[inline]
#[must_use]
pub fn since_boot() -> Option<(String, u64)> {
    #[cfg(feature = "sim")]
    return on::with(|stage| stage.since_boot());
    #[cfg(not(feature = "sim"))]
    None
}

#[cfg(feature = "sim")]
mod on {
    use std::{
        cell::{Cell, RefCell},
        io,
        path::Path,
        rc::Rc,
    };

    use super::{Bug, FileOp};

    /// Who plays on a thread.
    pub trait Stage {
        /// Right before a file operation.
        ///
        /// # Errors
        /// It is not to be done.
        fn before(&self, op: FileOp, path: &Path) -> io::Result<()>;
        /// A file operation has succeeded.
        fn after(&self, op: FileOp, path: &Path);
        /// See [`super::random`].
        fn random(&self) -> u64;
        /// See [`super::unix_micros`].
        fn unix_micros(&self) -> i64;
        /// See [`super::since_boot`].
        fn since_boot(&self) -> (String, u64);
    }

    thread_local! {
        static STAGE: RefCell<Option<Rc<dyn Stage>>> = const { RefCell::new(None) };
        static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// From now on this one plays on this thread.
    pub fn enter(stage: Rc<dyn Stage>) {
        STAGE.set(Some(stage));
    }

    /// Nobody plays on this thread any more.
    pub fn leave() {
        STAGE.set(None);
    }

    /// Plants a bug on this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        BUG.set(bug);
    }

    pub(super) fn planted(bug: Bug) -> bool {
        BUG.get() == Some(bug)
    }

    pub(super) fn with<T>(act: impl FnOnce(&dyn Stage) -> T) -> Option<T> {
        let stage = STAGE.with_borrow(Clone::clone);
        stage.map(|stage| act(&*stage))
    }
}
