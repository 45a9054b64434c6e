//! What is typed at a terminal and must not be seen.

use std::{fs::File, io, os::fd::AsRawFd as _};

/// A terminal that does not show what is typed; it does again when this is dropped.
pub struct NoEcho {
    terminal: File,
    before: libc::termios,
}

impl NoEcho {
    /// Turns a terminal's echo off.
    ///
    /// # Errors
    /// The file is no terminal.
    pub fn of(terminal: &File) -> io::Result<Self> {
        let terminal = terminal.try_clone()?;
        // SAFETY: plain numbers, for which zero is a value.
        let mut before: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: a descriptor of ours, and room for the answer.
        if unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut before) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut quiet = before;
        quiet.c_lflag &= !libc::ECHO;
        set(&terminal, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = set(&self.terminal, &self.before);
    }
}

fn set(terminal: &File, to: &libc::termios) -> io::Result<()> {
    // SAFETY: a descriptor of ours, and a read of what stands there.
    match unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSAFLUSH, to) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
