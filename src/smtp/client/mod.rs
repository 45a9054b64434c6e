//! The sending side of SMTP (RFC 5321) and LMTP (RFC 2033), as far as every client has it in common,
//! without sockets, clocks or disks: reply lines, what a server offers, and the way from the greeting
//! to where mail can be sent.
//!
//! A server may be hostile: lines and replies have limits, and nothing depends on how the octets are
//! cut into reads.

mod hello;
mod offer;
mod reply;

#[cfg(test)]
mod tests;

pub use hello::{Failure, Hello, Manner, Step, plain_response};
pub use offer::Offer;
pub use reply::{BadReply, Line, LineReader, Reply, ReplyReader};
