//! A shard's listening sockets.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections the kernel may hold for one listener before the shard takes them; the kernel's own
/// `net.core.somaxconn` cuts it.
const BACKLOG: i32 = 8192;

/// How long an address may stay in use by a process that was killed: the kernel lets go of the
/// sockets of a ring some milliseconds after the process has ended.
const LINGERING: Duration = Duration::from_secs(2);

/// Tries again for two seconds while an address is in use. Blocks.
///
/// # Errors
/// The last one of `bind`.
pub fn retry_in_use<T>(mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let began = Instant::now();
    loop {
        match bind() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < LINGERING =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

/// Whether [`listen`] would have the address for this process alone: SO_REUSEPORT shares it with any
/// process of the same user that sets it too.
///
/// # Errors
/// What the kernel says of the address: `AddrInUse` where another socket has it, or one that overlaps
/// it.
pub fn probe_address(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Connections of an earlier process do no harm.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(1)
}

/// Binds one of the SO_REUSEPORT listeners of an address: the kernel spreads connections over the
/// shards that listen there.
///
/// # Errors
/// What the kernel says of the address.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Inherited by the sockets accepted here: replies are small and each is awaited.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A unix socket that listens, for all shards: whichever is woken first takes a connection. Its
/// file goes with it.
#[derive(Debug)]
pub struct UnixSocket {
    path: PathBuf,
    socket: Socket,
    /// Device and inode of the file: what another put in its place is not ours to remove.
    file: (u64, u64),
}

impl UnixSocket {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One that the former program of this process has left open at this path.
    ///
    /// # Errors
    /// Where its file is gone.
    pub fn inherited(path: &Path, socket: OwnedFd) -> io::Result<Self> {
        let file = file_of(path)?;
        Ok(Self { path: path.to_owned(), socket: socket.into(), file })
    }

    /// Leaves the file where it is: another program goes on with the socket.
    pub fn leave_file(&mut self) {
        self.file = (0, 0);
    }

    /// A descriptor of it for a shard.
    ///
    /// # Errors
    /// Where the process has no descriptor left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.socket.try_clone()?.into())
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if file_of(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn file_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Listens at a path, for this user and this group (mode 0660). A socket that nobody listens at any
/// more, as a crash leaves it, is replaced.
///
/// # Errors
/// What the kernel says of the path; that another listens there; that something other than a socket
/// is there, which is left alone.
pub fn listen_unix(path: &Path) -> io::Result<UnixSocket> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        remove_dead(path, &address)?;
        socket.bind(&address)?;
    }
    let made = || -> io::Result<(u64, u64)> {
        // Nobody can connect before `listen`: there is no moment with another mode.
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        socket.listen(BACKLOG)?;
        file_of(path)
    };
    match made() {
        Ok(file) => Ok(UnixSocket { path: path.to_owned(), socket, file }),
        Err(error) => {
            let _ = fs::remove_file(path);
            Err(error)
        }
    }
}

/// Removes a socket that nobody listens at.
fn remove_dead(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something that is not a socket is there",
        ));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // One that listens and has its backlog full must not make us wait.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn an_address_of_another_is_found_out_though_it_could_be_shared() {
        let other = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = other.local_addr().unwrap();
        let shared = listen(taken).unwrap();
        for address in [taken, SocketAddr::from(([0, 0, 0, 0], taken.port()))] {
            let error = probe_address(address).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{address}");
        }
        // IPv6 is another matter: both may be configured.
        let both = SocketAddr::from(([0; 8], taken.port()));
        probe_address(both).unwrap();
        drop((other, shared));
        retry_in_use(|| probe_address(taken)).unwrap();
    }

    #[test]
    fn an_address_in_use_is_tried_for_two_seconds() {
        let began = Instant::now();
        let in_use = || io::Error::from(io::ErrorKind::AddrInUse);
        let mut tries = 0;
        let third = retry_in_use(|| {
            tries += 1;
            if tries < 3 { Err(in_use()) } else { Ok(tries) }
        });
        assert_eq!(third.unwrap(), 3);
        assert!(retry_in_use(|| Err::<(), _>(in_use())).is_err());
        assert!(began.elapsed() >= LINGERING);
        let mut tries = 0;
        let refused = retry_in_use(|| {
            tries += 1;
            Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied))
        });
        assert!(refused.is_err() && tries == 1);
    }

    #[test]
    fn a_dead_socket_is_replaced_and_ours_goes_with_us() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lmtp");
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err() && path.exists(), "as a crash leaves it");
        let socket = listen_unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        UnixStream::connect(&path).unwrap();
        drop(socket.descriptor().unwrap());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn what_lives_or_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lmtp");
        let other = UnixListener::bind(&path).unwrap();
        let refused = listen_unix(&path).unwrap_err();
        assert_eq!(refused.to_string(), "another program listens there");
        UnixStream::connect(&path).unwrap();
        drop(other);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "text").unwrap();
        assert_eq!(
            listen_unix(&path).unwrap_err().to_string(),
            "something that is not a socket is there"
        );
        assert_eq!(fs::read(&path).unwrap(), b"text");
        let error = listen_unix(&dir.path().join("none/lmtp")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_socket_of_a_successor_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lmtp");
        let first = listen_unix(&path).unwrap();
        // A drain shuts the socket: whoever starts now takes the path over.
        first.socket.shutdown(std::net::Shutdown::Both).unwrap();
        let second = listen_unix(&path).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
        drop(second);
        assert!(!path.exists());
    }
}
