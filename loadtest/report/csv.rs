//! The seconds of a run as a table.

use std::fmt::Write;

use super::Report;

/// One line a second, times in seconds.
pub(in super::super) fn csv(report: &Report) -> String {
    let mut out = String::from("seconds,length,acked,failed,late_skipped,bytes,p50,p99,max\n");
    for second in &report.intervals {
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{}",
            second.seconds,
            second.length,
            second.acked,
            second.failed,
            second.late_skipped,
            second.bytes,
            second.p50,
            second.p99,
            second.max,
        );
    }
    out
}
