//! The configuration: where it comes from, `doctor`, and reload.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod doctor;
mod reload;
mod sources;
#[path = "../support/mod.rs"]
mod support;
