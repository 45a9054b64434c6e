//! What rustls passes only to its callbacks, in the middle of one call: its unbuffered interface
//! has no other way to get the server name that was asked for, nor the exporter of keying material.
//!
//! A callback leaves the value on its thread; the connection that made the call collects it
//! afterwards.

use std::cell::{Cell, RefCell};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256, Sha384};

thread_local! {
    static NAME: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
    static REFUSED: Cell<bool> = const { Cell::new(false) };
    static BINDING: Cell<Option<[u8; 32]>> = const { Cell::new(None) };
}

/// The hello just read asks for this name.
pub(super) fn leave_name(name: Option<&str>) {
    NAME.set(name.map(Box::from));
}

/// The name that was asked for since the last call.
pub(super) fn take_name() -> Option<Box<str>> {
    NAME.take()
}

/// No certificate is for the name of the hello just read.
pub(super) fn leave_refusal() {
    REFUSED.set(true);
}

/// Whether a name was refused since the last call.
pub(super) fn take_refusal() -> bool {
    REFUSED.take()
}

/// The channel binding of the handshake that went on since the last call.
pub(super) fn take_binding() -> Option<[u8; 32]> {
    BINDING.take()
}

/// Sees the exporter secret of TLS 1.3, derives the channel binding, and forgets the secret.
#[derive(Debug)]
pub(super) struct Exporter;

impl rustls::KeyLog for Exporter {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        // TLS 1.2 logs its master secret without asking.
        if self.will_log(label) {
            BINDING.set(channel_binding(secret));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == "EXPORTER_SECRET"
    }
}

/// RFC 9266 §4.2: `TLS-Exporter("EXPORTER-Channel-Binding", "", 32)`.
const LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// RFC 8446 §7.5: `HKDF-Expand-Label(Derive-Secret(secret, label, ""), "exporter", Hash(""), 32)`;
/// the suite's hash is as long as its secrets are.
fn channel_binding(secret: &[u8]) -> Option<[u8; 32]> {
    let binding = match secret.len() {
        32 => {
            let nothing = Sha256::digest(b"");
            let derived = expand::<Hmac<Sha256>>(secret, LABEL, &nothing, 32)?;
            expand::<Hmac<Sha256>>(&derived, b"exporter", &nothing, 32)?
        }
        48 => {
            let nothing = Sha384::digest(b"");
            let derived = expand::<Hmac<Sha384>>(secret, LABEL, &nothing, 48)?;
            expand::<Hmac<Sha384>>(&derived, b"exporter", &nothing, 32)?
        }
        _ => return None,
    };
    binding.try_into().ok()
}

/// HKDF-Expand-Label (RFC 8446 §7.1) of no more than one block (RFC 5869 §2.3).
fn expand<M: Mac + hmac::digest::KeyInit>(
    secret: &[u8],
    label: &[u8],
    context: &[u8],
    len: u8,
) -> Option<Vec<u8>> {
    let mut mac = <M as Mac>::new_from_slice(secret).ok()?;
    mac.update(&[0, len, u8::try_from(6 + label.len()).ok()?]);
    mac.update(b"tls13 ");
    mac.update(label);
    mac.update(&[u8::try_from(context.len()).ok()?]);
    mac.update(context);
    mac.update(&[1]);
    mac.finalize().into_bytes().get(..usize::from(len)).map(<[u8]>::to_vec)
}
