//! Wakes the loop at a time: `epoll_wait` counts in milliseconds, a schedule in microseconds.

use std::{io, os::fd::AsRawFd, os::fd::FromRawFd, os::fd::OwnedFd, time::Duration};

use mio::{Interest, Registry, Token, unix::SourceFd};

/// A `timerfd(2)` known to the poll.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: OwnedFd,
}

impl Alarm {
    /// # Errors
    /// Where the system gives no timer.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: no pointer is passed.
        let timer = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if timer < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let timer = unsafe { OwnedFd::from_raw_fd(timer) };
        // Edge-triggered, so it need not be read.
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer })
    }

    /// Rings once after `delay`, and not at the time set before.
    ///
    /// # Errors
    /// As `timerfd_settime(2)`; none is to be expected.
    pub(super) fn set(&self, delay: Duration) -> io::Result<()> {
        let value = libc::timespec {
            tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
            // Zero would stop the timer.
            tv_nsec: i64::from(delay.subsec_nanos()).max(1),
        };
        let interval = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = libc::itimerspec { it_interval: interval, it_value: value };
        let timer = self.timer.as_raw_fd();
        // SAFETY: `spec` lives through the call; the old value is not asked for.
        let done =
            unsafe { libc::timerfd_settime(timer, 0, &raw const spec, std::ptr::null_mut()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
