//! The one crypto provider of the process's clients.

use std::sync::Once;

/// Makes aws-lc-rs the process's provider for rustls. Every sink calls it before its first
/// connection: `ring` is in the program as well (rskafka brings it), so rustls would not choose.
pub fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that one is there already, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}
