//! Rules over the sources and the documents.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod documents;
mod plain;
mod ports;
mod rooms;
#[path = "../support/mod.rs"]
mod support;
mod words;
