//! System calls that several rooms make.

#![warn(unreachable_pub)]

/// The nice value of threads that work for later: export, verdicts, retention. Shards run at 0.
pub const BACKGROUND: i32 = 5;

/// Gives the calling thread this nice value, up to 19, so that others run before it (setpriority(2),
/// which on Linux is about one thread). Where it is refused, nothing changes.
pub fn lower_priority(nice: i32) {
    // SAFETY: numbers only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_is_lowered() {
        // SAFETY: numbers only.
        let priority = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = priority();
        let lowered = std::thread::spawn(move || {
            lower_priority(before + 1);
            priority()
        });
        assert_eq!(lowered.join().unwrap_or(-1), (before + 1).min(19));
        assert_eq!(priority(), before);
    }
}
