//! SMTP and LMTP as foreign clients and proxies speak them, and what is read out of a mail.

// What is `pub` here is of use to the modules beside it.
#![allow(unreachable_pub)]
// The lint's exemption covers functions marked #[test], not their helpers.
#![allow(clippy::unwrap_used)]

mod fuzz_corpus;
mod header_python;
mod lmtp;
mod mail_flags;
mod postfix_client;
mod proxy;
mod real_clients;
#[path = "../support/mod.rs"]
mod support;
