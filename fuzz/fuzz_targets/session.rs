#![no_main]

#[path = "../bodies/session.rs"]
mod session;
#[path = "../bodies/peer.rs"]
mod peer;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| session::run(octets));
