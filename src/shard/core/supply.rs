//! Segments for the appender: when one is asked for, and what the disk has room for.

use std::{io, time::Duration};

use crate::log::Spare;

/// After a failure this long passes before the next try.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// See the module's page.
pub(super) struct Supply {
    bytes: u64,
    next_number: u64,
    preparing: bool,
    hurried: bool,
    again_at: Duration,
    failed: bool,
    failure: Option<io::Error>,
    /// New mail is refused for want of space (D9).
    pub(super) disk_full: bool,
    /// Octets that a message may have before the disk counts as full.
    pub(super) room: u64,
}

impl Supply {
    /// Segments of `bytes` each, the first with `next_number`.
    pub(super) fn new(bytes: u64, next_number: u64) -> Self {
        Self {
            bytes,
            next_number,
            preparing: false,
            // The first is wanted as soon as it can be.
            hurried: true,
            again_at: Duration::ZERO,
            failed: false,
            failure: None,
            disk_full: false,
            room: u64::MAX,
        }
    }

    /// The number of a segment to be made now, where one is wanted: one is made at a time, and after
    /// a failure not at once again. Says as well whether the one asked for before could not be made.
    pub(super) fn want(&mut self, now: Duration) -> (Option<u64>, bool) {
        let failed = std::mem::take(&mut self.failed);
        if failed {
            self.again_at = now + AGAIN_AFTER;
        }
        if self.preparing || now < self.again_at {
            return (None, failed);
        }
        self.preparing = true;
        // A number is used up once its segment is ready: after a failure it is taken again, so that
        // numbers follow each other without a gap.
        (Some(self.next_number), failed)
    }

    /// What became of the one asked for.
    pub(super) fn made(&mut self, made: io::Result<Spare>) -> Option<Spare> {
        self.preparing = false;
        match made {
            Ok(spare) => {
                self.hurried = false;
                self.next_number = spare.number + 1;
                Some(spare)
            }
            Err(error) => {
                use io::ErrorKind::{QuotaExceeded, StorageFull};
                self.disk_full |= matches!(error.kind(), StorageFull | QuotaExceeded);
                self.failed = true;
                self.failure = Some(error);
                None
            }
        }
    }

    /// Whether the one being made is wanted as it is, now that the appender has reached `position`.
    /// From the middle of a segment on it is: finishing the step of filling and its sync takes some
    /// tens of milliseconds, in which a fast sender fills the other half.
    pub(super) fn hurries(&mut self, position: u64) -> bool {
        let hurries = self.preparing && !self.hurried && position > self.bytes / 2;
        self.hurried |= hurries;
        hurries
    }

    /// Size of a segment.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Why the last try to make a segment failed.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_number_is_used_up_by_a_segment_that_was_made() {
        let mut supply = Supply::new(1 << 20, 7);
        assert_eq!(supply.want(Duration::ZERO), (Some(7), false));
        assert_eq!(supply.want(Duration::ZERO), (None, false), "one at a time");
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(supply.made(Err(full)), None);
        assert!(supply.disk_full);
        assert_eq!(supply.want(SECOND), (None, true), "not at once again, and said once");
        assert_eq!(supply.want(SECOND), (None, false));
        assert_eq!(supply.want(SECOND * 2), (Some(7), false), "the same number");
        let spare = Spare { number: 7, nonce: [1; 16], bytes: 1 << 20 };
        assert_eq!(supply.made(Ok(spare)), Some(spare));
        assert_eq!(supply.want(SECOND * 2), (Some(8), false));
    }

    #[test]
    fn the_first_is_hurried_from_the_start_and_others_once() {
        let mut supply = Supply::new(1 << 20, 1);
        supply.want(Duration::ZERO);
        assert!(!supply.hurries(1 << 20), "it is wanted as soon as possible anyway");
        supply.made(Ok(Spare { number: 1, nonce: [1; 16], bytes: 1 << 20 }));
        assert!(!supply.hurries(1 << 20), "none is being made");
        supply.want(Duration::ZERO);
        assert!(!supply.hurries(1 << 19));
        assert!(supply.hurries((1 << 19) + 4096));
        assert!(!supply.hurries(1 << 20), "once");
    }
}
