//! The ports that tests give to foreign servers.

use std::{collections::BTreeSet, fs::File};

use crate::support::ports::{PORTS, free_address};

#[test]
fn no_port_is_given_twice() {
    let ports: BTreeSet<_> = (0..200).map(|_| free_address().port()).collect();
    assert_eq!(ports.len(), 200);
    assert!(ports.iter().all(|port| PORTS.contains(port)));
    // Nor to another process: each is locked.
    let dir = std::env::temp_dir().join("mailrace-test-ports");
    let free = |port: &&u16| File::open(dir.join(port.to_string())).unwrap().try_lock().is_ok();
    assert_eq!(ports.iter().find(free), None);
}
