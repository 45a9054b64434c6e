//! What tests ask of the machine: users, limits, programs, file systems of their own.

use std::{
    ffi::CString,
    io::{self, Write as _},
    net::SocketAddr,
    ops::{Deref, DerefMut},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// A resource of setrlimit(2).
pub type Resource = libc::__rlimit_resource_t;

pub fn is_root() -> bool {
    // SAFETY: it cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Whom to run a server as so that it has no privileges; `None`: as who we are. A user of each
/// call's own: the limit of locked memory counts all that a user's processes have.
pub fn ordinary_user() -> Option<u32> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    is_root().then(|| 100_000 + (std::process::id() % 1_000_000) * 100 + number % 100)
}

/// Soft and hard limit of this process.
///
/// # Errors
/// What the kernel says: a hard limit is raised by root alone.
pub fn set_limit(resource: Resource, value: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: a limit to read.
    match unsafe { libc::setrlimit(resource, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Soft limit of a process of ours, while it runs.
#[track_caller]
pub fn limit_of(child: &Child, resource: Resource, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: libc::RLIM_INFINITY };
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: a limit to read; the old one is not wanted.
    let set = unsafe { libc::prlimit(pid, resource, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

/// A process that is killed when this is dropped.
pub struct OwnedChild(pub Child);

impl OwnedChild {
    /// SIGKILL, and waits for its end.
    pub fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Deref for OwnedChild {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for OwnedChild {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command with this on its stdin.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // It may end before it reads.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Whether there is a swaks that knows TLS.
pub fn has_swaks_with_tls() -> bool {
    let perl = || Command::new("perl").args(["-MNet::SSLeay", "-e1"]).output();
    has("swaks")
        && (perl().is_ok_and(|output| output.status.success())
            || skip("swaks has no TLS without Net::SSLeay"))
}

/// Has the kernel kill this process when the thread that started it ends.
///
/// # Errors
/// What the kernel says.
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: numbers only.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Hard limit of descriptors of this process, made the soft one.
pub fn raise_descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for the answer, then a read of it.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    limit.rlim_cur
}

/// A place of a user's own: the program and a data directory not yet made.
pub struct Home {
    _dir: tempfile::TempDir,
    pub user: Option<u32>,
    pub program: PathBuf,
    pub data: PathBuf,
}

/// Makes a directory that belongs to an [`ordinary_user`], with a copy of the program: the build
/// directory may lie where that user cannot go.
pub fn ordinary_home() -> Home {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("mailrace");
    std::fs::copy(super::MAILRACE, &program).unwrap();
    let user = ordinary_user();
    if let Some(user) = user {
        for path in [dir.path(), &program] {
            std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
        }
    }
    let data = dir.path().join("data");
    Home { _dir: dir, user, program, data }
}

/// Whether a program is there. Without it the test is skipped, under CI=true it fails:
/// `tests/run` installs what is missing.
#[must_use]
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|dir| dir.join(program).is_file());
    found || skip(&format!("{program} is not installed"))
}

/// Says why a test does not run; under CI=true that is a failure. Always false.
pub fn skip(why: &str) -> bool {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}, and this is CI");
    eprintln!("skipped: {why}");
    false
}

/// An address of loopback that refuses connections as long as this lives: its socket does not
/// listen, and no other program is given the port.
pub struct ClosedPort {
    _socket: socket2::Socket,
    pub address: SocketAddr,
}

pub fn closed_port() -> ClosedPort {
    let kind = (socket2::Domain::IPV4, socket2::Type::STREAM);
    let socket = socket2::Socket::new(kind.0, kind.1, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().expect("of IPv4");
    ClosedPort { _socket: socket, address }
}

/// A command of the system's, run to success.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    super::succeeded(program, output);
}

/// Has promtool look at a page of metrics; it must have nothing to say.
#[track_caller]
pub fn promtool(page: &str) {
    if !has("promtool") {
        return;
    }
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().expect("piped").write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert_eq!(String::from_utf8_lossy(&said), "");
    super::succeeded("promtool check metrics", output);
}

/// Gives this thread, and the processes that it starts, a file in the place of `/etc/hosts`.
pub fn own_hosts(lines: &str) {
    private_mounts();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    run("mount", &["--bind", &file.path().display().to_string(), "/etc/hosts"]);
}

/// A mount namespace of this thread's own.
fn private_mounts() {
    // SAFETY: this thread alone leaves the namespace of the others.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "a mount namespace");
    run("mount", &["--make-rprivate", "/"]);
}

/// A small file system of this thread's own, and of the processes and threads it starts: in a
/// mount namespace that goes away with them, so nothing is left behind however a test ends.
pub struct SmallDisk {
    _dir: tempfile::TempDir,
    pub path: PathBuf,
    /// What is mounted below it, the innermost last.
    below: Vec<PathBuf>,
}

impl SmallDisk {
    /// An ext4 of so many MiB on a loop device.
    pub fn ext4(mib: u64) -> Self {
        Self::ext4_of_files(mib, mib << 8)
    }

    /// As [`SmallDisk::ext4`], with room for so many files.
    pub fn ext4_of_files(mib: u64, files: u64) -> Self {
        let disk = Self::namespace();
        let image = disk._dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let (image, path) = (image.display().to_string(), disk.path.display().to_string());
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-N", &files.to_string(), &image]);
        run("mount", &["-o", "loop", &image, &path]);
        disk
    }

    /// An ext4 that promises so many MiB and can lose what it was given, see
    /// [`SmallDisk::fill_below`]: its image is a file of another ext4, whose image lies in a tmpfs.
    pub fn hollow(mib: u64) -> Self {
        let mut disk = Self::namespace();
        let (memory, middle) = (disk._dir.path().join("memory"), disk._dir.path().join("middle"));
        let text = |path: &Path| path.display().to_string();
        std::fs::create_dir(&memory).unwrap();
        std::fs::create_dir(&middle).unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", &text(&memory)]);
        let images =
            [(memory.join("image"), mib * 2, &middle), (middle.join("image"), mib, &disk.path)];
        for (image, mib, at) in images {
            match at == &middle {
                true => std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap(),
                // Its blocks are allocated, so that a write changes nothing else.
                false => allocate(&image, mib << 20).unwrap(),
            }
            run("mkfs.ext4", &["-q", "-F", "-m", "0", &text(&image)]);
            run("mount", &["-o", "loop", &text(&image), &text(at)]);
        }
        disk.below = vec![middle, memory];
        disk
    }

    /// Takes the room below a hollow disk: it caches writes to new blocks, and a sync of them fails.
    pub fn fill_below(&self) {
        let memory = self.below.last().expect("a hollow disk");
        let mut ballast = std::fs::File::create(memory.join("ballast")).unwrap();
        while ballast.write_all(&[1; 65_536]).is_ok() {}
    }

    /// A tmpfs of so many MiB.
    pub fn tmpfs(mib: u64) -> Self {
        let disk = Self::namespace();
        let path = disk.path.display().to_string();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", &path]);
        disk
    }

    /// A ramfs, which no file can be opened on with O_DIRECT.
    pub fn ramfs() -> Self {
        let disk = Self::namespace();
        run("mount", &["-t", "ramfs", "ramfs", &disk.path.display().to_string()]);
        disk
    }

    fn namespace() -> Self {
        private_mounts();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        Self { _dir: dir, path, below: Vec::new() }
    }

    /// Octets that an ordinary user may still take.
    pub fn free(&self) -> u64 {
        let path = CString::new(self.path.as_os_str().as_bytes()).unwrap();
        let mut facts = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
        // SAFETY: a terminated path and room for the answer.
        assert_eq!(unsafe { libc::statvfs(path.as_ptr(), facts.as_mut_ptr()) }, 0);
        // SAFETY: the call succeeded.
        let facts = unsafe { facts.assume_init() };
        facts.f_bavail * facts.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The server was killed before; the last reference to the loop device frees it.
        for path in std::iter::once(&self.path).chain(&self.below) {
            let _ = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}

/// Allocates a file, as much of it as there is room for.
pub fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let file = std::fs::File::create(path)?;
    let len = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: a descriptor of ours.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
