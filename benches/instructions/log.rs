//! As `smtp`, of the log.

pub(crate) use mailrace_log::{Appender, Facts, GroupBuffer, Mail, Op};

#[path = "../../src/log/testing.rs"]
pub(crate) mod testing;
