//! The `mailrace` program: passes its arguments to the command line room.

use mailrace::cli::{self, ServeError};
use mailrace::config::Config;
use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(std::env::args_os(), serve)
}

/// Stands in for `mailrace::server::run`.
fn serve(_config: Config) -> Result<(), ServeError> {
    Err("this build has no server yet".into())
}
