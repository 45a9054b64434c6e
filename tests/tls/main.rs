//! TLS over sockets: what goes through, what clients show, and what scanners say.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod clients;
mod scan;
mod sockets;
#[path = "../support/mod.rs"]
mod support;
