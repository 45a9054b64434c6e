#![no_main]

#[path = "../bodies/data.rs"]
mod data;
#[path = "../bodies/peer.rs"]
mod peer;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| data::run(octets));
