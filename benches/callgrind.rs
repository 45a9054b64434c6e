//! Instructions of a run of this program under valgrind's callgrind: the same figure each time.

use std::{fs, process::Command};

/// Runs this program with these arguments, and counts.
///
/// # Errors
/// No valgrind, or a run that fails.
pub(crate) fn count(arguments: &[&str]) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let name = format!("mailrace-callgrind-{}-{}", std::process::id(), arguments.join("-"));
    let out = std::env::temp_dir().join(name.replace('/', "-"));
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "-q", &format!("--callgrind-out-file={}", out.display())])
        .arg(program)
        .args(arguments)
        .status();
    let text = fs::read_to_string(&out);
    // It may not have come to be.
    let _ = fs::remove_file(&out);
    let status = run.map_err(|error| format!("valgrind (Debian: package valgrind): {error}"))?;
    if !status.success() {
        return Err(format!("valgrind: {status}"));
    }
    let text = text.map_err(|error| format!("valgrind wrote no {}: {error}", out.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    total.ok_or_else(|| format!("{} has no totals", out.display()))
}
