//! Descriptors that outlive the program: a process that replaces its program by another keeps them.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

/// Leaves a descriptor open when the process replaces its program.
///
/// # Errors
/// What the kernel says.
pub fn keep_over_exec(descriptor: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: numbers only.
    match unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A listening socket that the former program of this process has left open. The number stays open,
/// for [`forget_inherited`] to close.
///
/// # Errors
/// A number that is no listening socket.
pub fn inherited_socket(number: RawFd) -> io::Result<OwnedFd> {
    let socket = socket2::Socket::from(duplicate(number)?);
    if !socket.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no listening socket"));
    }
    Ok(socket.into())
}

/// A file that the former program has left open, as [`inherited_socket`].
///
/// # Errors
/// A number that is no open file.
pub fn inherited_file(number: RawFd) -> io::Result<File> {
    Ok(duplicate(number)?.into())
}

/// Closes what the former program has left open.
pub fn forget_inherited(numbers: &[RawFd]) {
    for &number in numbers {
        // SAFETY: nobody here owns these numbers: what was taken of them are duplicates.
        unsafe { libc::close(number) };
    }
}

fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is only duplicated, which fails where it is not open.
    unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_listening_sockets_are_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let taken: TcpListener = inherited_socket(listener.as_raw_fd()).unwrap().into();
        assert_eq!(taken.local_addr().unwrap(), listener.local_addr().unwrap());
        assert!(inherited_socket(client.as_raw_fd()).is_err());
        assert!(inherited_socket(File::open("/").unwrap().as_raw_fd()).is_err());
        assert!(inherited_socket(-1).is_err());
        assert!(inherited_socket(1 << 20).is_err());
    }
}
