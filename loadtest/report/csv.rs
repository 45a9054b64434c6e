//! The seconds of a run as a table.

use std::fmt::Write;

use super::Report;

/// One line a second, times in seconds.
pub(in super::super) fn csv(report: &Report) -> String {
    let mut out = String::from("seconds,length,acked,failed,late_skipped,bytes,p50,p99,max");
    // The columns of what was asked for only.
    let has_e2e = report.e2e.is_some();
    out += if has_e2e { ",e2e_p50,e2e_p99,e2e_max\n" } else { "\n" };
    for second in &report.intervals {
        // Writing into a String cannot fail.
        let _ = write!(
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
        if has_e2e {
            for value in [second.e2e_p50, second.e2e_p99, second.e2e_max] {
                out.push(',');
                out += &value.map_or(String::new(), |value| value.to_string());
            }
        }
        out.push('\n');
    }
    out
}
