#![no_main]

#[path = "../bodies/xclient.rs"]
mod xclient;
#[path = "../bodies/peer.rs"]
mod peer;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| xclient::run(octets));
