//! The HTTP side: metrics, a real Prometheus, the live page, `top`, the stream.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod commands;
mod exposition;
mod idle;
mod insight;
mod metrics;
mod page;
mod prometheus;
mod stream;
#[path = "../support/mod.rs"]
mod support;
mod top;
