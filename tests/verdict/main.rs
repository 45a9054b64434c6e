//! Who really sent a mail: verdicts by hand, and with every mail.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod record;
mod reject;
mod report;
#[path = "../support/mod.rs"]
mod support;
mod tag;
mod verify;
