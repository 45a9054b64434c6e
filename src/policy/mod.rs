//! Who may send, and to whom: recipients that are ours, users and their passwords, what the DNS
//! says of a client. What a shard asks without waiting is a snapshot here; what takes time is done
//! by threads of this room, which answer it (`shard::Advisor`).

mod accept;
mod mailbox;
mod names;

pub use accept::{Accept, AcceptError, AcceptOptions};
