//! The session's harness without its crate's feature `testing`: a build of the workspace would put that into
//! the server.

pub(crate) use mailrace_smtp::{
    Admission, AuthAnswer, AuthQuestion, Config, Context, Entry, Envelope, Event, MailFlags, Nonce,
    Notes, Parameters, Replies, ScramCredential, Session, Stats,
};

#[allow(dead_code, reason = "tests use the rest")]
#[path = "../../src/smtp/testing.rs"]
pub(crate) mod testing;
