//! SPF (RFC 7208): may this client send for this domain?
//!
//! Of our own, unlike DKIM, ARC and DMARC: mail-auth 0.13.3 takes the first of several records where
//! §4.5 says permerror, counts no void lookups (§4.6.4), asks for AAAA where `exists` asks for A (§5.7)
//! and takes terms that §12 does not have.

mod check;
mod macros;
mod record;

pub(crate) use check::{SpfResult, check_host};
