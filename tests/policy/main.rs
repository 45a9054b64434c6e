//! What a listener asks before it takes mail.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod dns;
mod gates;
mod open_relay;
#[path = "../support/mod.rs"]
mod support;
