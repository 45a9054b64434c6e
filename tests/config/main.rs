//! The configuration: where it comes from, `doctor`, and reload.

// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod doctor;
mod reload;
mod sources;
#[path = "../support/mod.rs"]
mod support;
