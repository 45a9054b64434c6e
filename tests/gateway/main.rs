//! The server as a process: mail in and read back, its start and its end, limits and overload.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod end_to_end;
mod limits;
mod logging;
mod ordinary_user;
mod overload;
mod shutdown;
mod start;
#[path = "../support/mod.rs"]
mod support;
mod upgrade;
