#![no_main]

#[path = "../bodies/proxy.rs"]
mod proxy;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| proxy::run(octets));
