//! Who really sent a mail: SPF, DKIM, DMARC, ARC, iprev, and facts about From, as one
//! [`Verdict`](mailrace_log::Verdict).
//!
//! ```text
//!  client, HELO, MAIL FROM --> spf, iprev --+
//!  header --> Letter ---------> dkim, arc --+--> dmarc --> Verdict
//!  body, piece by piece -> hashes -+        |
//!  From fields --> facts -------------------+
//! ```
//!
//! Nothing a sender wrote makes it work without bounds: [`HEADER_BYTES_MAX`], [`FIELDS_MAX`],
//! [`SIGNATURES_MAX`], [`QUESTIONS_MAX`], [`DEADLINE`]. What is beyond them gets a word that says so, and
//! DNS that does not answer gets temperror.
//!
//! SPF is ours; DKIM, ARC and DMARC are mail-auth's, which sees no DNS but what `known` holds. Where it
//! is not to be trusted there is a fence, marked "Fence" with its number in `ARCHITECTURE.md`.

mod arc;
mod body;
mod decision;
mod dkim;
mod dmarc;
mod facts;
mod gate;
mod iprev;
mod judge;
mod known;
mod lane;
mod letter;
mod plane;
mod questions;
mod spf;
mod tags;
#[cfg(test)]
mod tests;

pub use decision::{RejectCause, RejectRules, Rejected, decide};
pub use gate::{Decision, Gate, GateQuestion, GateRules};
pub use judge::{DEADLINE, ENGINE, Envelope, Judge, Methods};
pub use letter::{FIELDS_MAX, HEADER_BYTES_MAX, Letter, LetterReader, SIGNATURES_MAX};
pub use plane::{ListenerRules, OwnDomains, Plane, PlaneOptions};
pub use questions::QUESTIONS_MAX;
