//! TLS of connections: whom to believe, and rustls as octets in, octets out.
//!
//! ```text
//!  socket --octets--> Tls::feed ----> plaintext --> dialogue --> outbox --> Tls::encrypt
//!  socket <--------------------------------------------------------------- Tls::write
//! ```
//!
//! [`Secure`] is a run's, checked; [`Client`] is one thread's, with the tickets of its connections;
//! [`Tls`] is one connection's.

mod client;
mod connection;

pub(super) use client::{Client, Secure};
pub(super) use connection::{Agreed, Error, Heard, Tls};
