#![no_main]

#[path = "../bodies/verdict.rs"]
mod verdict;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| verdict::run(octets));
