//! Many connections that greet and then say nothing.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::smtp;

const BATCH: usize = 200;
const GREETING_MAX: Duration = Duration::from_secs(20);

/// Opens `count` connections, has each greeted, says `ready N` and holds them until stdin ends.
///
/// # Errors
/// Where the server takes or greets fewer.
pub(crate) fn hold(address: SocketAddr, count: usize) -> io::Result<()> {
    let mut held = Vec::with_capacity(count);
    // Some at once: a server that thinks before it greets shall not take an hour.
    while held.len() < count {
        let begun = held.len();
        for _ in begun..count.min(begun + BATCH) {
            let stream = TcpStream::connect(address).map_err(|error| named(held.len(), error))?;
            stream.set_read_timeout(Some(GREETING_MAX))?;
            held.push(stream);
        }
        for (number, stream) in held.iter_mut().enumerate().skip(begun) {
            smtp::read_reply(stream).map_err(|error| named(number, error))?;
            stream.write_all(b"EHLO client.test\r\n")?;
        }
        for (number, stream) in held.iter_mut().enumerate().skip(begun) {
            smtp::read_reply(stream).map_err(|error| named(number, error))?;
        }
    }
    println!("ready {}", held.len());
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn named(number: usize, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("connection {}: {error}", number + 1))
}
