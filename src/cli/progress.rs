//! How far a long command is, for a person who watches it on a terminal.
//!
//! It is drawn on stderr, a few times a second, and taken away at the end; nothing is drawn where
//! stderr is no terminal, or with `--json`.

use std::{fs::File, io, os::fd::AsFd};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::log::Log;

/// Drawn so often a second.
const HZ: u8 = 4;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Records,
}

/// Gone when dropped.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// `total`: an estimate, asked for where somebody sees it.
    pub(super) fn new(
        what: &'static str,
        unit: Unit,
        total: impl FnOnce() -> u64,
        hidden: bool,
    ) -> Self {
        let target = match hidden {
            true => ProgressDrawTarget::hidden(),
            // Hidden where it is no terminal.
            false => ProgressDrawTarget::stderr_with_hz(HZ),
        };
        let total = if target.is_hidden() { 0 } else { total() };
        let figures = match unit {
            Unit::Bytes => "{bytes}/{total_bytes}  {bytes_per_sec}",
            Unit::Records => "{pos}/{len} records  {per_sec}",
        };
        let template = format!("{{msg}} [{{bar:24}}] {figures}  {{eta}} left");
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style);
        bar.set_message(what);
        bar.tick();
        Self(bar)
    }

    pub(super) fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    pub(super) fn add(&self, more: u64) {
        self.0.inc(more);
    }

    /// Lines that are printed meanwhile are not written over.
    pub(super) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Bytes in use of the segments of these shards, as far as it is known without reading them.
pub(super) fn bytes_of(log: &Log, shards: &[u16]) -> u64 {
    let segments = shards.iter().filter_map(|shard| log.segments(*shard).ok()).flatten();
    segments.map(|segment| segment.seal.map_or(segment.bytes, |seal| seal.end_position)).sum()
}

/// Whether stdout is a file: then nobody sees there how far the command is, and no pager is disturbed.
pub(super) fn stdout_is_file() -> bool {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    stdout.and_then(|file| file.metadata()).is_ok_and(|facts| facts.is_file())
}
