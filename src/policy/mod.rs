//! Who may send, and to whom: recipients that are ours, users and their passwords, what the DNS
//! says of a client. What a shard asks without waiting is a snapshot here; what takes time is done
//! by threads of this room, which answer it (`shard::Advisor`).

mod users;
mod users_edit;
mod workers;

pub use users::{Users, UsersError, UsersFile};
pub use users_edit::{Edit, EditError, Listed, edit_users, list_users};
pub use workers::Workers;
