//! TLS of connections: which authorities to trust, and rustls as octets in, octets out.
//!
//! ```text
//!  socket --octets--> Tls::feed ----> plaintext --> dialogue --> outbox --> Tls::encrypt
//!  socket <--------------------------------------------------------------- Tls::write
//! ```
//!
//! [`Secure`] belongs to a run and is checked; [`Client`] belongs to one thread, with the tickets
//! of its connections; [`Tls`] to one connection.

mod client;
mod connection;

pub(super) use client::{Client, Secure};
pub(super) use connection::{Agreed, Error, Heard, Tls};
