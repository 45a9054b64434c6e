//! `mailrace-loadtest`: the load tester without the server; the same as `mailrace bench`.

use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mailrace_loadtest::run_program(std::env::args_os())
}
