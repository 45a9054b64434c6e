//! Runs a shard: its executor, its ring, its sockets and files. Only this room names glommio and
//! io_uring, and it has the system calls.

mod executor;
mod inherit;
mod listener;
mod probe;
mod pump;
mod ring;
mod segments;
mod sockets;
mod watch;

pub use executor::{Handle, StartError, spawn};
pub use inherit::{forget_inherited, inherited_file, inherited_socket, keep_over_exec};
pub use listener::{UnixSocket, listen, listen_unix, probe_address, retry_in_use};
pub use probe::{RingError, probe_rings};
pub(in crate::shard) use watch::ShardWaker;
pub use watch::Watch;
