//! Non-blocking connections: TCP, from many source addresses if asked, and unix sockets.

use std::{
    io::{self, IoSlice, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
};

use mio::{
    Interest, Registry, Token,
    net::{TcpStream, UnixStream},
};
use socket2::{Domain, Socket, Type};

use super::target::Address;

/// A network whose addresses connections come from in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientNet {
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
}

impl ClientNet {
    /// Reads `127.0.0.0/8`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a network such as 127.0.0.0/8");
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest { Err(bad()) } else { Ok(Self { address, prefix }) }
    }

    /// The address of the `number`th connection; neither the network's own nor its last.
    pub(super) fn address(self, number: u64) -> IpAddr {
        match self.address {
            IpAddr::V4(base) => {
                let mask = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                let host = if mask > 1 { number % u64::from(mask - 1) + 1 } else { number };
                IpAddr::V4(Ipv4Addr::from(u32::from(base) & !mask | host as u32 & mask))
            }
            IpAddr::V6(base) => {
                let mask = u128::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                let host = u128::from(number) + 1;
                IpAddr::V6(Ipv6Addr::from(u128::from(base) & !mask | host & mask))
            }
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection or an attempt at one, known to the poll.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
}

impl Connection {
    /// Begins to connect.
    ///
    /// # Errors
    /// What the system says: no address to bind to, no descriptor left, a unix socket that is not
    /// there. Refusal by a TCP peer comes later, from [`Self::error`].
    pub(super) fn open(
        address: &Address,
        from: Option<ClientNet>,
        number: u64,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        // Edge-triggered: one registration serves the connection's whole life.
        let interest = Interest::READABLE | Interest::WRITABLE;
        let stream = match address {
            Address::Tcp(peer) => {
                let mut stream = connect(*peer, from.map(|net| net.address(number)))?;
                registry.register(&mut stream, token, interest)?;
                Stream::Tcp(stream)
            }
            Address::Unix(path) => {
                let mut stream = UnixStream::connect(path)?;
                registry.register(&mut stream, token, interest)?;
                Stream::Unix(stream)
            }
        };
        Ok(Self { stream })
    }

    /// Its own address; none of a unix socket.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().ok(),
            Stream::Unix(_) => None,
        }
    }

    /// The error that ended the attempt, if one did.
    ///
    /// # Errors
    /// Where the socket cannot be asked.
    pub(super) fn error(&self) -> io::Result<Option<io::Error>> {
        match &self.stream {
            Stream::Tcp(stream) => stream.take_error(),
            Stream::Unix(stream) => stream.take_error(),
        }
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// As `read(2)`; `WouldBlock` where nothing is.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// As `writev(2)`; `WouldBlock` where there is no room.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (&mut self.stream, slices) {
            (Stream::Tcp(stream), [one]) => stream.write(one),
            (Stream::Tcp(stream), _) => stream.write_vectored(slices),
            (Stream::Unix(stream), _) => stream.write_vectored(slices),
        }
    }

    /// Makes the close a reset, as a client that vanishes.
    pub(super) fn reset_on_close(&self) {
        if let Stream::Tcp(stream) = &self.stream {
            let socket = socket2::SockRef::from(stream);
            // Where it fails the close is an orderly one, which is as good.
            let _ = socket.set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

fn connect(peer: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM.nonblocking(), None)?;
    // Each turn is one write: Nagle's algorithm would only hold the next one back.
    socket.set_tcp_nodelay(true)?;
    if peer.ip().is_loopback() {
        // On loopback there is no congestion, but BBR, where it is the default, would pace the
        // generator by timers. Where the kernel refuses, its default stays.
        let _ = socket.set_tcp_congestion(b"reno");
    }
    if let Some(ip) = from {
        // The port is chosen at connect, for the pair of addresses, not from one range for all.
        bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::new(ip, 0).into())?;
    }
    match socket.connect(&peer.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(std::net::TcpStream::from(socket)))
}

fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option value lives through the call, and its length is told.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stay_in_their_network() {
        let net = ClientNet::parse("127.1.0.0/30").unwrap();
        let addresses = (0..4).map(|number| net.address(number).to_string()).collect::<Vec<_>>();
        assert_eq!(addresses, ["127.1.0.1", "127.1.0.2", "127.1.0.1", "127.1.0.2"]);
        let net = ClientNet::parse("127.0.0.7/32").unwrap();
        assert_eq!(net.address(9).to_string(), "127.0.0.7");
        let net = ClientNet::parse("fd00::/64").unwrap();
        assert_eq!(net.address(1).to_string(), "fd00::2");
        for bad in ["127.0.0.1", "127.0.0.0/33", "x/8", "::/129"] {
            assert!(ClientNet::parse(bad).is_err(), "{bad}");
        }
    }
}
