//! Files of domains and recipients: a running server reads them again when they change, like
//! certificates and users.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::config::Config;

/// How often the files are looked at. A change counts once they have stood still from one look to
/// the next: nobody's list is taken half-written.
const LOOK: Duration = Duration::from_secs(2);

/// What distinguishes one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// The files of `listener.accept`, as they were when they were last loaded and last looked at.
pub(super) struct AcceptFiles {
    loaded: Stamps,
    last: Stamps,
    looked: Instant,
}

impl AcceptFiles {
    /// To be made before the files are loaded: what changes meanwhile is seen later.
    pub(super) fn new(config: &Config) -> Self {
        let loaded = stamps(config);
        Self { last: loaded.clone(), loaded, looked: Instant::now() }
    }

    /// Whether the files are to be loaded again: they differ from what was loaded and have stood
    /// still since the last look. Says so once for each change.
    pub(super) fn have_changed(&mut self, config: &Config) -> bool {
        if self.looked.elapsed() < LOOK {
            return false;
        }
        self.looked = Instant::now();
        self.judge(stamps(config))
    }

    fn judge(&mut self, now: Stamps) -> bool {
        let still = now == self.last;
        self.last.clone_from(&now);
        let changed = still && now != self.loaded;
        if changed {
            self.loaded = now;
        }
        changed
    }
}

fn stamps(config: &Config) -> Stamps {
    let accepts = config.listeners.iter().map(|listener| &listener.accept);
    let files =
        accepts.flat_map(|accept| accept.domains_file.iter().chain(&accept.recipients_file));
    files.map(|file| (file.clone(), stamp(file))).collect()
}

/// `None`: it cannot be asked for, most likely it is not there.
fn stamp(file: &Path) -> Option<Stamp> {
    let facts = fs::metadata(file).ok()?;
    Some(Stamp {
        device: facts.dev(),
        inode: facts.ino(),
        bytes: facts.len(),
        modified: (facts.mtime(), facts.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_and_when_it_stands_still() {
        let of = |bytes: Option<u64>| -> Stamps {
            let stamp = bytes.map(|bytes| Stamp { device: 1, inode: 2, bytes, modified: (3, 4) });
            [(PathBuf::from("r"), stamp)].into()
        };
        let first = of(Some(10));
        let mut files =
            AcceptFiles { loaded: first.clone(), last: first.clone(), looked: Instant::now() };
        assert!(!files.judge(of(Some(10))), "nothing changed");
        assert!(!files.judge(of(Some(11))), "it is being written");
        assert!(!files.judge(of(Some(12))), "still");
        assert!(files.judge(of(Some(12))), "it stands still");
        assert!(!files.judge(of(Some(12))), "once");
        assert!(!files.judge(of(None)));
        assert!(files.judge(of(None)), "a file that is gone is reported, too");
        assert!(!files.judge(of(Some(12))) && files.judge(of(Some(12))), "and when it is back");
    }
}
