//! TLS for listeners: certificates, and rustls as octets in, octets out.
//!
//! ```text
//!  socket --octets--> Tls::feed --plaintext--> session --replies--> Tls::encrypt --octets--> socket
//!                        |  handshake, alerts, key updates
//!                        +--> Tls::take_pending: octets that go out ahead of anything else
//! ```
//!
//! [`Config`] is one listener's, shared by its shards: a ticket of one shard resumes on another,
//! and none on another listener. [`Tls`] is one connection's. rustls' unbuffered interface stays
//! behind it: it is gone from the next line of rustls.

mod aside;
mod certificate;
mod client;
mod config;
mod connection;
mod server_name;
#[cfg(test)]
mod tests;
mod words;

pub use certificate::{Certificate, Files, LoadError};
pub use config::{Config, Demands, Prepared};
pub use connection::{Error, Facts, Tls};
pub use words::{plain, plain_of_file, plain_pem, plain_text};
