//! What kind of file system a directory is on.

use std::{io, path::Path};

/// A kind of file system, as far as it matters to the promise of a 250 (D2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// A local disk, or one that this program does not know.
    Local,
    /// In memory: nothing survives a reboot.
    Memory(&'static str),
    /// Another machine, or a program, keeps the files: whether a sync is honest depends on it.
    Remote(&'static str),
}

/// Magic numbers of statfs(2) and `linux/magic.h`.
const KINDS: [(u32, FileSystem); 10] = [
    (0x0102_1994, FileSystem::Memory("tmpfs")),
    (0x8584_58f6, FileSystem::Memory("ramfs")),
    (0x0000_6969, FileSystem::Remote("NFS")),
    (0xff53_4d42, FileSystem::Remote("CIFS")),
    (0xfe53_4d42, FileSystem::Remote("SMB")),
    (0x0000_517b, FileSystem::Remote("SMB")),
    (0x0102_1997, FileSystem::Remote("9p")),
    (0x6573_5546, FileSystem::Remote("FUSE")),
    (0x00c3_6400, FileSystem::Remote("Ceph")),
    (0x0bd0_0bd0, FileSystem::Remote("Lustre")),
];

impl FileSystem {
    /// Asks for the file system of a directory. Blocks.
    ///
    /// # Errors
    /// What the system says, for example that there is no such directory.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let path = std::ffi::CString::new(dir.as_os_str().as_encoded_bytes())?;
        let mut facts = std::mem::MaybeUninit::<libc::statfs>::zeroed();
        // SAFETY: a terminated path and room for the answer.
        if unsafe { libc::statfs(path.as_ptr(), facts.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded; all-zero is a valid value besides.
        let facts = unsafe { facts.assume_init() };
        Ok(Self::of_magic(facts.f_type as u32))
    }

    fn of_magic(magic: u32) -> Self {
        KINDS.iter().find(|(known, _)| *known == magic).map_or(Self::Local, |(_, kind)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        assert_eq!(FileSystem::of_magic(0xef53), FileSystem::Local);
        assert_eq!(FileSystem::of_magic(0x5846_5342), FileSystem::Local);
        assert_eq!(FileSystem::of_magic(0x6969), FileSystem::Remote("NFS"));
        // /dev/shm is a tmpfs wherever glibc runs.
        let shm = Path::new("/dev/shm");
        if shm.is_dir() {
            assert_eq!(FileSystem::of(shm).unwrap(), FileSystem::Memory("tmpfs"));
        }
        assert!(FileSystem::of(Path::new("/nonexistent")).is_err());
    }
}
