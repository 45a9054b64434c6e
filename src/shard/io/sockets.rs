//! The sockets of a shard's connections, under the numbers by which the shard knows them.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use crate::shard::core::{Side, SocketId, UNIX_PEER};

/// See the module's page.
#[derive(Default)]
pub(super) struct Sockets {
    open: Vec<Option<OwnedFd>>,
    free: Vec<u32>,
}

impl Sockets {
    /// Keeps a socket until [`Sockets::close`].
    pub(super) fn insert(&mut self, socket: OwnedFd) -> SocketId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.open.push(None);
            u32::try_from(self.open.len() - 1).expect("fewer sockets than 2^32")
        });
        self.open[index as usize] = Some(socket);
        SocketId(index)
    }

    /// The descriptor of a socket that is open.
    pub(super) fn descriptor(&self, socket: SocketId) -> RawFd {
        let open = self.open.get(socket.0 as usize).and_then(Option::as_ref);
        open.expect("the shard names sockets that it has not closed").as_raw_fd()
    }

    /// Shuts one side or both; who is gone already does not mind.
    pub(super) fn shut(&self, socket: SocketId, side: Side) {
        let how = match side {
            Side::Sending => libc::SHUT_WR,
            Side::Both => libc::SHUT_RDWR,
        };
        // SAFETY: a descriptor of ours.
        unsafe { libc::shutdown(self.descriptor(socket), how) };
    }

    /// Closes a socket; its number is used again.
    pub(super) fn close(&mut self, socket: SocketId) {
        let closed = self.open.get_mut(socket.0 as usize).and_then(Option::take);
        assert!(closed.is_some(), "a socket is closed once");
        self.free.push(socket.0);
    }
}

/// The peer of a socket.
pub(super) fn peer_of(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let address = socket2::SockRef::from(socket).peer_addr()?;
    if address.is_unix() {
        return Ok(UNIX_PEER);
    }
    address.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// Whether the peer has sent something already.
pub(super) fn has_octets(socket: &OwnedFd) -> bool {
    let mut octet = [0_u8; 1];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: a descriptor of ours, and room for one octet.
    let len =
        unsafe { libc::recv(socket.as_raw_fd(), octet.as_mut_ptr().cast(), octet.len(), flags) };
    len > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_and_closes_its_own_socket() {
        let mut sockets = Sockets::default();
        let socket = || OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let (first, second) = (sockets.insert(socket()), sockets.insert(socket()));
        let descriptor = sockets.descriptor(second);
        sockets.close(first);
        assert_eq!(sockets.insert(socket()), first);
        assert_eq!(sockets.descriptor(second), descriptor);
    }
}
