//! What a panic does to the server's threads, and what an end by SIGABRT leaves on stderr.

use std::{
    os::unix::process::ExitStatusExt,
    panic,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{logging, report_panics, signals};
use crate::{
    admin::Readiness,
    config::{Config, Machine},
};

/// Set for the process that [`a_panic_that_is_caught_holds_nothing_up`] starts.
const CHILD: &str = "MAILRACE_TEST_PANICS";

/// Panics that are caught, as those of sessions are.
const CAUGHT: u32 = 20;

/// Logs as a server does, with its hook for panics: both are of the whole process, so it is another
/// one than that of the tests.
fn panic_and_abort() -> ! {
    let config = Config::from_sources([], &[], &Machine::detect()).unwrap();
    let _logging = logging::start(&config.server, Arc::new(Readiness::default())).unwrap();
    report_panics();
    signals::flush_before_abort().unwrap();
    let began = Instant::now();
    for number in 0..CAUGHT {
        panic::catch_unwind(|| panic!("session {number}")).unwrap_err();
    }
    let took = began.elapsed();
    tracing::info!("{} us", took.as_micros());
    tracing::error!("the last line");
    std::process::abort();
}

/// D17: a session that panics is closed alone, on a thread that serves all others of its core. What
/// ends the process says so in the log, and that line is written.
#[test]
fn a_panic_that_is_caught_holds_nothing_up() {
    if std::env::var_os(CHILD).is_some() {
        panic_and_abort();
    }
    let name = "server::tests::a_panic_that_is_caught_holds_nothing_up";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let said = String::from_utf8(child.stderr).unwrap();
    assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{said}");
    let panics = said.matches("internal error, please report it: session ").count();
    assert_eq!(panics, CAUGHT as usize, "{said}");
    assert!(said.trim_end().ends_with(r#""message":"the last line"}"#), "{said}");
    let took = said.split_once(" us\"").unwrap().0.rsplit_once('"').unwrap().1;
    let took = Duration::from_micros(took.parse().unwrap());
    // A look of the log's thread is 20 ms away; a panic that waited for one would take as long.
    assert!(took < CAUGHT * Duration::from_millis(10), "{took:?} for {CAUGHT} panics");
}
