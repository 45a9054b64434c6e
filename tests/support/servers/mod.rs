//! What the foreign servers of the tests share.
pub mod certificates;
pub mod dovecot;
pub mod flow;
pub mod haproxy;
pub mod kafka;
pub mod lane;
pub mod nats;
pub mod postfix;
pub mod prometheus;
pub mod proxy;
pub mod secure;
pub mod unbound;
pub mod zone;

use std::{fs, path::Path};

/// Messages of a Maildir's `new`, from `X-Mailrace-Id` on: above it stands what the server added.
/// They are stored with LF and come back with CRLF.
pub fn read_maildir(dir: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mails = entries.map(|entry| {
        let stored = fs::read(entry.unwrap().path()).unwrap();
        let mut mail = Vec::with_capacity(stored.len() + stored.len() / 32);
        for line in stored.split_inclusive(|octet| *octet == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(line) => mail.extend([line, b"\r\n"].concat()),
                None => mail.extend(line),
            }
        }
        let ours = mail.windows(15).position(|octets| octets == b"X-Mailrace-Id: ").unwrap();
        mail.split_off(ours)
    });
    mails.collect()
}
