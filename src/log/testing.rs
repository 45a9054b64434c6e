//! What tests and benches of every crate build logs from (feature `testing`).

use std::time::Duration;

use super::{Appender, Facts, GroupBuffer, Mail, Op};

/// The envelope of a small message from one client to two recipients.
pub fn mail(listener: &str) -> Mail<'_> {
    Mail {
        mail_from: "a@x.test",
        rcpts: "b@Y.test\nc@z.test",
        helo: "client.test",
        client: ([127, 0, 0, 1], 25).into(),
        received_at: 1_795_305_600_000_000,
        listener,
        esmtp: true,
        smtputf8: false,
        body_type: 0,
        flags: 0,
        size_declared: None,
        facts: Facts::default(),
    }
}

/// Completes what an appender has to do, as a disk does on which nothing fails: `write` sees segment,
/// position and octets of each write.
pub fn complete(appender: &mut Appender, mut write: impl FnMut(u64, u64, &GroupBuffer)) {
    while let Some(op) = appender.poll_op() {
        match op {
            Op::Write { op, segment, position, buffer, then_sync } => {
                write(segment, position, &buffer);
                let len = buffer.len();
                appender.handle_write(op, buffer, Ok(len), Duration::ZERO);
                if let Some(sync) = then_sync {
                    appender.handle_sync(sync, Ok(()), Duration::ZERO);
                }
            }
            Op::Sync { op, .. } => appender.handle_sync(op, Ok(()), Duration::ZERO),
        }
    }
}
