//! Builds, starts and drains both planes.

mod drain;
mod flight;
mod greeting;
mod hand_over;
mod listeners;
mod logging;
mod notify;
pub mod preflight;
mod prepare;
mod recipients;
mod refusals;
mod reload;
mod retention;
mod revision;
mod room;
mod signals;
mod standing;
mod start;
mod supervise;
mod upgrade;
mod users;
mod verdicts;

use std::{
    error::Error,
    io::{self, Write},
    panic,
    sync::Arc,
};

use self::hand_over::{HandOver, Inherited};
pub use self::{revision::set_revision, room::DiskRoom};
use crate::{admin::Readiness, config::Config};

/// Runs the server until SIGTERM or SIGINT has been answered by a drain.
///
/// # Errors
/// What keeps it from starting, with the fix if one is known; a shard's failure.
pub fn run(config: Config) -> Result<(), Box<dyn Error + Send + Sync>> {
    let ready = Arc::new(Readiness::default());
    // Before there is any: each that a server needs is counted.
    let needed = preflight::threads_needed(&config);
    preflight::threads(needed)?;
    let logging = logging::start(&config.server, ready.clone())?;
    report_panics();
    signals::flush_before_abort()?;
    let mut inherited = Inherited::from_environment()?;
    let served = panic::AssertUnwindSafe(|| serve(config, ready, &mut inherited));
    // What it was is logged.
    let served = panic::catch_unwind(served)
        .unwrap_or_else(|_| Err("the server ended with an internal error".into()));
    let next = match served {
        Ok(next) => next,
        Err(error) => {
            let Some(inherited) = inherited else { return Err(error) };
            tracing::error!("the upgrade failed: {error}");
            drop(logging);
            return Err(inherited.go_back(&error.to_string()).into());
        }
    };
    drop(logging);
    next.map_or(Ok(()), |next| Err(next.execute().into()))
}

/// This program cannot be started as it was told to: if it came by an upgrade, the former one goes on,
/// and this does not return.
pub fn go_back(why: &str) {
    if let Ok(Some(inherited)) = Inherited::from_environment() {
        let error = inherited.go_back(why);
        let _ = writeln!(io::stderr(), "mailrace: {error}");
    }
}

/// Prepares, starts, supervises and drains; returns what the next program is to go on with, where one
/// is. What the former program left is taken once this one serves.
fn serve(
    config: Config,
    ready: Arc<Readiness>,
    inherited: &mut Option<Inherited>,
) -> Result<Option<HandOver>, Box<dyn Error + Send + Sync>> {
    let prepared = prepare::prepare(config, inherited.as_mut())?;
    let mut running = start::start(ready, prepared)?;
    running.report_ready(inherited.take());
    supervise::supervise(running)
}

/// A panic is a defect of ours: a line in the log, whichever thread it happens on. It does not wait
/// for that line: a session's panic is caught on its shard's thread, which has others to serve
/// (D17). A panic that ends the process does so by SIGABRT, and that one waits.
fn report_panics() {
    panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("no text");
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!("internal error, please report it: {text} ({at}, thread {thread})");
        flight::after_panic();
    }));
}

#[cfg(test)]
mod tests;
