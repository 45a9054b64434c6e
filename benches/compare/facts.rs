//! The machine and the programs, so that figures can be compared.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Name and value, in the order in which they are told.
pub(crate) fn all(disk: &Path) -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let revision = said("git", &["describe", "--always", "--dirty"]);
    let (kind, device) = file_system(&read("/proc/self/mountinfo"), disk).unwrap_or_default();
    vec![
        ("cpu", format!("{model}, {cores} cores")),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("rustc", said("rustc", &["-V"])),
        ("revision", revision),
        ("data", format!("{kind} on {device}")),
        ("load average before", read("/proc/loadavg").trim().to_owned()),
        ("date", said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
    ]
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Type and source of the mount that holds `path`: the one with the longest mount point, of equals
/// the last.
fn file_system(mountinfo: &str, path: &Path) -> Option<(String, String)> {
    let mut best: Option<(usize, String, String)> = None;
    for line in mountinfo.lines() {
        let Some((front, behind)) = line.split_once(" - ") else { continue };
        let Some(point) = front.split(' ').nth(4) else { continue };
        let mut fields = behind.split(' ');
        let (Some(kind), Some(device)) = (fields.next(), fields.next()) else { continue };
        let is_longer = best.as_ref().is_none_or(|(length, ..)| point.len() >= *length);
        if path.starts_with(point) && is_longer {
            best = Some((point.len(), kind.to_owned(), device.to_owned()));
        }
    }
    best.map(|(_, kind, device)| (kind, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_counts() {
        let mounts = "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n\
                      2 1 8:2 / /work rw - xfs /dev/b rw\n\
                      3 1 8:3 / /wor rw - tmpfs none rw\n";
        let at = |path: &str| file_system(mounts, Path::new(path)).unwrap().0;
        assert_eq!([at("/work/x"), at("/works"), at("/")], ["xfs", "ext4", "ext4"]);
        assert_eq!(file_system("", Path::new("/")), None);
    }
}
