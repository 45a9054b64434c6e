//! Lines of journals: a checksum stands before the JSON, so that a torn or damaged line is found out.
//!
//! ```text
//!   CRC-32C of what follows the space, 8 hexadecimal digits; a space; a JSON value; LF
//! ```

use std::io::{self, Write};

use serde::{Serialize, de::DeserializeOwned};

use super::frame::crc;

/// Adds a line.
pub(super) fn encode(value: &impl Serialize, lines: &mut Vec<u8>) -> io::Result<()> {
    let text = serde_json::to_string(value)?;
    writeln!(lines, "{:08x} {text}", crc(text.as_bytes()))
}

/// What a line says; `None`: it is not whole.
pub(super) fn decode<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, text) = (line.get(..8)?, line.get(9..)?);
    let sum = u32::from_str_radix(str::from_utf8(sum).ok()?, 16).ok()?;
    (crc(text) == sum).then(|| serde_json::from_slice(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_whole_or_nothing() {
        let mut line = Vec::new();
        encode(&["one", "two \n"], &mut line).unwrap();
        assert_eq!(decode::<Vec<String>>(&line).unwrap(), ["one", "two \n"]);
        for end in 0..line.len() {
            assert_eq!(decode::<Vec<String>>(&line[..end]), None, "{end} octets");
        }
        for at in 0..line.len() {
            let mut damaged = line.clone();
            damaged[at] ^= 4;
            // The space between says nothing.
            assert!(at == 8 || decode::<Vec<String>>(&damaged).is_none(), "octet {at}");
        }
    }
}
