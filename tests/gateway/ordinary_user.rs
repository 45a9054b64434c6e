//! Without root and under tight limits: the server serves, or says what to raise.

use std::{os::unix::fs::MetadataExt, time::Duration};

use crate::support::{
    Client, Launch, Server, body, eventually, id_of,
    machine::{self, Home},
};

const KIB: u64 = 1 << 10;
/// What most systems allow an ordinary user: 8 MiB.
const USUAL: u64 = 8 * 1024 * KIB;

fn launch(home: &Home, shards: usize) -> Launch {
    Launch::new(&home.data)
        .program(&home.program)
        .user(home.user)
        .set(&format!("server.shards={shards}"))
        .set("log.segment_size=16MiB")
}

fn memlock(home: &Home, shards: usize, bytes: u64) -> Launch {
    launch(home, shards).limit(libc::RLIMIT_MEMLOCK, bytes)
}

/// Takes mail on many connections, until every shard got some.
#[track_caller]
fn serves(server: &Server, shards: usize) {
    let mut taken = vec![false; shards];
    for seed in 0..1_000 {
        let mut client = server.client();
        client.ehlo();
        let message = body(seed, 2_000);
        let id = id_of(&client.bdat(&message));
        assert_eq!(server.get(&id), message);
        let shard: usize = id.split('-').nth(1).unwrap().parse().unwrap();
        taken[shard] = true;
        if taken.iter().all(|taken| *taken) {
            return;
        }
    }
    panic!("some shards took no mail: {taken:?}");
}

/// Nothing under the directory is another user's.
fn all_theirs(home: &Home) {
    let user = home.user.unwrap_or_else(|| home.program.metadata().unwrap().uid());
    let mut dirs = vec![home.data.clone()];
    while let Some(dir) = dirs.pop() {
        assert_eq!(dir.metadata().unwrap().uid(), user, "{}", dir.display());
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().uid(), user, "{}", entry.path().display());
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            }
        }
    }
}

fn starts_under_the_usual_limit(shards: usize) {
    let home = machine::ordinary_home();
    let server = memlock(&home, shards, USUAL).start();
    assert_eq!(server.status_of("CapEff"), 0);
    assert!(server.greeting.contains(&format!(" {shards} shards ")), "{}", server.greeting);
    serves(&server, shards);
    all_theirs(&home);
    assert_eq!(server.stop(), Some(0));
    // At once again, twice: the kernel gives a dead process's locked memory back a moment later.
    let server = memlock(&home, shards, USUAL).start();
    assert!(server.greeting.contains(&format!(" {shards} shards ")), "{}", server.greeting);
    server.kill();
    let server = memlock(&home, shards, USUAL).start();
    assert!(server.greeting.contains(&format!(" {shards} shards ")), "{}", server.greeting);
}

#[test]
fn two_shards_under_8_mib_of_locked_memory() {
    starts_under_the_usual_limit(2);
}

#[test]
fn sixteen_shards_under_8_mib_of_locked_memory() {
    starts_under_the_usual_limit(16);
}

/// Whatever the limit: as many shards as fit, told with the cure; or none, told with the cure.
#[test]
fn tiny_limits_of_locked_memory() {
    let mut some = Vec::new();
    for kib in [0, 64, 256, 512, 1_024, 2_048, 4_096] {
        let home = machine::ordinary_home();
        match memlock(&home, 16, kib * KIB).try_start() {
            Ok(server) => {
                let shards = shards_of(&server);
                println!("{kib} KiB: {shards} of 16 shards");
                if shards < 16 {
                    // Its stderr is heard by another thread than its greeting.
                    let only = format!("only {shards} of 16 shards start");
                    eventually(&only, Duration::from_secs(5), || {
                        let told = server.errors();
                        told.contains(&only) && told.contains("ulimit -l unlimited")
                    });
                }
                serves(&server, shards);
                assert_eq!(server.stop(), Some(0));
                some.push(shards);
            }
            Err(failure) => {
                println!("{kib} KiB: {failure}");
                assert_eq!(failure.code, Some(1), "{failure}");
                assert!(failure.errors.contains("ulimit -l unlimited"), "{failure}");
                assert!(!failure.errors.contains("panicked"), "{failure}");
                some.push(0);
            }
        }
        if home.data.exists() {
            all_theirs(&home);
        }
    }
    assert!(some.is_sorted(), "more memory, no fewer shards: {some:?}");
}

fn shards_of(server: &Server) -> usize {
    let words: Vec<_> = server.greeting.split_whitespace().collect();
    let at = words.iter().position(|word| word.starts_with("shard")).expect("it tells");
    words[at - 1].parse().unwrap()
}

/// BAD-INPUTS I7: with 256 descriptors what is too much is refused politely, and taken again later.
#[test]
fn i7_a_small_descriptor_limit() {
    let home = machine::ordinary_home();
    let limited = launch(&home, 2).limit(libc::RLIMIT_NOFILE, 256);
    let server = limited.start();
    let mut early = server.client();
    early.ehlo();
    let clients: Vec<_> = (0..400).map(|_| Client::open(server.smtp)).collect();
    let mut inside = Vec::new();
    for mut client in clients {
        let greeting = client.try_reply().expect("a greeting or a refusal");
        if greeting.starts_with("220 ") {
            inside.push(client);
        } else {
            assert!(greeting.starts_with("421 4."), "{greeting}");
        }
    }
    let greeted = inside.len();
    println!("{greeted} of 400 greeted under 256 descriptors");
    assert!(greeted >= 100, "{greeted} of 400 greeted");
    assert!(greeted < 256, "{greeted} of 400 greeted");
    // Those inside are served.
    let message = body(1, 2_000);
    assert_eq!(server.get(&id_of(&early.bdat(&message))), message);
    drop(inside);
    eventually("newcomers are taken again", Duration::from_secs(10), || {
        Client::open(server.smtp).try_reply().is_some_and(|reply| reply.starts_with("220 "))
    });
    serves(&server, 2);
    assert_eq!(server.stop(), Some(0));

    let doctor = limited.command("doctor").output().unwrap();
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let line = told.lines().find(|line| line.contains("nofile")).expect("a finding");
    assert!(line.starts_with("warning ") && line.contains("hard 256"), "{told}");
    assert!(told.contains("LimitNOFILE="), "{told}");
}
