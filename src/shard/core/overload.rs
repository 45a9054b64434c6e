//! The overload ladder: what a shard stops doing, in which order, and when it resumes.
//!
//! ```text
//!   step            from  until   what it does, besides what is above it
//!   Stress           80 %  70 %   shorter limits (`smtp::Limits::stressed`), so smaller buffers
//!   Slow             85 %  75 %   replies wait 100 ms: senders slow down by themselves
//!   RefuseLow        90 %  80 %   452 at MAIL to mail of low priority
//!   Refuse           95 %  85 %   451 at MAIL to all
//!   CloseNew         98 %  88 %   421 in place of the greeting
//!   StopAccepting   110 % 100 %   new connections wait in the kernel
//! ```
//!
//! The pressure is the worst of: memory against its budget, the wait for a sync, sessions (which
//! alone cause no more than stress). It climbs a step at once. It goes down a step after the
//! pressure has stayed below the step's lower threshold for a second, and leaves stress after ten.
//! Sans-IO: time and load come in, the step comes out.

use std::{fmt, time::Duration};

/// How far a shard is up the ladder. Each step does what the ones before it do as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Step {
    /// No restriction.
    #[default]
    Calm,
    Stress,
    Slow,
    RefuseLow,
    Refuse,
    CloseNew,
    StopAccepting,
}

impl Step {
    const ALL: [Self; 7] = [
        Self::Calm,
        Self::Stress,
        Self::Slow,
        Self::RefuseLow,
        Self::Refuse,
        Self::CloseNew,
        Self::StopAccepting,
    ];

    /// As logged.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Stress => "stress: shorter limits",
            Self::Slow => "replies are delayed",
            Self::RefuseLow => "mail of low priority gets 452",
            Self::Refuse => "all mail gets 451",
            Self::CloseNew => "new sessions get 421",
            Self::StopAccepting => "no connections are accepted",
        }
    }

    /// Per cent of pressure at which it is entered.
    fn from(self) -> u32 {
        match self {
            Self::Calm => 0,
            Self::Stress => 80,
            Self::Slow => 85,
            Self::RefuseLow => 90,
            Self::Refuse => 95,
            Self::CloseNew => 98,
            Self::StopAccepting => 110,
        }
    }

    /// Per cent below which it is left.
    fn until(self) -> u32 {
        self.from().saturating_sub(10)
    }

    fn stays(self) -> Duration {
        if self == Self::Stress { Duration::from_secs(10) } else { Duration::from_secs(1) }
    }

    fn below(self) -> Self {
        Self::ALL[(self as usize).saturating_sub(1)]
    }
}

/// What presses on a shard at this moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    /// Octets received and not yet durable, in per cent of their budget.
    pub(super) memory: u32,
    /// How long the older half of the messages that wait for their sync has waited, at least.
    pub(super) commit_wait: Duration,
    /// Open connections in per cent of the cap.
    pub(super) sessions: u32,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, commit_wait, sessions } = self;
        write!(
            f,
            "memory {memory} %, oldest commit waits {} ms, sessions {sessions} %",
            commit_wait.as_millis()
        )
    }
}

impl Load {
    fn pressure(self) -> u32 {
        // PROTOCOL §5: a wait of one second is stress. The sender waits ten minutes (RFC 5321
        // §4.5.3.2.6), we wait one.
        let commit = match self.commit_wait.as_millis() {
            0..1_000 => 0,
            1_000..3_000 => 80,
            3_000..6_000 => 85,
            6_000..12_000 => 90,
            12_000..24_000 => 95,
            24_000..48_000 => 98,
            _ => 110,
        };
        self.memory.max(commit).max(self.sessions.min(Step::Stress.from()))
    }
}

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    step: Step,
    /// Since when the pressure is low enough to go down.
    low_since: Option<Duration>,
}

impl Ladder {
    pub(super) fn step(&self) -> Step {
        self.step
    }

    /// Takes the load of this moment; says the new step if it is another.
    pub(super) fn weigh(&mut self, load: Load, now: Duration) -> Option<Step> {
        let pressure = load.pressure();
        let up = Step::ALL.into_iter().rev().find(|step| pressure >= step.from());
        if let Some(up) = up.filter(|up| *up > self.step) {
            self.step = up;
            self.low_since = None;
            return Some(up);
        }
        if self.step == Step::Calm || pressure >= self.step.until() {
            self.low_since = None;
            return None;
        }
        let since = *self.low_since.get_or_insert(now);
        if now.saturating_sub(since) < self.step.stays() {
            return None;
        }
        self.step = self.step.below();
        self.low_since = Some(now);
        Some(self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(percent: u32) -> Load {
        Load { memory: percent, ..Load::default() }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn each_step_has_its_threshold_up() {
        for (percent, step) in [
            (79, None),
            (80, Some(Step::Stress)),
            (85, Some(Step::Slow)),
            (90, Some(Step::RefuseLow)),
            (95, Some(Step::Refuse)),
            (98, Some(Step::CloseNew)),
            (109, Some(Step::CloseNew)),
            (110, Some(Step::StopAccepting)),
        ] {
            let mut ladder = Ladder::default();
            assert_eq!(ladder.weigh(memory(percent), at(0)), step, "{percent} %");
            assert_eq!(ladder.weigh(memory(percent), at(60_000)), None, "{percent} % for longer");
        }
    }

    #[test]
    fn steps_down_are_taken_one_by_one_with_patience() {
        let mut ladder = Ladder::default();
        ladder.weigh(memory(97), at(0));
        // Above the lower threshold it stays, however long.
        assert_eq!(ladder.weigh(memory(85), at(50_000)), None);
        assert_eq!(ladder.weigh(memory(84), at(50_001)), None);
        // A moment of pressure begins the wait anew.
        assert_eq!(ladder.weigh(memory(86), at(50_500)), None);
        assert_eq!(ladder.weigh(memory(0), at(50_600)), None);
        assert_eq!(ladder.weigh(memory(0), at(51_599)), None);
        assert_eq!(ladder.weigh(memory(0), at(51_600)), Some(Step::RefuseLow));
        assert_eq!(ladder.weigh(memory(0), at(52_600)), Some(Step::Slow));
        assert_eq!(ladder.weigh(memory(0), at(53_600)), Some(Step::Stress));
        assert_eq!(ladder.weigh(memory(0), at(63_599)), None, "stress is left after ten seconds");
        assert_eq!(ladder.weigh(memory(0), at(63_600)), Some(Step::Calm));
        assert_eq!(ladder.weigh(memory(0), at(99_999)), None);
    }

    #[test]
    fn a_slow_disk_climbs_and_sessions_alone_do_not() {
        let wait = |seconds| Load { commit_wait: Duration::from_secs(seconds), ..Load::default() };
        for (seconds, step) in [
            (1, Step::Stress),
            (3, Step::Slow),
            (6, Step::RefuseLow),
            (12, Step::Refuse),
            (24, Step::CloseNew),
            (48, Step::StopAccepting),
        ] {
            assert_eq!(Ladder::default().weigh(wait(seconds), at(0)), Some(step), "{seconds} s");
        }
        let crowded = Load { sessions: 100, ..Load::default() };
        assert_eq!(Ladder::default().weigh(crowded, at(0)), Some(Step::Stress));
        assert_eq!(Ladder::default().weigh(Load { sessions: 79, ..crowded }, at(0)), None);
    }
}
