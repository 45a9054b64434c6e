//! Starts that fail, each provoked: one line with cause and cure, an exit code, no panic and no
//! `Debug` text; and `doctor` says the same. Starts that must not fail: after a kill, and whatever
//! the machine is called.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::{
    self, Failure, Launch, MAILRACE, Server, body, eventually, id_of,
    machine::{self, Home},
    output_of, signal,
};

/// Has system calls of this process and its children fail: a seccomp filter, as containers have.
fn refuse_calls(first: u32, last: u32, errno: i32) -> std::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        // The number of the system call.
        line(LOAD, 0, 0, 0),
        line(AT_LEAST, 0, 2, first),
        line(ABOVE, 1, 0, last),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: numbers, and a program that lives until the kernel has copied it.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    if refused { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs it to its end, which must come by itself.
#[track_caller]
fn ended(command: Command) -> Failure {
    let output = output_of(command);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Failure { code: output.status.code(), errors }
}

/// One line for the operator with these words, and nothing of what only its authors can read.
#[track_caller]
fn one_cause(failure: &Failure, code: i32, words: &[&str]) {
    assert_eq!(failure.code, Some(code), "{failure}");
    let ours: Vec<_> =
        failure.errors.lines().filter(|line| line.starts_with("mailrace: ")).collect();
    let [line] = ours.as_slice() else { panic!("not one line of ours: {failure}") };
    for word in words {
        assert!(line.contains(word), "{word:?} is missing: {failure}");
    }
    for bad in ["panicked", "RUST_BACKTRACE", " { ", "Os {", "Err(", "Some(", "unwrap", "internal"]
    {
        assert!(!failure.errors.contains(bad), "{bad:?}: {failure}");
    }
    assert_eq!(failure.errors.lines().count(), 1, "{failure}");
}

/// The first failed finding of `doctor`, as `serve` would say it.
#[track_caller]
fn doctor_agrees(mut command: Command, failure: &Failure) {
    let output = command.arg("--json").arg("--offline").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed: Vec<_> = report
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["verdict"] == "failed")
        .collect();
    let said = |finding: &&serde_json::Value| {
        let (seen, fix) = (finding["seen"].as_str().unwrap(), finding["fix"].as_str().unwrap());
        failure.errors.contains(&format!("mailrace: {seen}; {fix}\n"))
    };
    assert!(failed.iter().any(said), "{failure}; doctor: {failed:#?}");
}

fn launch(dir: &Path) -> Launch {
    Launch::new(&dir.join("data")).set("server.shards=1").set("log.segment_size=16MiB")
}

/// As a user without privileges, whom limits and modes bind.
fn ordinary(home: &Home) -> Launch {
    Launch::new(&home.data)
        .program(&home.program)
        .user(home.user)
        .set("server.shards=1")
        .set("log.segment_size=16MiB")
}

#[test]
fn io_uring_refused_by_seccomp() {
    let dir = tempfile::tempdir().unwrap();
    // io_uring_setup, io_uring_enter, io_uring_register.
    for (first, last, call) in [
        (425, 427, "io_uring_setup"),
        (425, 425, "io_uring_setup"),
        (426, 426, "io_uring_enter"),
        (427, 427, "io_uring_register"),
    ] {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let command = |subcommand| {
                let mut command = launch(dir.path()).command(subcommand);
                // SAFETY: two system calls between fork and exec.
                unsafe { command.pre_exec(move || refuse_calls(first, last, errno)) };
                command
            };
            let failure = ended(command("serve"));
            one_cause(&failure, 1, &[call, "is not available", "seccomp profile"]);
            doctor_agrees(command("doctor"), &failure);
            assert!(!dir.path().join("data").exists(), "nothing was made");
        }
    }
}

#[test]
fn too_little_locked_memory() {
    for kib in [0, 64, 511] {
        let home = machine::ordinary_home();
        let launch = ordinary(&home).limit(libc::RLIMIT_MEMLOCK, kib << 10);
        let failure = ended(launch.command("serve"));
        one_cause(&failure, 1, &["locked-memory limit is", "ulimit -l unlimited", "LimitMEMLOCK="]);
        doctor_agrees(launch.command("doctor"), &failure);
        // As root too: containers run as root without the privilege.
        let dir = tempfile::tempdir().unwrap();
        let launch = self::launch(dir.path()).limit(libc::RLIMIT_MEMLOCK, kib << 10);
        one_cause(&ended(launch.command("serve")), 1, &["locked-memory limit is"]);
    }
}

#[test]
fn too_few_descriptors() {
    for count in [16, 24, 40] {
        let home = machine::ordinary_home();
        let launch = ordinary(&home).limit(libc::RLIMIT_NOFILE, count);
        let failure = ended(launch.command("serve"));
        one_cause(&failure, 1, &["limit of open files is", "ulimit -n", "LimitNOFILE="]);
        doctor_agrees(launch.command("doctor"), &failure);
    }
}

/// What the check lets pass suffices: just enough descriptors for a start start.
#[test]
fn the_descriptors_asked_for_are_enough() {
    let home = machine::ordinary_home();
    let failure = ended(ordinary(&home).limit(libc::RLIMIT_NOFILE, 16).command("serve"));
    let needed = failure.errors.split("the start alone needs ").nth(1).unwrap();
    let needed: u64 = needed.split(';').next().unwrap().parse().unwrap();
    let server = ordinary(&home).limit(libc::RLIMIT_NOFILE, needed + 2).start();
    let mut client = server.client();
    client.ehlo();
    id_of(&client.bdat(b"Subject: a\r\n\r\nb\r\n"));
    let used = fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
    println!("{used} descriptors in use, {needed} asked for");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn threads_that_cannot_be_started() {
    let home = machine::ordinary_home();
    if home.user.is_none() {
        machine::skip("a user without other processes needs root");
        return;
    }
    for count in [1, 5, 10] {
        let launch = ordinary(&home).limit(libc::RLIMIT_NPROC, count);
        let failure = ended(launch.command("serve"));
        one_cause(
            &failure,
            1,
            &["threads that are needed can be started", "ulimit -u", "TasksMax="],
        );
        doctor_agrees(launch.command("doctor"), &failure);
    }
    let failure = ended(ordinary(&home).limit(libc::RLIMIT_NPROC, 1).command("serve"));
    let needed = failure.errors.split(" of the ").nth(1).unwrap();
    let needed: u64 = needed.split(' ').next().unwrap().parse().unwrap();
    // The main thread counts as well.
    let server = ordinary(&home).limit(libc::RLIMIT_NPROC, needed + 1).start();
    println!("{} threads, {needed} asked for", server.status_of("Threads"));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn addresses_that_are_not_to_be_had() {
    let home = machine::ordinary_home();
    let listen = |address: &str| ordinary(&home).set(&format!("listener.0.listen={address}"));
    let accept = |launch: Launch| launch.set("listener.0.accept.domains=*");
    let not_ours = accept(listen("192.0.2.77:25"));
    let failure = ended(not_ours.command("serve"));
    one_cause(
        &failure,
        1,
        &["192.0.2.77:25 (listener.smtp.listen)", "not an address of this machine"],
    );
    doctor_agrees(not_ours.command("doctor"), &failure);
    let unprivileged = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let ports = unprivileged.is_ok_and(|port| port.trim() == "1024");
    if ports || machine::skip("every user may listen below port 1024") {
        let privileged = listen("127.0.0.1:925");
        let failure = ended(privileged.command("serve"));
        one_cause(&failure, 78, &["127.0.0.1:925", "below 1024", "CAP_NET_BIND_SERVICE"]);
        doctor_agrees(privileged.command("doctor"), &failure);
    }
    for taken in
        [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("0.0.0.0:0").unwrap()]
    {
        let port = taken.local_addr().unwrap().port();
        for address in [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")] {
            let launch = accept(listen(&address));
            let failure = ended(launch.command("serve"));
            one_cause(&failure, 1, &[&address, "another program uses it", "ss -ltnp"]);
            doctor_agrees(launch.command("doctor"), &failure);
        }
        let admin = format!("127.0.0.1:{port}");
        let launch = ordinary(&home).set(&format!("server.admin.listen={admin}"));
        let failure = ended(launch.command("serve"));
        one_cause(&failure, 1, &[&admin, "(server.admin.listen)", "another program uses it"]);
        doctor_agrees(launch.command("doctor"), &failure);
    }
}

#[test]
fn unix_sockets_that_are_not_to_be_had() {
    let home = machine::ordinary_home();
    let dir = home.program.parent().unwrap();
    let launch = |path: &str| {
        ordinary(&home)
            .set("listener.1.protocol=lmtp")
            .set(&format!("listener.1.listen=unix:{path}"))
    };
    let long = format!("{}/{}", dir.display(), "x".repeat(107));
    one_cause(&ended(launch(&long).command("serve")), 78, &["listener.1.listen", "at most 107"]);
    let none = format!("{}/none/lmtp", dir.display());
    let failure = ended(launch(&none).command("serve"));
    one_cause(&failure, 78, &[&none, "there is no such directory", "RuntimeDirectory="]);
    doctor_agrees(launch(&none).command("doctor"), &failure);
    let file = dir.join("file");
    fs::write(&file, "text").unwrap();
    let failure = ended(launch(file.to_str().unwrap()).command("serve"));
    one_cause(&failure, 78, &["something that is not a socket is there"]);
    let other = dir.join("other");
    let _other = std::os::unix::net::UnixListener::bind(&other).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o777)).unwrap();
    let failure = ended(launch(other.to_str().unwrap()).command("serve"));
    one_cause(&failure, 1, &["another program listens there", "ss -lxp"]);
}

#[test]
fn data_directories_that_do_not_do() {
    let home = machine::ordinary_home();
    fs::write(&home.data, "a file").unwrap();
    let failure = ended(ordinary(&home).command("serve"));
    one_cause(&failure, 78, &["log.dir ", "a file is there"]);
    doctor_agrees(ordinary(&home).command("doctor"), &failure);
    let beneath = ordinary(&home).set(&format!("log.dir={}/x", home.data.display()));
    one_cause(&ended(beneath.command("serve")), 78, &["log.dir ", "a file is there"]);
    fs::remove_file(&home.data).unwrap();
    fs::create_dir(&home.data).unwrap();
    if let Some(user) = home.user {
        std::os::unix::fs::chown(&home.data, Some(user), Some(user)).unwrap();
    }
    fs::set_permissions(&home.data, fs::Permissions::from_mode(0o500)).unwrap();
    let failure = ended(ordinary(&home).command("serve"));
    one_cause(&failure, 78, &["Permission denied", "this user must be able to write there"]);
    doctor_agrees(ordinary(&home).command("doctor"), &failure);
    fs::set_permissions(&home.data, fs::Permissions::from_mode(0o700)).unwrap();
    let server = ordinary(&home).start();
    let failure = ended(ordinary(&home).command("serve"));
    one_cause(&failure, 1, &["another process is using it"]);
    drop(server);
}

#[test]
fn files_of_secrets_that_do_not_do() {
    let home = machine::ordinary_home();
    let dir = home.program.parent().unwrap();
    let tls = |cert: &Path, key: &Path| {
        ordinary(&home)
            .set(&format!("server.tls.cert_file={}", cert.display()))
            .set(&format!("server.tls.key_file={}", key.display()))
    };
    let (missing, secret) = (dir.join("none.pem"), dir.join("secret.pem"));
    one_cause(
        &ended(tls(&missing, &missing).command("serve")),
        78,
        &["server.tls.cert_file (--set)", "none.pem", "No such file"],
    );
    fs::write(&secret, "").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    let failure = ended(tls(&secret, &secret).command("serve"));
    one_cause(&failure, 78, &["server.tls.cert_file (--set)", "Permission denied"]);
    let token = ordinary(&home).set(&format!("server.admin.token_file={}", missing.display()));
    let failure = ended(token.command("serve"));
    one_cause(&failure, 78, &["server.admin.token_file", "none.pem"]);
    let accept =
        ordinary(&home).set(&format!("listener.0.accept.recipients_file={}", missing.display()));
    let failure = ended(accept.command("serve"));
    one_cause(&failure, 78, &["listener.0.accept.recipients_file", "none.pem"]);
}

/// On one CPU of several, by affinity: a shard for it, and it serves.
#[test]
fn a_server_that_may_use_one_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let cpu = (0..1024).rev().find(|cpu| bound_to(*cpu).is_ok()).expect("a CPU of ours");
    let mut command = Launch::new(&dir.path().join("data")).command("serve");
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(move || bound_to(cpu)) };
    let mut child = command.spawn().unwrap();
    let mut greeting = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut greeting).unwrap();
    assert!(greeting.contains(" 1 shard "), "{greeting}");
    signal(&child, libc::SIGTERM);
    assert_eq!(support::ended(&mut child, Duration::from_secs(60)), Some(0));
}

/// Binds the calling thread to a CPU; this test's own thread ends with the test.
fn bound_to(cpu: usize) -> std::io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is a valid empty set, and the index lies in it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Item 24 of a bug report: the kernel lets go of the sockets of a killed server's rings some
/// milliseconds later.
#[test]
fn a_start_right_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("lmtp");
    let first = Server::start(&dir.path().join("data"));
    let (smtp, admin): (SocketAddr, SocketAddr) = (first.smtp, first.admin);
    first.kill();
    let again = || {
        launch(dir.path())
            .set(&format!("listener.0.listen={smtp}"))
            .set(&format!("server.admin.listen={admin}"))
            .set("listener.1.protocol=lmtp")
            .set(&format!("listener.1.listen=unix:{}", socket.display()))
            .start()
    };
    for turn in 0..10 {
        let server = again();
        let mut client = server.client();
        client.ehlo();
        let message = body(turn, 100);
        assert_eq!(server.get(&id_of(&client.bdat(&message))), message);
        // With a connection open, and the next start at once.
        server.kill();
    }
    assert_eq!(again().stop(), Some(0));
}

/// Two servers of one user could share a port by SO_REUSEPORT, each with half of the connections.
#[test]
fn of_two_servers_on_one_port_one_starts() {
    let first = tempfile::tempdir().unwrap();
    let server = Server::start(&first.path().join("data"));
    let port = server.smtp.port();
    let second = tempfile::tempdir().unwrap();
    for address in [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")] {
        let launch = launch(second.path())
            .set(&format!("listener.0.listen={address}"))
            .set("listener.0.accept.domains=*");
        one_cause(&ended(launch.command("serve")), 1, &[&address, "another program uses it"]);
    }
    assert_eq!(server.stop(), Some(0));
    // At the same moment.
    for _ in 0..3 {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut running: Vec<_> = dirs
            .iter()
            .map(|dir| {
                launch(dir.path()).set(&format!("listener.0.listen=127.0.0.1:{port}")).spawn()
            })
            .collect();
        let mut ended = 0;
        eventually("one of the two ends", Duration::from_secs(20), || {
            ended = running.iter_mut().filter_map(|child| child.try_wait().unwrap()).count();
            ended > 0
        });
        assert_eq!(ended, 1, "one of them serves");
        for child in &mut running {
            if child.try_wait().unwrap().is_none() {
                eventually("it listens", Duration::from_secs(20), || {
                    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
                });
                assert_eq!(child.try_wait().unwrap(), None, "it goes on serving");
                child.kill().unwrap();
            }
            child.wait().unwrap();
        }
    }
}

/// README's `listen = ["[::]:25", "0.0.0.0:25"]`: IPv6 and IPv4 on one port.
#[test]
fn every_address_of_both_families() {
    let dir = tempfile::tempdir().unwrap();
    if TcpListener::bind("[::1]:0").is_err() {
        machine::skip("there is no IPv6");
        return;
    }
    let free = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
    let server = launch(dir.path())
        .set(&format!("listener.0.listen=0.0.0.0:{free},[::]:{free}"))
        .set("listener.0.accept.domains=*")
        .start();
    for address in [format!("127.0.0.1:{free}"), format!("[::1]:{free}")] {
        let mut client = support::Client::connect(address.parse().unwrap());
        client.ehlo();
        id_of(&client.bdat(b"Subject: a\r\n\r\nb\r\n"));
    }
    assert_eq!(server.stop(), Some(0));
}

/// A host name that SMTP does not know is replaced, with a warning; in a namespace of its own.
#[test]
fn whatever_the_machine_is_called() {
    if !machine::is_root() {
        machine::skip("a UTS namespace needs root");
        return;
    }
    for (name, greeted) in [
        ("mail_gw", "mail-gw"),
        ("node1.example.org.", "node1.example.org"),
        ("b\u{fc}ro-pc", "xn--bro-pc-3ya"),
    ] {
        // SAFETY: this thread alone leaves the namespace of the others; what it starts is in there.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWUTS) }, 0);
        // SAFETY: a name with its length.
        assert_eq!(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }, 0);
        let dir = tempfile::tempdir().unwrap();
        let server = launch(dir.path()).start();
        let greeting = support::Client::open(server.smtp).reply();
        assert!(greeting.starts_with(&format!("220 {greeted} ")), "{greeting}");
        let changed = !name.starts_with("node1");
        let said = server.stop_and_read();
        assert_eq!(said.contains("set server.hostname"), changed, "{said}");
        let mut check = Command::new(MAILRACE);
        support::without_settings(&mut check);
        check.current_dir(dir.path()).arg("check");
        let output = output_of(check);
        assert_eq!(output.status.code(), Some(0));
        let warned = String::from_utf8_lossy(&output.stderr).contains("mailrace: warning: ");
        assert_eq!(warned, changed);
    }
}

/// What other programs send by mistake, or a timer left behind, ends no server.
#[test]
fn signals_that_end_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).start();
    for harmless in [
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGPIPE,
        libc::SIGXFSZ,
    ] {
        signal(&server.child, harmless);
    }
    let mut client = server.client();
    client.ehlo();
    let message = body(1, 100);
    assert_eq!(server.get(&id_of(&client.bdat(&message))), message);
    assert!(client.say("QUIT").starts_with("221 "));
    // The power is failing: a stop in order.
    signal(&server.child, libc::SIGPWR);
    let mut server = server;
    assert_eq!(server.ended(Duration::from_secs(40)), Some(0));
    assert_eq!(support::troubles(&server.errors()), "");
    // As after a kill: nothing acknowledged is lost.
    let mut server = launch(dir.path()).start();
    let mut client = server.client();
    client.ehlo();
    let id = id_of(&client.bdat(&message));
    signal(&server.child, libc::SIGQUIT);
    assert_eq!(server.ended(Duration::from_secs(20)), None);
    assert_eq!(server.get(&id), message);
    let help = Command::new(MAILRACE).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for signal in ["TERM", "HUP", "QUIT", "USR1", "XFSZ"] {
        assert!(help.contains(signal), "{signal}: {help}");
    }
}
