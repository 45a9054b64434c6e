//! What the generator itself costs.

/// CPU time of the calling thread, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) user: f64,
    pub(super) system: f64,
}

impl Usage {
    pub(super) fn now() -> Self {
        // SAFETY: all zero is a valid `rusage`, plain numbers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is valid for the call; it cannot fail with these arguments.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        Self { user: seconds(usage.ru_utime), system: seconds(usage.ru_stime) }
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }

    pub(super) fn total(self) -> f64 {
        self.user + self.system
    }
}
