//! Whether a sync reaches the disk's medium: the write cache of its device, and mount options that
//! keep flushes from it (D2).

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Finding, read_line};

const PROBE: &str = "cache";

/// Nothing where the directory is on no block device: on tmpfs, overlay, a remote file system.
pub(super) fn look(dir: &Path) -> Option<Finding> {
    let dir = dir.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let options = mount_options(&mounts, &dir);
    let device = device(&dir).ok();
    let queue = device.as_deref().and_then(|device| find(device, "queue/write_cache"));
    let reported = device.as_deref().and_then(cache_type);
    judge(&options, queue.as_deref(), reported.as_deref())
}

/// Options of the mount that a directory is on, those of its file system as well.
fn mount_options(mounts: &str, dir: &Path) -> String {
    let mut best = (0, String::new());
    for line in mounts.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let (Some(at), Some(own), Some(of_all)) = (fields.get(4), fields.get(5), fields.last())
        else {
            continue;
        };
        // As the kernel writes a space in a path.
        let at = at.replace("\\040", " ");
        // The last of two mounts in one place is the one that shows.
        if dir.starts_with(&at) && at.len() >= best.0 {
            best = (at.len(), format!("{own},{of_all}"));
        }
    }
    best.1
}

/// In sysfs.
fn device(dir: &Path) -> io::Result<PathBuf> {
    let device = fs::metadata(dir)?.dev();
    // As makedev(3) puts them together.
    let major = device >> 8 & 0xfff | device >> 32 & 0xffff_f000;
    let minor = device & 0xff | device >> 12 & 0xffff_ff00;
    fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))
}

/// Of the device, or of the disk that it is a partition of.
fn find(device: &Path, name: &str) -> Option<String> {
    let whole = device.parent()?;
    [device, whole].iter().find_map(|at| read_line(&at.join(name).display().to_string()))
}

/// What a SCSI or SATA disk says of its own cache.
fn cache_type(device: &Path) -> Option<String> {
    let whole = if device.join("partition").exists() { device.parent()? } else { device };
    let disks = fs::read_dir(whole.join("device/scsi_disk")).ok()?;
    let mut found = disks.flatten().map(|disk| disk.path().join("cache_type"));
    found.find_map(|path| read_line(&path.display().to_string()))
}

fn judge(options: &str, queue: Option<&str>, reported: Option<&str>) -> Option<Finding> {
    if let Some(option) = options.split(',').find(|one| ["nobarrier", "barrier=0"].contains(one)) {
        return Some(Finding::warning(
            PROBE,
            format!("mounted with {option}: a power cut loses mail that had its 250"),
            "remove the option from /etc/fstab and mount again: syncs have to flush the disk",
        ));
    }
    let lies = queue == Some("write through")
        && reported.is_some_and(|kind| kind.starts_with("write back"));
    if lies {
        return Some(Finding::warning(
            PROBE,
            "the disk has a volatile write cache, and the kernel is set not to flush it: a power \
             cut loses mail that had its 250"
                .to_owned(),
            "echo 'write back' >/sys/block/DISK/queue/write_cache, or turn the disk's cache off",
        ));
    }
    let seen = match queue? {
        "write back" => "volatile, flushed by each sync".to_owned(),
        "write through" => "none that is volatile, as far as the kernel knows".to_owned(),
        other => other.to_owned(),
    };
    Some(Finding::ok(PROBE, seen))
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    #[test]
    fn a_sync_that_flushes_nothing_is_found() {
        let verdict = |options, queue, reported| judge(options, queue, reported).map(|f| f.verdict);
        let back = Some("write back");
        assert_eq!(verdict("rw,relatime,rw", back, back), Some(Verdict::Ok));
        assert_eq!(verdict("rw,rw,nobarrier", back, None), Some(Verdict::Warning));
        assert_eq!(verdict("rw,rw,barrier=0", None, None), Some(Verdict::Warning));
        let through = Some("write through");
        assert_eq!(verdict("rw", through, None), Some(Verdict::Ok));
        assert_eq!(verdict("rw", through, Some("write back, no read")), Some(Verdict::Warning));
        assert_eq!(verdict("rw", None, None), None);
    }

    #[test]
    fn the_nearest_mount_counts() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
                      30 22 8:2 / /var/lib/my\\040mail rw - ext4 /dev/sda2 rw,nobarrier\n";
        let options = |dir: &str| mount_options(mounts, Path::new(dir));
        assert_eq!(options("/var/lib/other"), "rw,relatime,rw,errors=remount-ro");
        assert_eq!(options("/var/lib/my mail/data"), "rw,rw,nobarrier");
    }
}
