//! AUTH: whatever is said in an exchange, however it is cut, one outcome; nobody but the one user
//! gets in.

use base64::{Engine, engine::general_purpose::STANDARD};
use mailrace::smtp::{Auth, Config, TlsPolicy};

use super::peer::dialogue;

const MECHANISMS: [&str; 5] = ["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "EXTERNAL"];

/// The first octet chooses the mechanism, and whether responses are put in base64 or are sent as
/// they are; each line of the rest is a response.
pub fn run(octets: &[u8]) {
    let [mode, text @ ..] = octets else { return };
    let auth = Auth {
        plain: true,
        login: true,
        scram_sha_256: true,
        scram_sha_256_plus: mode & 0x20 != 0,
        external: true,
        required: true,
    };
    let config = Config { auth, tls: TlsPolicy::Implicit, ..Config::default() };
    let mechanism = MECHANISMS[usize::from(mode & 7) % MECHANISMS.len()];
    let mut turns = vec![b"EHLO a\r\n".to_vec(), format!("AUTH {mechanism}\r\n").into_bytes()];
    for response in text.split(|octet| *octet == b'\n') {
        let mut line = match mode & 0x40 {
            0 => STANDARD.encode(response).into_bytes(),
            _ => response.to_vec(),
        };
        line.extend_from_slice(b"\r\n");
        turns.push(line);
    }
    turns.push(b"MAIL FROM:<a@b>\r\n".to_vec());
    let turns = || turns.iter().map(|turn| &turn[..]);
    let whole = dialogue(&config, turns(), || usize::MAX);
    assert_eq!(whole, dialogue(&config, turns(), || 1));
    assert_eq!(whole, dialogue(&config, turns(), || 7));
    match whole.user.as_deref() {
        None => assert!(whole.paths.is_empty()),
        Some(user) => assert!(["user", "CN=user"].contains(&user) || mechanism.contains("SCRAM")),
    }
}
