//! Many connections that greet and then say nothing.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::smtp;

/// Opens `count` connections, has each greeted, says `ready N` and holds them until stdin ends.
///
/// # Errors
/// Where the server takes or greets fewer.
pub(crate) fn hold(port: u16, count: usize) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut held = Vec::with_capacity(count);
    for number in 0..count {
        let greet = || -> io::Result<TcpStream> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            smtp::read_reply(&mut stream)?;
            stream.write_all(b"EHLO client.test\r\n")?;
            smtp::read_reply(&mut stream)?;
            Ok(stream)
        };
        let stream = greet().map_err(|error| {
            io::Error::new(error.kind(), format!("connection {}: {error}", number + 1))
        })?;
        held.push(stream);
    }
    println!("ready {}", held.len());
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
