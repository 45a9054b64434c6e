//! Resource limits of the process (getrlimit(2)).

/// What the limits are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Descriptors, plus one.
    OpenFiles,
    /// Octets of locked memory.
    LockedMemory,
}

/// A limit that is none.
pub const UNLIMITED: u64 = libc::RLIM_INFINITY;

impl Resource {
    fn number(self) -> libc::__rlimit_resource_t {
        match self {
            Self::OpenFiles => libc::RLIMIT_NOFILE,
            Self::LockedMemory => libc::RLIMIT_MEMLOCK,
        }
    }
}

/// The soft limit, which acts, and the hard one, up to which it may be raised.
pub fn limit(resource: Resource) -> Option<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a writable rlimit.
    let result = unsafe { libc::getrlimit(resource.number(), &raw mut limit) };
    (result == 0).then_some((limit.rlim_cur, limit.rlim_max))
}

/// Raises the soft limit to the hard one, and returns what it is then.
pub fn raise_limit(resource: Resource) -> u64 {
    let Some((soft, hard)) = limit(resource) else { return UNLIMITED };
    let raised = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: a read of `raised`.
    let result = unsafe { libc::setrlimit(resource.number(), &raw const raised) };
    if result == 0 { hard } else { soft }
}
