//! Many seeds, and what is made of one that fails.

use std::{
    cell::RefCell,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    plan::{Fault, Mode, Plan},
    world::{Summary, World},
};
use crate::stage::{self, Bug};

/// A seed that failed.
#[derive(Debug)]
pub struct Found {
    /// Its plan, shrunk.
    pub plan: Plan,
    /// What was violated.
    pub violation: String,
}

thread_local! {
    /// What panicked on this thread, also where somebody caught it.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static WATCHED: RefCell<bool> = const { RefCell::new(false) };
}

/// A panic of a simulation is a finding and no line on stderr.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            match WATCHED.with_borrow(|watched| *watched) {
                true => PANIC.with_borrow_mut(|kept| {
                    kept.get_or_insert_with(|| panic.to_string().replace('\n', " "));
                }),
                false => usual(panic),
            }
        }));
    });
    WATCHED.set(true);
}

/// Runs a plan in a directory of its own, with a bug planted or none.
#[must_use]
pub fn replay(plan: &Plan, bug: Option<Bug>, text: bool) -> Summary {
    watch_panics();
    PANIC.take();
    let dir = scratch();
    stage::plant(bug);
    let mut world = World::new(plan.clone(), &dir, text);
    let made = world.make_dir();
    stage::enter(world.files.clone());
    let ended = catch_unwind(AssertUnwindSafe(|| {
        made.map_err(|error| format!("the simulation's own disk: {error}"))?;
        world.run()
    }));
    let violation = match (PANIC.take(), ended) {
        (Some(panic), _) => Some(panic),
        (None, Ok(ended)) => ended.err(),
        (None, Err(_)) => Some("a panic without a word".to_owned()),
    };
    // What died in the middle of a panic is not put in order.
    let summary = catch_unwind(AssertUnwindSafe(|| world.summary(violation.clone())));
    stage::leave();
    stage::plant(None);
    let _ = fs::remove_dir_all(&dir);
    summary.unwrap_or_else(|_| Summary { violation, ..Summary::default() })
}

/// A directory of a run, in memory where there is a file system for it.
fn scratch() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let memory = Path::new("/dev/shm");
    let above = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    above.join(format!("mailrace-sim-{}-{count}", std::process::id()))
}

/// Looks for the first seed of a range that fails; `tell` hears of each run.
pub fn hunt(
    seeds: impl Iterator<Item = u64>,
    mode: Mode,
    bug: Option<Bug>,
    tell: &mut dyn FnMut(u64, &Summary),
) -> Option<Found> {
    for seed in seeds {
        let plan = Plan::new(seed, mode);
        let summary = replay(&plan, bug, false);
        tell(seed, &summary);
        if let Some(violation) = summary.violation {
            return Some(Found { plan, violation });
        }
    }
    None
}

/// Leaves out faults, and mails, as long as it fails.
#[must_use]
pub fn shrink(found: Found, bug: Option<Bug>) -> Found {
    let Found { mut plan, mut violation } = found;
    // Of the same kind: another bug on the way is another finding.
    let kind = |violation: &str| violation.split(' ').take(2).collect::<String>();
    let wanted = kind(&violation);
    let fails = |plan: &Plan| {
        let violation = replay(plan, bug, false).violation?;
        (kind(&violation) == wanted).then_some(violation)
    };
    let mut step = plan.faults.len().div_ceil(2);
    while step > 0 {
        let mut at = 0;
        while at < plan.faults.len() {
            let mut fewer = plan.clone();
            let end = (at + step).min(fewer.faults.len());
            fewer.faults.drain(at..end);
            match fails(&fewer) {
                Some(now) => (plan, violation) = (fewer, now),
                None => at += step,
            }
        }
        step /= 2;
    }
    // The shortest prefix: fewer mails, by halves.
    let (mut low, mut high) = (0, plan.mails);
    while low + 1 < high {
        let mails = low.midpoint(high);
        let fewer = Plan { mails, ..plan.clone() };
        match fails(&fewer) {
            Some(now) => {
                high = mails;
                (plan, violation) = (fewer, now);
            }
            None => low = mails,
        }
    }
    Found { plan, violation }
}

impl Plan {
    /// The same without some of its faults, by their places.
    #[must_use]
    pub fn without(&self, gone: &[usize]) -> Self {
        let kept = self.faults.iter().enumerate().filter(|(at, _)| !gone.contains(at));
        let faults: Vec<Fault> = kept.map(|(_, fault)| *fault).collect();
        Self { faults, ..self.clone() }
    }
}
