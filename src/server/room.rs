//! Whether the disk has room for mail (D9), as the server judges it and `doctor` predicts it.

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::listeners::disk_low;
use crate::{
    config::{Config, DiskLow, plural},
    log,
    metrics::{DiskFacts, DiskState},
    shard::SharedState,
};

/// How long shards may take to see what was foretold: each looks before it makes its spare segment.
const SEEN: Duration = Duration::from_secs(2);

/// The log's disk against the threshold below which MAIL gets `452 4.3.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRoom {
    /// Bytes that this process may use, what the start itself takes already taken off.
    pub free: u64,
    /// Bytes of the whole file system.
    pub size: u64,
    /// Mail is refused below.
    pub threshold: u64,
    /// Mail is refused for want of inodes, whatever is free.
    pub inodes_low: bool,
    /// Shards refuse mail, which they do up to a higher mark than they begin at.
    pub refusing: bool,
    needs: Needs,
}

/// What the threshold is made of, by the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Needs {
    least: u64,
    shards: u64,
    segment_bytes: u64,
    message_bytes: u64,
}

impl Needs {
    fn of(config: &Config) -> Self {
        Self {
            least: disk_low(config),
            shards: config.server.shards as u64,
            segment_bytes: config.log.segment_size,
            message_bytes: config.limits.session.message_bytes,
        }
    }

    fn segments(&self) -> u64 {
        2 * self.segment_bytes * self.shards
    }

    fn message(&self) -> u64 {
        self.message_bytes / 2 * 3
    }
}

impl DiskRoom {
    /// As it is now, with or without a running server.
    ///
    /// # Errors
    /// What the file system says; `NotFound` where the directory is not there.
    pub fn now(config: &Config, dir: &Path) -> io::Result<Self> {
        Self::measured(Needs::of(config), dir)
    }

    fn measured(needs: Needs, dir: &Path) -> io::Result<Self> {
        let space = log::free_space(dir)?;
        Ok(Self {
            free: space.free,
            size: space.size,
            threshold: space.threshold(needs.least),
            inodes_low: space.inodes_low,
            refusing: false,
            needs,
        })
    }

    /// As it will be after a start, which makes two segments for each shard: one that is written,
    /// and one ahead.
    ///
    /// # Errors
    /// As for [`DiskRoom::now`].
    pub fn after_start(config: &Config, dir: &Path) -> io::Result<Self> {
        let now = Self::now(config, dir)?;
        Ok(Self { free: now.free.saturating_sub(now.needs.segments()), ..now })
    }

    /// Whether mail is refused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.refusing || self.inodes_low || self.free < self.threshold
    }

    /// Whether mail will be refused soon: less is left above the threshold than lies below it.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.free < self.threshold.saturating_mul(2)
    }

    /// What helps.
    #[must_use]
    pub fn cure(&self) -> String {
        if self.inodes_low && self.free >= self.threshold {
            return "delete small files there, or make the file system with more inodes".to_owned();
        }
        let more = "free some space there, or use a larger disk";
        match self.threshold {
            low if low == self.needs.segments() => {
                format!("lower log.segment_size or server.shards, {more}")
            }
            low if low == self.needs.message() => format!("lower limits.message_size, {more}"),
            _ => more.to_owned(),
        }
    }

    /// Free bytes from which shards that refuse mail take it again (D9).
    fn again(&self) -> u64 {
        self.threshold + self.threshold / 4
    }
}

impl fmt::Display for DiskRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { free, threshold, needs, .. } = *self;
        if free >= threshold && self.inodes_low {
            return f.write_str("fewer than 1 % of the inodes are free");
        }
        if free >= threshold && self.refusing {
            return match self.again() {
                again if free < again => {
                    write!(f, "{} free; mail is accepted again above {}", Mib(free), Mib(again))
                }
                _ => write!(f, "{} free; mail is accepted again within a second", Mib(free)),
            };
        }
        write!(f, "{} free, {} needed", Mib(free), Mib(threshold))?;
        match threshold {
            low if low == needs.segments() => {
                let shards = plural(needs.shards, "shard");
                let segment = Mib(needs.segment_bytes);
                write!(f, ": two segments of {segment} for {shards}")
            }
            low if low == needs.message() => {
                write!(f, ": one and a half messages of {}", Mib(needs.message_bytes))
            }
            _ => f.write_str(": 5 % of the disk, 4 GiB at most"),
        }
    }
}

/// Says at the start that mail is refused, as soon as the shards refuse it; what was foretold
/// before the start is waited for, so that the first scrape and the first probe know.
pub(super) fn tell_if_short(
    config: &Config,
    dir: &Path,
    foretold: &DiskRoom,
    shards: &[Arc<SharedState>],
) {
    let short = || shards.iter().any(|shard| shard.disk_full());
    let began = Instant::now();
    while foretold.is_full() && !short() && began.elapsed() < SEEN {
        std::thread::sleep(Duration::from_millis(5));
    }
    if !short() {
        return;
    }
    // A shard counts the segment it is about to make as taken.
    let now = DiskRoom::now(config, dir).ok().filter(DiskRoom::is_full);
    let room = now.as_ref().unwrap_or(foretold);
    let (dir, cure) = (dir.display(), room.cure());
    tracing::error!("log.dir {dir}: {room}; until then MAIL gets 452 4.3.1: {cure}");
}

/// By what the disk is judged at each scrape and probe; a reload changes it.
#[derive(Clone)]
pub(super) struct DiskRule(Arc<Mutex<(DiskLow, Needs)>>);

impl DiskRule {
    pub(super) fn new(config: &Config) -> Self {
        Self(Arc::new(Mutex::new(Self::of(config))))
    }

    fn of(config: &Config) -> (DiskLow, Needs) {
        (config.log.disk_low, Needs::of(config))
    }

    pub(super) fn set(&self, config: &Config) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Self::of(config);
    }

    /// The disk now. `refusing`: shards refuse mail, which they do a while longer than they must.
    pub(super) fn facts(&self, dir: &Path, refusing: bool) -> Option<DiskFacts> {
        let (low, needs) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let measured = DiskRoom::measured(needs, dir).ok()?;
        let room = DiskRoom { refusing, ..measured };
        let state = match room.is_full() {
            true => DiskState::Full,
            false if room.free < low.bytes(room.size) => DiskState::Low,
            false => DiskState::Ok,
        };
        let reason = if room.is_full() { room.to_string() } else { String::new() };
        Some(DiskFacts { free_bytes: room.free, size_bytes: room.size, state, reason })
    }
}

/// Bytes for people, cut to a tenth of a MiB.
struct Mib(u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 10) >> 20;
        match (tenths / 10, tenths % 10) {
            (whole, 0) => write!(f, "{whole} MiB"),
            (whole, tenth) => write!(f, "{whole}.{tenth} MiB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(free: u64, threshold: u64) -> DiskRoom {
        DiskRoom {
            free: free << 20,
            size: 182 << 20,
            threshold: threshold << 20,
            inodes_low: false,
            refusing: false,
            needs: NEEDS,
        }
    }

    const NEEDS: Needs =
        Needs { least: 64 << 20, shards: 2, segment_bytes: 16 << 20, message_bytes: 20 << 20 };

    #[test]
    fn the_reason_of_the_threshold_names_the_cure() {
        let of_segments = room(50, 64);
        assert!(of_segments.is_full());
        assert_eq!(
            of_segments.to_string(),
            "50 MiB free, 64 MiB needed: two segments of 16 MiB for 2 shards"
        );
        assert!(of_segments.cure().starts_with("lower log.segment_size or server.shards, "));
        let of_a_message =
            DiskRoom { needs: Needs { message_bytes: 64 << 20, ..NEEDS }, ..room(50, 96) };
        assert!(of_a_message.to_string().ends_with("one and a half messages of 64 MiB"));
        assert!(of_a_message.cure().starts_with("lower limits.message_size, "));
        let of_the_disk = room(50, 80);
        assert!(of_the_disk.to_string().ends_with(": 5 % of the disk, 4 GiB at most"));
        assert!(of_the_disk.cure().starts_with("free some space"));
        let of_inodes = DiskRoom { inodes_low: true, ..room(100, 64) };
        assert!(of_inodes.is_full());
        assert_eq!(of_inodes.to_string(), "fewer than 1 % of the inodes are free");
        assert!(of_inodes.cure().contains("inodes"));
        assert!(!room(64, 64).is_full());
        // Shards refuse on up to a quarter more, and see what is free a moment later.
        let refusing = DiskRoom { refusing: true, ..room(72, 64) };
        assert!(refusing.is_full());
        assert_eq!(refusing.to_string(), "72 MiB free; mail is accepted again above 80 MiB");
        assert!(refusing.cure().starts_with("lower log.segment_size or server.shards, "));
        let late = DiskRoom { refusing: true, ..room(80, 64) };
        assert_eq!(late.to_string(), "80 MiB free; mail is accepted again within a second");
        let far_below = DiskRoom { refusing: true, ..room(50, 64) };
        assert!(far_below.to_string().starts_with("50 MiB free, 64 MiB needed: "));
        let of_inodes = DiskRoom { refusing: true, inodes_low: true, ..room(72, 64) };
        assert_eq!(of_inodes.to_string(), "fewer than 1 % of the inodes are free");
        assert_eq!(Mib((1 << 20) + (1 << 19)).to_string(), "1.5 MiB");
    }
}
