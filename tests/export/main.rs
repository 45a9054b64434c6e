//! Every sink against real servers.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod documents;
mod drain;
mod end_to_end;
mod files;
mod fleet;
mod kafka;
mod nats;
mod relay;
mod replay;
mod store;
#[path = "../support/mod.rs"]
mod support;
mod trouble;
mod webhook;
