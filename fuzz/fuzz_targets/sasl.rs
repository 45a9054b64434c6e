#![no_main]

#[path = "../bodies/sasl.rs"]
mod sasl;
#[path = "../bodies/peer.rs"]
mod peer;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| sasl::run(octets));
