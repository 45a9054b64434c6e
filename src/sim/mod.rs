//! The simulator (feature `sim`): the production shard, session, appender, recovery, retention,
//! reader, lane and settling of batches, in one thread over a simulated network, disk, clock and
//! sink. A seed decides all; an outside ledger holds the server to what it has promised.
//!
//! ```text
//!  Plan (seed) --> World: events in the order of a simulated time
//!                    |  Peer ---- Net ----.
//!                    |  Disk, Files ------+--> Server: Shard, lane, retention; dies and starts again
//!                    |  Scripted (sink) --'
//!                    +-> Ledger: what was sent, answered, found, exported; I1 to I8
//! ```
//!
//! What a process sees of the disk is in real files on a memory file system, so that recovery,
//! readers and retention run as they are; what a crash would leave is kept beside them (`disk`,
//! `files`). `stage` has the hooks for it in the production code.

mod disk;
mod events;
mod files;
mod hunt;
mod ledger;
mod life;
mod mails;
mod many;
mod net;
mod peer;
mod plan;
mod random;
mod readers;
mod replies;
mod server;
mod sink;
mod trace;
mod world;

pub use hunt::{Found, hunt, replay, shrink};
pub use many::{Batch, Hear, Sums};
pub use plan::{Death, DiskFault, Fault, Mode, PeerFault, Plan, SinkFault};
pub use world::Summary;
