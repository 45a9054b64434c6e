//! Whether the system gives as many threads as will be needed.

use std::{ffi::c_void, io, mem::MaybeUninit, os::fd::AsRawFd as _};

/// Why threads could not be started.
#[derive(Debug)]
pub enum ThreadsError {
    /// No descriptors.
    Pipe(io::Error),
    /// Only some could.
    Thread {
        /// How many.
        started: usize,
        /// Of the next one.
        error: io::Error,
    },
}

/// Starts that many threads, all at a time, and ends them.
///
/// They are threads of the system and none of the standard library, which allocates in each: what
/// allocators keep for ended threads would stay with the process.
///
/// # Errors
/// A thread that cannot be started; those before it have ended.
pub fn start_threads(needed: usize) -> Result<(), ThreadsError> {
    /// Waits until the other end of the pipe is closed.
    extern "C" fn wait(pipe: *mut c_void) -> *mut c_void {
        let mut octet = 0_u8;
        // SAFETY: room for an octet; the descriptor stays open until this thread was joined.
        unsafe { libc::read(pipe as libc::c_int, (&raw mut octet).cast(), 1) };
        std::ptr::null_mut()
    }
    let (waiting, end) = io::pipe().map_err(ThreadsError::Pipe)?;
    let descriptor = waiting.as_raw_fd() as usize as *mut c_void;
    let mut made: Vec<libc::pthread_t> = Vec::with_capacity(needed);
    let mut failure = Ok(());
    for started in 0..needed {
        let mut thread = MaybeUninit::uninit();
        // SAFETY: room for the thread's name; the function and its argument outlive it (see below).
        let result = unsafe {
            libc::pthread_create(thread.as_mut_ptr(), std::ptr::null(), wait, descriptor)
        };
        if result != 0 {
            let error = io::Error::from_raw_os_error(result);
            failure = Err(ThreadsError::Thread { started, error });
            break;
        }
        // SAFETY: the call succeeded.
        made.push(unsafe { thread.assume_init() });
    }
    drop(end);
    for thread in made {
        // SAFETY: made above, joined once.
        unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
    }
    drop(waiting);
    failure
}
