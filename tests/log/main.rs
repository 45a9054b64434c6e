//! The log on disk: kills, full and lost files, `mailrace log`, groups.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod backup;
mod commands;
mod crash;
mod disk;
mod groups;
mod lost_files;
mod progress;
mod refusals;
#[path = "../support/mod.rs"]
mod support;
