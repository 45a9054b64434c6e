//! The log on disk: kills, full and lost files, `mailrace log`, groups.

// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod commands;
mod crash;
mod disk;
mod groups;
mod lost_files;
#[path = "../support/mod.rs"]
mod support;
