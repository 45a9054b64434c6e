//! Which process holds a lock or listens on a port, read from /proc.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// The process that holds the lock of a data directory, if there is one.
pub(super) fn of_lock(dir: &Path) -> Option<u32> {
    let inode = fs::metadata(dir.join("LOCK")).ok()?.ino();
    lock_holder(&fs::read_to_string("/proc/locks").ok()?, inode)
}

/// `1: FLOCK  ADVISORY  WRITE 1423 fe:00:131077 0 EOF`, see proc(5).
fn lock_holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let file = fields.get(5)?.rsplit(':').next()?;
        (fields.get(1) == Some(&"FLOCK") && file.parse() == Ok(inode))
            .then(|| fields.get(4)?.parse().ok())?
    })
}

/// Whether this process listens at an address that keeps others from binding the given one.
/// `None`: it cannot be found out, as the process belongs to another user.
pub(super) fn listens(pid: u32, address: SocketAddr) -> Option<bool> {
    let sockets = sockets_of(pid)?;
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).ok());
    let listening = tables.iter().flatten().flat_map(|table| listening_sockets(table));
    Some(listening.into_iter().any(|(at, inode)| {
        at.port() == address.port()
            && (at.ip() == address.ip()
                || at.ip().is_unspecified()
                || address.ip().is_unspecified())
            && sockets.contains(&inode)
    }))
}

/// Inodes of a process's sockets.
fn sockets_of(pid: u32) -> Option<Vec<u64>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode = |link: std::path::PathBuf| {
        let name = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        name.parse().ok()
    };
    Some(links.filter_map(inode).collect())
}

/// Addresses and inodes of the listening sockets in /proc/net/tcp or tcp6.
fn listening_sockets(table: &str) -> Vec<(SocketAddr, u64)> {
    const LISTEN: &str = "0A";
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let address = SocketAddr::new(ip_of(ip)?, u16::from_str_radix(port, 16).ok()?);
        (fields.get(3) == Some(&LISTEN)).then(|| Some((address, fields.get(9)?.parse().ok()?)))?
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// Words of four octets, each in the byte order of the machine.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let words = hex.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok()?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    });
    let octets: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
    match octets.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_holder_of_a_lock_is_read() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fe:00:12 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 1423 fe:00:131077 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 fe:00:131077 0 EOF\n";
        assert_eq!(lock_holder(locks, 131_077), Some(1423));
        assert_eq!(lock_holder(locks, 12), None, "a lock of another kind");
        assert_eq!(lock_holder("nonsense\n", 1), None);
    }

    #[test]
    fn own_sockets_are_found() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let asked = SocketAddr::from(([127, 0, 0, 1], port));
            assert_eq!(listens(std::process::id(), asked), Some(true));
            drop(listener);
            assert_eq!(listens(std::process::id(), asked), Some(false));
        }
        assert_eq!(listens(0, "127.0.0.1:1".parse().unwrap()), None);
    }
}
