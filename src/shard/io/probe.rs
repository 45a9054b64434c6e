//! Whether the kernel gives this process the rings that a shard needs. `serve` checks this before
//! it starts anything, because glommio answers a refusal with a panic. `doctor` checks the same.

use std::{fmt, io};

use io_uring::{IoUring, Probe, opcode, squeue};

/// A system call of io_uring that was refused, or lacks something.
#[derive(Debug)]
pub struct RingError {
    /// Its name.
    pub call: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.source)
    }
}

impl std::error::Error for RingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Makes a small ring with the flags of a shard's, and has each of the three system calls do
/// something.
///
/// # Errors
/// The first that fails.
pub fn probe_rings() -> Result<(), RingError> {
    let failed = |call| move |source| RingError { call, source };
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(8)
        .map_err(failed("io_uring_setup"))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(failed("io_uring_register"))?;
    let needed = [opcode::AcceptMulti::CODE, opcode::RecvMulti::CODE, opcode::Fsync::CODE];
    if !needed.iter().all(|operation| probe.is_supported(*operation)) {
        return Err(failed("io_uring_register")(io::Error::from_raw_os_error(libc::EINVAL)));
    }
    let entry: squeue::Entry = opcode::Nop::new().build();
    // SAFETY: the entry names no memory.
    let pushed = unsafe { ring.submission().push(&entry) };
    assert!(pushed.is_ok(), "an empty queue has room");
    ring.submit_and_wait(1).map_err(failed("io_uring_enter"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_has_rings() {
        super::probe_rings().unwrap();
    }
}
