//! PROXY headers: a header is read or refused by what it is, wherever it was cut.

use mailrace::shard::proxy::{HEADER_BYTES_MAX, parse};

/// The octets are what a connection begins with.
pub fn run(octets: &[u8]) {
    let whole = parse(octets);
    for len in 0..octets.len().min(HEADER_BYTES_MAX + 1) {
        let part = parse(&octets[..len]);
        assert!(part == Ok(None) || part == whole, "{len}: {part:?} and {whole:?}");
    }
    match whole {
        Ok(Some((bytes, header))) => {
            assert!(bytes <= octets.len() && bytes <= HEADER_BYTES_MAX);
            for item in header.told.split_terminator('\n') {
                assert!(item.starts_with("PROXY_") && item.contains('='), "{item}");
                assert!(!item.contains(char::is_control), "{item}");
            }
        }
        Ok(None) => assert!(octets.len() < HEADER_BYTES_MAX, "bounded"),
        Err(_) => {}
    }
}
