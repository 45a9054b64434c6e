//! TLS for listeners: certificates, and rustls as octets in, octets out.
//!
//! ```text
//!  socket --octets--> Tls::feed --plaintext--> session --replies--> Tls::encrypt --octets--> socket
//!                        |  handshake, alerts, key updates
//!                        +--> Tls::take_pending: octets that go out ahead of anything else
//! ```
//!
//! [`Config`] belongs to one listener and is shared by its shards: a ticket from one shard resumes
//! on another, and not on another listener. [`Tls`] belongs to one connection. It hides rustls'
//! unbuffered interface, which the next major version of rustls no longer has.

mod callbacks;
mod certificate;
mod client;
mod client_config;
mod config;
mod connection;
mod provider;
mod secret;
mod server_name;
mod suites;
#[cfg(test)]
mod tests;
mod words;

pub use certificate::{Certificate, Files, LoadError};
pub use client_config::{ClientConfigError, TlsOptions, client_config};
pub use config::{Config, Demands, Prepared};
pub use connection::{Error, Facts, Tls};
pub use provider::install_crypto;
pub use secret::{SecretError, read_secret};
pub use words::{plain, plain_of_file, plain_pem, plain_text};
