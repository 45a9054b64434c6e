//! The files of `deploy/`, each under the program it is made for.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod container;
mod fail2ban;
mod kubernetes;
mod manual;
mod network;
mod notify;
mod package;
mod pages;
mod prometheus;
#[path = "../support/mod.rs"]
mod support;
mod systemd;

use std::path::{Path, PathBuf};

/// A file of the source tree.
fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
