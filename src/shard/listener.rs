//! A shard's listening sockets.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Socket, Type};

/// Connections the kernel may hold for one listener before the shard takes them; the kernel's own
/// `net.core.somaxconn` cuts it.
const BACKLOG: i32 = 8192;

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
