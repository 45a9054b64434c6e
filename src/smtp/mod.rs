//! Protocol core: the receiving side of RFC 5321 without sockets, clocks or disks, and in [`client`]
//! what every sending side has in common.
//!
//! A driver passes octets and the time in, and gets [`Event`]s and rendered [`Replies`] back.
//!
//! ```text
//!   octets --> Session::handle_input --> Step { consumed, event }
//!                      |                         |
//!                      v                 MailData, MailDataStatic: append to the message
//!                   Replies              EndOfMail: answer with resolve_accepted, _refused or _rejected
//!              (ready | held | ...)      Discard: drop the octets collected so far
//!                                        Authenticate: answer auth_question with resolve_auth
//!                                        NeedInput, StartTls, NewClient, Close
//! ```
//!
//! Order of calls: [`Session::new`], [`Session::handle_open`] once, then [`Session::handle_input`]
//! again and again **until it returns `NeedInput` or `Close`** (also with empty input: the end of a
//! message is an event of its own), sending what [`Replies::take_ready`] returns after each round.
//!
//! `docs/PROTOCOL.md` says what is implemented of each RFC, `docs/BAD-INPUTS.md` what hostile input
//! gets.

// What was read from a disk or a client is never indexed unchecked.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod attribute;
mod chunking;
pub mod client;
mod command;
mod data;
mod dsn;
mod extension;
mod header;
mod limits;
mod line;
mod param;
mod path;
mod proxy_facts;
mod refused;
mod reply;
mod sasl;
pub mod scan;
mod session;
mod stats;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod trace;
mod transaction;

#[cfg(test)]
mod tests;

pub use command::Verb;
pub use limits::{
    Admission, Auth, Config, Entry, Limits, LineEnds, Protocol, Recipient, RecipientPolicy,
    Recipients, SenderPolicy, Senders, TlsPolicy,
};
pub use path::{Lenient, is_domain, is_mailbox, quoted_mailbox};
pub use proxy_facts::push_proxy_fact;
pub use refused::{Notes, Refusals, Refused};
pub use reply::{Refusal, Rejection, Replies, Settled};
pub use sasl::{AuthAnswer, AuthQuestion, Mechanism, Nonce, ScramCredential};
pub use session::{Context, Ending, Event, Session, Step};
pub use stats::{AuthResult, ProtocolError, REPLY_CODES, RejectReason, Stats};
pub use trace::{ReceivedFacts, received_field};
pub use transaction::{BodyType, Envelope, ForwardPaths, MailFlags, Parameters, Ret};
