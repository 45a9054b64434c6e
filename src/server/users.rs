//! The users of listeners: their files are read at the start, at a reload, and when they change.

use std::{
    collections::{BTreeSet, HashSet},
    path::PathBuf,
    sync::Arc,
};

use crate::policy::{Advisors, UsersFile, Workers};

/// Threads that know the users of these listeners; `None`: no listener has any.
pub(super) fn serve(users: Vec<(String, Arc<UsersFile>)>) -> Result<Option<Workers>, String> {
    if users.is_empty() {
        return Ok(None);
    }
    let mut seen = HashSet::new();
    for (_, file) in users.iter().filter(|(_, file)| seen.insert(file.path())) {
        if let Some(warning) = file.warning() {
            tracing::warn!("{warning}");
        }
    }
    // They give way to shards: with many cores a few are enough, with few they need not be more.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = Workers::start(users, (cores / 2).min(4));
    workers.map(Some).map_err(|error| format!("threads for passwords: {error}"))
}

/// Loads what is in the users files now. `unusable` holds the files that changed and cannot be used.
pub(super) fn look(advisors: &Advisors, unusable: &mut BTreeSet<PathBuf>) {
    let Some(workers) = advisors.users() else { return };
    for (path, outcome) in workers.reload() {
        match &outcome {
            Ok(_) => unusable.remove(&path),
            Err(_) => unusable.insert(path.clone()),
        };
        match outcome {
            Ok(1) => tracing::info!("{}: one user", path.display()),
            Ok(users) => tracing::info!("{}: {users} users", path.display()),
            Err(error) => tracing::error!("{error}; keeping the previous users"),
        }
    }
}
