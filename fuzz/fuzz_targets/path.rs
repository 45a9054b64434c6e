#![no_main]

#[path = "../bodies/path.rs"]
mod path;
#[path = "../bodies/peer.rs"]
mod peer;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| path::run(octets));
