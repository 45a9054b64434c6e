//! The `mailrace` program: passes its arguments to the command line room.

use mailrace::{cli, server};
use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    server::set_revision(mailrace_revision::revision!());
    cli::run(std::env::args_os(), server::run)
}
