//! The small files of a data directory on the simulated disk: every operation that the production
//! code does on them passes here, is counted, and may fail or be the last one.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use super::{plan::Death, random::Random};
use crate::stage::{FileOp, Stage};

/// See the module's page.
pub(super) struct Files {
    state: RefCell<State>,
    random: RefCell<Random>,
    unix_micros: Cell<i64>,
    elapsed_secs: Cell<u64>,
}

#[derive(Default)]
struct State {
    grave: PathBuf,
    /// Contents that are durable of files that were written since; `None`: nothing is.
    old: BTreeMap<PathBuf, Option<Vec<u8>>>,
    /// Made, and their directory not synced since.
    made: BTreeSet<PathBuf>,
    /// Deleted, and their directory not synced since; where they are kept meanwhile.
    removed: BTreeMap<PathBuf, PathBuf>,
    graves: u64,
    operations: u64,
    fails: BTreeSet<u64>,
    deaths: BTreeMap<u64, Death>,
    dead: Option<Death>,
    /// Segments that were deleted since somebody asked.
    gone: Vec<u64>,
    /// Segments that were synced by their path.
    synced: Vec<u64>,
    /// An operation was made to fail.
    failed: bool,
    boots: u64,
}

/// Of a segment's file.
fn segment_of(path: &Path) -> Option<u64> {
    let name = path.file_name().and_then(OsStr::to_str)?;
    name.strip_suffix(".seg")?.parse().ok()
}

impl Files {
    pub(super) fn new(
        grave: PathBuf,
        seed: u64,
        fails: BTreeSet<u64>,
        deaths: BTreeMap<u64, Death>,
    ) -> Self {
        let state = State { grave, fails, deaths, ..State::default() };
        Self {
            state: RefCell::new(state),
            random: RefCell::new(Random::new(seed, 3)),
            unix_micros: Cell::new(0),
            elapsed_secs: Cell::new(0),
        }
    }

    pub(super) fn set_time(&self, micros: u64, unix_micros: i64) {
        self.elapsed_secs.set(micros / 1_000_000);
        self.unix_micros.set(unix_micros);
    }

    /// Whether the process died in a file operation, and how.
    pub(super) fn dead(&self) -> Option<Death> {
        self.state.borrow().dead
    }

    /// Lets it die at the n-th file operation from now on.
    pub(super) fn die_in(&self, operations: u64, death: Death) {
        let mut state = self.state.borrow_mut();
        let at = state.operations + operations;
        state.deaths.insert(at, death);
    }

    /// Segments that were deleted since the last call.
    pub(super) fn take_gone(&self) -> Vec<u64> {
        std::mem::take(&mut self.state.borrow_mut().gone)
    }

    /// Segments that were synced since the last call.
    pub(super) fn take_synced(&self) -> Vec<u64> {
        std::mem::take(&mut self.state.borrow_mut().synced)
    }

    /// Whether an operation was made to fail since the last call.
    pub(super) fn take_failed(&self) -> bool {
        std::mem::take(&mut self.state.borrow_mut().failed)
    }

    /// No fault from now on.
    pub(super) fn be_calm(&self) {
        let mut state = self.state.borrow_mut();
        state.fails.clear();
        state.deaths.clear();
    }

    /// Makes of the files what a death leaves of them; afterwards all is durable, and the next
    /// process may begin.
    pub(super) fn die(&self, death: Death, random: &mut Random) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.dead = None;
        let (old, made) = (std::mem::take(&mut state.old), std::mem::take(&mut state.made));
        let removed = std::mem::take(&mut state.removed);
        if death != Death::Kill {
            state.boots += 1;
            for (path, old) in old {
                let Ok(new) = fs::read(&path) else { continue };
                fs::write(&path, mix(&old.unwrap_or_default(), &new, random))?;
            }
            for path in made {
                if random.one_in(2) && path.exists() {
                    fs::remove_file(&path)?;
                }
            }
            for (path, grave) in &removed {
                if random.one_in(2) && !path.exists() {
                    fs::rename(grave, path)?;
                }
            }
        }
        for grave in removed.values() {
            let _ = fs::remove_file(grave);
        }
        Ok(())
    }
}

/// Old or new, 512 octets by 512 octets.
fn mix(old: &[u8], new: &[u8], random: &mut Random) -> Vec<u8> {
    match random.below(4) {
        0 => return old.to_vec(),
        1 => return new.to_vec(),
        _ => {}
    }
    let len = if random.one_in(2) { old.len() } else { new.len() };
    let mut mixed = vec![0; len];
    for at in (0..len).step_by(512) {
        let from = if random.one_in(2) { old } else { new };
        let end = (at + 512).min(len);
        for (to, octet) in mixed[at..end].iter_mut().zip(from.get(at..).unwrap_or_default()) {
            *to = *octet;
        }
    }
    mixed
}

impl Stage for Files {
    fn before(&self, op: FileOp, path: &Path) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        if state.dead.is_some() {
            return Err(io::Error::other("the process has died"));
        }
        state.operations += 1;
        let operations = state.operations;
        if let Some(death) = state.deaths.remove(&operations) {
            state.dead = Some(death);
            return Err(io::Error::other("the process dies here"));
        }
        if state.fails.remove(&operations) {
            state.failed = true;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let segment = segment_of(path);
        match op {
            FileOp::Make | FileOp::Write if !path.exists() => {
                state.made.insert(path.to_owned());
                if segment.is_none() {
                    state.old.insert(path.to_owned(), None);
                }
            }
            FileOp::Write if segment.is_none() && !state.old.contains_key(path) => {
                state.old.insert(path.to_owned(), Some(fs::read(path)?));
            }
            FileOp::Remove if path.exists() => {
                state.graves += 1;
                let grave = state.grave.join(state.graves.to_string());
                fs::hard_link(path, &grave)?;
                state.removed.insert(path.to_owned(), grave);
                state.gone.extend(segment);
            }
            FileOp::Rename => {
                state.old.remove(path);
                state.made.remove(path);
            }
            _ => {}
        }
        Ok(())
    }

    fn after(&self, op: FileOp, path: &Path) {
        let mut state = self.state.borrow_mut();
        match op {
            FileOp::Sync => {
                state.old.remove(path);
                state.synced.extend(segment_of(path));
            }
            FileOp::SyncDir => {
                let inside = |name: &Path| name.parent() == Some(path);
                state.made.retain(|name| !inside(name));
                state.removed.retain(|name, grave| {
                    let synced = inside(name);
                    if synced {
                        let _ = fs::remove_file(grave);
                    }
                    !synced
                });
            }
            _ => {}
        }
    }

    fn random(&self) -> u64 {
        self.random.borrow_mut().next()
    }

    fn unix_micros(&self) -> i64 {
        self.unix_micros.get()
    }

    fn since_boot(&self) -> (String, u64) {
        (format!("boot-{}", self.state.borrow().boots), self.elapsed_secs.get())
    }
}
