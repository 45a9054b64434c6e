//! More of everything than is comfortable: connections, octets, and peers that misbehave.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::support::{
    self, Client, Server, body, bulk, count_from, eventually, id_of, in_ci, machine,
};

/// Connects from a loopback address of choice: one has 28,000 ports only.
fn connect_from(source: u32, server: SocketAddr) -> TcpStream {
    let [_, b, c, d] = source.to_be_bytes();
    let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, b, c, d)), 0);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // The port is picked with the peer known: it may be one that another peer's connection has.
    // SAFETY: an int to read.
    let set = unsafe {
        let on: libc::c_int = 1;
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            4,
        )
    };
    assert_eq!(set, 0);
    socket.bind(&source.into()).unwrap();
    socket.connect(&server.into()).expect("it listens");
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// BAD-INPUTS I4: 10,000 sessions that say nothing cost little memory and no processor time.
#[test]
fn i4_ten_thousand_idle_sessions() {
    // Both ends' descriptors: ours here, the server's in its own process.
    let allowed = machine::raise_descriptors();
    let count = 10_000.min(usize::try_from(allowed).unwrap_or(usize::MAX).saturating_sub(200));
    assert!(count >= 10_000 || !in_ci(), "too few descriptors for this test: {allowed}");
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["server.shards=2"]);
    // What the first sessions touch once is not counted to the rest.
    let warm: Vec<_> = (0..200).map(|_| server.client()).collect();
    let before = server.status_of("VmRSS");
    let mut idle: Vec<_> = (0..count - 200)
        .map(|at| Client::over(connect_from(1 + at as u32 % 4, server.smtp)))
        .collect();
    for client in &mut idle {
        let greeting = client.reply();
        assert!(greeting.starts_with("220 "), "{greeting}");
    }
    assert_eq!(server.metric("mailrace_smtp_sessions_active", &[]), count as f64);
    let each = (server.status_of("VmRSS") - before) * 1024 / idle.len() as u64;
    println!("resident octets of an idle session: {each}");
    assert!(each <= 4_096, "{each} octets for an idle session");

    let cpu = server.cpu();
    thread::sleep(Duration::from_secs(2));
    let cpu = server.cpu() - cpu;
    println!("processor time over 2 s with {count} idle sessions: {cpu:?}");
    assert!(cpu < Duration::from_millis(500), "{cpu:?} in 2 s");

    // Mail flows for a newcomer, and for one of the idle.
    let message = body(1, 20_000);
    let mut newcomer = server.client();
    for client in [&mut newcomer, &mut idle[5_000]] {
        client.ehlo();
        assert_eq!(server.get(&id_of(&client.data(&message))), message);
    }
    drop((warm, idle));
    eventually("the sessions end", Duration::from_secs(20), || {
        server.metric("mailrace_smtp_sessions_active", &[]) == 1.0
    });
}

/// One connection after the other; MAILRACE_TEST_CONNECTIONS says how many.
#[test]
fn connections_one_after_another() {
    let count = count_from("MAILRACE_TEST_CONNECTIONS", 20_000);
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["server.shards=2"]);
    let began = Instant::now();
    let workers = 4;
    let mut memory = 0;
    thread::scope(|scope| {
        for worker in 0..workers {
            let address = server.smtp;
            scope.spawn(move || {
                for at in (worker..count).step_by(workers) {
                    let source = (1 + worker + workers * (at / 20_000 % 50)) as u32;
                    let mut client = Client::over(connect_from(source, address));
                    let greeting = client.reply();
                    assert!(greeting.starts_with("220 "), "connection {at}: {greeting}");
                    // Every way to go: by QUIT, by a FIN, by a reset.
                    match at % 3 {
                        0 => assert!(client.say("QUIT").starts_with("221 "), "connection {at}"),
                        1 => drop(client),
                        _ => client.reset(),
                    }
                }
            });
        }
        thread::sleep(Duration::from_millis(200));
        memory = server.status_of("VmRSS");
    });
    let grown = server.status_of("VmRSS").saturating_sub(memory);
    println!("{count} connections in {:?}, memory grew by {grown} KiB", began.elapsed());
    assert!(grown < 16 << 10, "{grown} KiB more than at the beginning");
    assert_eq!(server.metric("mailrace_smtp_connections_total", &[]), count as f64);
    assert_eq!(server.metric("mailrace_smtp_connections_refused_total", &[]), 0.0);
    eventually("the sessions end", Duration::from_secs(20), || {
        server.metric("mailrace_smtp_sessions_active", &[]) == 0.0
    });
    server.client().ehlo();
}

/// Five hundred sessions the moment the server is up; MAILRACE_TEST_MESSAGES says how many
/// messages they have.
#[test]
fn smtp_source_with_500_sessions_right_at_the_start() {
    if !machine::has("smtp-source") {
        return;
    }
    let count = count_from("MAILRACE_TEST_MESSAGES", 20_000);
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["server.shards=2"]);
    let began = Instant::now();
    // A message without a reply would be waited for without end.
    let output = Command::new("timeout")
        .args(["120", "smtp-source", "-s", "500", "-m", &count.to_string(), "-l", "1024", "-d"])
        .args(["-f", "a@example.test", "-t", "b@example.test", &server.smtp.to_string()])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    support::succeeded("smtp-source", output);
    assert_eq!(told, "");
    println!("{count} messages in {:?}", began.elapsed());
    assert_eq!(server.metric("mailrace_smtp_connections_refused_total", &[]), 0.0);
    assert_eq!(server.metric("mailrace_smtp_messages_rejected_total", &[]), 0.0);
    assert_eq!(support::verified(dir.path()), count as u64);
}

/// Peers that stall, flood, reset in mid-message, speak TLS or HTTP: one that behaves does not
/// notice.
#[test]
fn one_session_goes_on_beside_peers_that_misbehave() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (address, over) = (server.smtp, AtomicBool::new(false));
    let over = &over;
    // A stalled one of each kind stays for the whole time.
    let mut stalled = Vec::new();
    for octets in [&b""[..], b"EH", b"EHLO c.test\r\n", b"\x16\x03", b"GET / HTTP"] {
        let mut client = Client::connect(address);
        client.send(octets);
        stalled.push(client);
    }
    let mut in_data = server.client();
    in_data.ehlo();
    in_data.begin_data();
    in_data.send(&support::stuffed(&bulk(9, 3_000)));
    thread::scope(|scope| {
        let misbehave = |act: fn(Client)| {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    act(Client::connect(address));
                }
            });
        };
        misbehave(|mut client| {
            // A7: a line without end.
            let flood = vec![b'A'; 1 << 20];
            let _ = client.send(&flood);
            let replies = client.rest();
            assert!(replies.starts_with(b"500 5.5.2 ") || replies.is_empty());
        });
        misbehave(|mut client| {
            // B13: gone in mid-message.
            client.ehlo();
            client.begin_data();
            client.send(&support::stuffed(&bulk(3, 5_000)));
            client.reset();
        });
        misbehave(|mut client| {
            client.send(&b"NOOP\r\n".repeat(20_000));
            client.reset();
        });
        misbehave(|mut client| {
            // A11: TLS where clear text is spoken.
            client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
            client.send(&[0x5a; 506]);
            let told = client.rest();
            assert!(told.is_empty() || told.starts_with(b"500 "), "{told:?}");
        });
        misbehave(|mut client| {
            // A9, A10: HTTP, with SMTP in its body.
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@b.test>\r\n");
            let told = String::from_utf8(client.rest()).unwrap();
            assert!(told.is_empty() || told.starts_with("421 "), "{told}");
            assert!(!told.contains("250 "), "{told}");
        });
        let mut slowest = Duration::ZERO;
        let mut client = server.client();
        client.ehlo();
        let began = Instant::now();
        let mut count = 0;
        let _over = support::Raise(over);
        // However slow the machine is, beside other tests.
        while began.elapsed() < Duration::from_secs(3) || count < 20 {
            let message = body(count, 3_000);
            let sent = Instant::now();
            let id = id_of(&client.data(&message));
            slowest = slowest.max(sent.elapsed());
            if count.is_multiple_of(50) {
                assert_eq!(server.get(&id), message);
            }
            count += 1;
        }
        println!("{count} messages beside the others, the slowest took {slowest:?}");
        assert!(slowest < Duration::from_secs(5), "{slowest:?} for one message");
        assert_eq!(support::verified(dir.path()), count);
    });
    // The stalled ones were no less alive.
    in_data.send(b".\r\n");
    assert!(server.get(&id_of(&in_data.reply())) == bulk(9, 3_000));
}

/// One shard for messages of up to 1 MiB.
fn tight(dir: &std::path::Path, more: &[&str]) -> Server {
    let settings = ["server.shards=1", "limits.message_size=1MiB", "limits.connections.total=100"];
    Server::start_with(dir, &[&settings, more].concat())
}

/// BAD-INPUTS I8: beyond the memory budget reading stops and mail is refused for the moment; then it
/// goes on.
#[test]
fn i8_the_memory_budget_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let server = tight(dir.path(), &["limits.inflight_bytes=2MiB"]);
    assert_eq!(server.metric("mailrace_shard_inflight_limit_bytes", &[]), f64::from(2 << 20));
    let message = bulk(1, (200 << 10) / 64);
    let octets = support::stuffed(&message);
    // Ready before the budget is spent.
    let mut bystander = server.client();
    bystander.ehlo();
    let mut senders = support::in_data(&server, 20);
    let mut writers = Vec::new();
    let (first, last) = octets.split_at(octets.len() - 1_000);
    for client in &senders {
        let (mut stream, first) = (client.stream.get_ref().try_clone().unwrap(), first.to_owned());
        // What is not read stays in the sockets, or here.
        writers.push(thread::spawn(move || stream.write_all(&first)));
    }
    eventually("the budget is spent", Duration::from_secs(10), || {
        bystander.send(b"MAIL FROM:<a@client.test>\r\n");
        let reply = bystander.reply();
        let refused = reply.starts_with("452 4.3.1 ");
        if reply.starts_with("250 ") {
            assert!(bystander.say("RSET").starts_with("250 "));
        } else {
            // The overload ladder comes before the end of all memory.
            assert!(refused || reply.starts_with("451 4.3.2 "), "{reply}");
        }
        refused
    });
    let mut late = Client::open(server.smtp);
    let greeting = late.reply();
    assert!(greeting.starts_with("421 4.3.2 "), "{greeting}");
    assert!(server.metric("mailrace_shard_inflight_bytes", &[]) < f64::from(4 << 20));

    // Some give up: the rest is read again, each message whole.
    let gone = senders.split_off(8);
    gone.into_iter().for_each(Client::reset);
    for client in &mut senders {
        let mut stream = client.stream.get_ref().try_clone().unwrap();
        let last = last.to_owned();
        writers.push(thread::spawn(move || {
            stream.write_all(&last)?;
            stream.write_all(b".\r\n")
        }));
    }
    for client in &mut senders {
        assert_eq!(server.get(&id_of(&client.reply())), message);
    }
    for writer in writers {
        // Those that were reset know it.
        let _ = writer.join().unwrap();
    }
    let mut bystander = once_calm(&server);
    assert_eq!(server.get(&id_of(&bystander.bdat(&message))), message);
    assert!(server.metric("mailrace_shard_backpressure_seconds_total", &["memory"]) > 0.0);
    assert_eq!(support::verified(dir.path()), 9);
    let rejected = ["class=\"4xx\"", "reason=\"backpressure\""];
    assert!(server.metric("mailrace_smtp_messages_rejected_total", &rejected) > 0.0);
    let overload = ["reason=\"overload\""];
    assert!(server.metric("mailrace_smtp_connections_refused_total", &overload) > 0.0);
    // Down it goes step by step.
    let spent = |step: &str| {
        let step = format!("step=\"{step}\"");
        server.metric("mailrace_shard_overload_seconds_total", &[&step])
    };
    eventually("it is calm", Duration::from_secs(30), || {
        server.errors().contains("less overload: calm")
    });
    for step in ["close_new", "refuse", "refuse_low", "slow", "stress"] {
        assert!(spent(step) > 0.0, "{step}");
    }
    assert!(server.metric("mailrace_smtp_replies_total", &["code=\"451\""]) > 0.0);
}

/// BAD-INPUTS I8, and I9: senders that fill the budget with messages none of which can be finished
/// within it are refused for now at the deadline; nothing hangs, and the budget is free again.
#[test]
fn i8_a_budget_full_of_unfinished_messages_is_given_back_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let server = tight(dir.path(), &["limits.inflight_bytes=1MiB", "limits.timeout.data=3s"]);
    let mut octets = support::stuffed(&bulk(1, (240 << 10) / 64));
    octets.extend_from_slice(b".\r\n");
    let mut senders = support::in_data(&server, 20);
    // All begin before one may finish.
    let (first, last) = octets.split_at(200 << 10);
    let writers: Vec<_> = senders
        .iter()
        .map(|client| {
            let mut stream = client.stream.get_ref().try_clone().unwrap();
            let (first, last) = (first.to_owned(), last.to_owned());
            thread::spawn(move || {
                stream.write_all(&first)?;
                thread::sleep(Duration::from_millis(500));
                stream.write_all(&last)
            })
        })
        .collect();
    let began = Instant::now();
    let mut kept = 0;
    for client in &mut senders {
        let reply = client.reply();
        match reply.starts_with("250 ") {
            true => kept += 1,
            false => assert!(reply.starts_with("421 4.3.2 ") || reply.starts_with("45"), "{reply}"),
        }
    }
    println!("{kept} of 20 kept within {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for writer in writers {
        // Those that were told to come back may be cut off.
        let _ = writer.join().unwrap();
    }
    drop(senders);
    eventually("the budget is free", Duration::from_secs(10), || {
        server.metric("mailrace_shard_inflight_bytes", &[]) == 0.0
    });
    let mut client = once_calm(&server);
    id_of(&client.bdat(b"Subject: after\r\n"));
    assert_eq!(support::verified(dir.path()), kept + 1);
}

/// A client, once the overload ladder has been climbed down so far that mail is taken.
fn once_calm(server: &Server) -> Client {
    let mut calm = None;
    eventually("mail is accepted again", Duration::from_secs(20), || {
        let mut client = Client::open(server.smtp);
        let taken = client.reply().starts_with("220 ") && {
            client.ehlo();
            client.say("MAIL FROM:<a@client.test>").starts_with("250 ")
        };
        if taken {
            assert!(client.say("RSET").starts_with("250 "));
            calm = Some(client);
        }
        taken
    });
    calm.expect("it was taken")
}

/// B14: a client that resets behind the final dot leaves a record, whether or not it sees the 250.
#[test]
fn b14_a_reset_behind_the_final_dot_leaves_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let count = 20;
    for seed in 0..count {
        let mut client = server.client();
        client.ehlo();
        client.begin_data();
        let mut octets = support::stuffed(&bulk(seed, 100));
        octets.extend_from_slice(b".\r\n");
        client.send(&octets);
        // A reset throws away what the peer has not read yet: wait until it has.
        let socket = client.stream.get_ref();
        eventually("all is acknowledged by TCP", Duration::from_secs(5), || unsent(socket) == 0);
        eventually("all is read", Duration::from_secs(5), || {
            server.metric("mailrace_log_end_offset", &[]) > seed as f64
        });
        client.reset();
    }
    eventually("every record is kept", Duration::from_secs(10), || {
        support::verified(dir.path()) == count
    });
    let log = mailrace::log::Log::open(dir.path()).unwrap();
    let mut seeds = Vec::new();
    for segment in log.segments(0).unwrap() {
        log.walk_segment(&segment, None, 0, &mut |_, record| {
            let mut body = Vec::new();
            log.mail_data(0, record, |chunk| {
                body.extend_from_slice(chunk);
                Ok(())
            })?;
            seeds.push(support::read_bulk(&body).expect("a whole message").0);
            Ok(true)
        })
        .unwrap();
    }
    assert_eq!(seeds, (0..count).collect::<Vec<_>>());
    eventually("the sessions end", Duration::from_secs(10), || {
        server.metric("mailrace_smtp_sessions_active", &[]) == 0.0
    });
}

/// Octets that the peer's kernel has not acknowledged.
fn unsent(socket: &TcpStream) -> i32 {
    let mut count = 0;
    // SAFETY: room for an int (SIOCOUTQ).
    let done = unsafe {
        libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(socket), libc::TIOCOUTQ, &raw mut count)
    };
    assert_eq!(done, 0);
    count
}

/// A reader that takes one octet at a time gets every reply in order.
#[test]
fn a_slow_reader_gets_every_reply() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = server.client();
    client.ehlo();
    let mut stream = client.stream.into_inner();
    let group = b"MAIL FROM:<a@c.test>\r\nRCPT TO:<b@s.test>\r\nBDAT 1 LAST\r\nx".repeat(50);
    stream.write_all(&group).unwrap();
    stream.write_all(b"QUIT\r\n").unwrap();
    let mut told = Vec::new();
    let mut octet = [0];
    while stream.read(&mut octet).unwrap() > 0 {
        told.push(octet[0]);
    }
    let told = String::from_utf8(told).unwrap();
    assert_eq!(told.matches("\r\n250 2.0.0 Ok: queued as ").count(), 50, "{told}");
    assert!(told.lines().last().unwrap().starts_with("221 "), "{told}");
    assert_eq!(support::verified(dir.path()), 50);
}
