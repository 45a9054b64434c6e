//! Random octets for secrets.

use std::io;

/// Of the system's generator, which has enough from boot on: it does not wait.
///
/// # Errors
/// There is no such system call.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256, "up to here the kernel gives all or nothing") };
    let mut octets = [0; N];
    // SAFETY: room for as many octets as are asked for.
    let got = unsafe { libc::getrandom(octets.as_mut_ptr().cast(), N, 0) };
    if usize::try_from(got) == Ok(N) { Ok(octets) } else { Err(io::Error::last_os_error()) }
}
