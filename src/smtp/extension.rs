//! The list that EHLO answers (RFC 5321 §4.1.1.1).

use std::io::Write;

use super::limits::{Config, TlsPolicy};
use super::sasl::Mechanism;

/// Largest number LIMITS can say (RFC 9422 §4: six digits).
const LIMITS_MAX: u64 = 999_999;

/// What the list depends on.
#[derive(Clone, Copy)]
pub(super) struct Client {
    pub(super) exempt: bool,
    pub(super) under_tls: bool,
    pub(super) authenticated: bool,
}

/// Renders the multi-line reply to EHLO, or to LHLO, which offers the same (RFC 2033 §5).
pub(super) fn render_ehlo(config: &Config, client: Client, out: &mut Vec<u8>) {
    let Client { exempt, under_tls, authenticated } = client;
    let limits = &config.limits;
    // Writing into a Vec cannot fail.
    let _ = write!(
        out,
        "250-{}\r\n\
         250-PIPELINING\r\n\
         250-SIZE {}\r\n\
         250-8BITMIME\r\n\
         250-SMTPUTF8\r\n\
         250-CHUNKING\r\n\
         250-BINARYMIME\r\n\
         250-ENHANCEDSTATUSCODES\r\n\
         250-LIMITS RCPTMAX={}",
        config.hostname,
        limits.message_bytes,
        (limits.recipients_max as u64).min(LIMITS_MAX),
    );
    // RFC 9422 §4.1, announced only where it binds this peer.
    let mail_max = u64::from(limits.session_messages);
    if !exempt && mail_max <= LIMITS_MAX {
        let _ = write!(out, " MAILMAX={mail_max}");
    }
    // RFC 3207 §4.2: never under TLS.
    if !under_tls && matches!(config.tls, TlsPolicy::Offered | TlsPolicy::Required) {
        out.extend_from_slice(b"\r\n250-STARTTLS");
    }
    // RFC 4954 §4: what would be refused is not listed.
    if under_tls && !authenticated && config.auth.is_offered() {
        out.extend_from_slice(b"\r\n250-AUTH");
        for mechanism in Mechanism::ALL.into_iter().filter(|known| config.auth.offers(*known)) {
            let _ = write!(out, " {}", mechanism.name());
        }
    }
    for (offered, keyword) in [
        (config.dsn, "DSN"),
        // RFC 8689 §2: under TLS only.
        (config.require_tls && under_tls, "REQUIRETLS"),
        (config.mt_priority, "MT-PRIORITY"),
    ] {
        if offered {
            let _ = write!(out, "\r\n250-{keyword}");
        }
    }
    // VRFY is not listed: it answers 252 to everything (RFC 5321 §3.5.2).
    out.extend_from_slice(b"\r\n250 HELP\r\n");
}
