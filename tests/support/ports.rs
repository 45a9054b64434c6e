//! Ports for servers that cannot choose one of their own.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::Mutex,
};

/// Held until the process ends, and with each the right to its port.
static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Below the range from which Linux gives ports to clients and to servers that ask for any.
pub const PORTS: std::ops::Range<u16> = 18_000..32_000;

/// An address of loopback that nobody listens on, and that neither another call, another test nor a
/// client's connection gets while this process lives: each port has a file that is locked.
pub fn free_address() -> SocketAddr {
    let dir = std::env::temp_dir().join("mailrace-test-ports");
    std::fs::create_dir_all(&dir).unwrap();
    let first = process::id() as usize * 31;
    for at in 0..PORTS.len() {
        let port = PORTS.start + ((first + at) % PORTS.len()) as u16;
        let path = dir.join(port.to_string());
        let Ok(file) = File::open(&path).or_else(|_| File::create(&path)) else { continue };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if file.try_lock().is_ok() && TcpListener::bind(address).is_ok() {
            TAKEN.lock().unwrap().push(file);
            return address;
        }
    }
    panic!("no port of {PORTS:?} is free");
}
