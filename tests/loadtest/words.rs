//! What a run says where it does not go well, and what it knows of the server.

use super::{support::machine, *};

use crate::support;

/// A server that greets each connection so and closes it.
fn greeter(greeting: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // The client may be gone.
            let _ = stream.write_all(greeting.as_bytes());
        }
    });
    address
}

/// A server that answers each command by `answer`.
fn answerer(answer: fn(&str) -> &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut out = stream.try_clone().unwrap();
                let _ = out.write_all(b"220 mx\r\n");
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if out.write_all(answer(&line).as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_greeting_that_refuses_is_quoted() {
    for (greeting, words) in [
        ("554 5.7.1 no mail \x1b[31mhere\r\n", "554 5.7.1 no mail \\u{1b}[31mhere"),
        ("554-first words\r\n554 last words\r\n", "554 first words"),
        ("421 4.3.2 come back later\r\n", "421 4.3.2 come back later"),
    ] {
        let (output, _) = outcome(greeter(greeting), &["-n", "1", "-c", "1"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(words), "{words}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_refusal_in_the_session_is_quoted_and_counted() {
    let refuse_mail = |line: &str| match line.get(..4) {
        Some("MAIL") => "550-5.7.1 not from you\r\n550 5.7.1 see our policy\r\n",
        Some("QUIT") => "221 bye\r\n",
        _ => "250 ok\r\n",
    };
    let address = answerer(refuse_mail);
    let target = format!("smtp://{address}");
    let output = bench(&[&target, "-n", "5", "-c", "1", "--pipelining", "off"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("no message was acknowledged; the server said: 550 5.7.1 not from you")
    );
    assert!(stdout.contains("550 x 5   5.7.1 not from you"), "{stdout}");
    let (_, report) = outcome(address, &["-n", "5", "-c", "1", "--pipelining", "off"]);
    assert_eq!(count(&report, "/replies/550"), 5);
    let refuse_helo = |line: &str| match line.get(..4) {
        Some("EHLO" | "HELO") => "550 5.7.1 a name we do not like\r\n",
        _ => "250 ok\r\n",
    };
    let (output, _) = outcome(answerer(refuse_helo), &["-n", "5", "-c", "1"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("550 5.7.1 a name we do not like"), "{stderr}");
}

#[test]
fn every_address_of_a_name_is_tried() {
    if !(machine::is_root() || machine::skip("names of one's own need root")) {
        return;
    }
    // Nothing listens on the other address, whichever is tried first.
    machine::own_hosts(
        "127.0.0.2 one.test\n127.0.0.1 one.test\n127.0.0.1 two.test\n127.0.0.2 two.test\n",
    );
    let sink = Sink::start();
    for name in ["one.test", "two.test"] {
        let target = format!("smtp://{name}:{}", sink.1.port());
        let output = bench(&[&target, "-n", "5", "-c", "1", "--format", "json"]);
        assert!(is_made(&output), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["address"], sink.1.to_string());
        let text = bench(&[&target, "-n", "5", "-c", "1"]);
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(text.contains(&format!("{target} ({})", sink.1)), "{text}");
    }
    let nobody = machine::closed_port();
    let target = format!("smtp://one.test:{}", nobody.address.port());
    let output = bench(&[&target, "-n", "1"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for ip in ["127.0.0.1", "127.0.0.2"] {
        let refused = format!("{ip}:{}: Connection refused", nobody.address.port());
        assert!(stderr.contains(&refused), "{refused}: {stderr}");
    }
}

#[test]
fn verify_finds_the_data_directory_as_serve_does() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    let config = dir.path().join("mailrace.toml");
    fs::write(&config, format!("[log]\ndir = \"{}\"\n", data.display())).unwrap();
    let target = format!("smtp://{}", server.smtp);
    let run = |arguments: &[&str], environment: Option<&Path>| {
        let mut command = Command::new(support::MAILRACE);
        command.args(["bench", &target, "-n", "20", "-c", "2", "--verify", "--format", "json"]);
        command.args(arguments).current_dir(dir.path());
        support::without_settings(&mut command);
        if let Some(dir) = environment {
            command.env("MAILRACE_LOG__DIR", dir);
        }
        let output = command.output().unwrap();
        let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output, report)
    };
    let elsewhere = dir.path().join("elsewhere");
    for (arguments, environment) in [
        (&["--config", config.to_str().unwrap()][..], None),
        // ./mailrace.toml
        (&[], None),
        (&[], Some(data.as_path())),
        // A flag wins.
        (&["--log-dir", data.to_str().unwrap()], Some(elsewhere.as_path())),
    ] {
        let (output, report) = run(arguments, environment);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(is_made(&output), "{arguments:?}: {stderr}");
        assert_eq!(count(&report, "/verify/found"), 20, "{arguments:?}");
    }
    // A wrong directory is known before the load.
    let (output, _) = run(&[], Some(&elsewhere));
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("is not the server's data directory"), "{stderr}");
    assert!(output.stdout.is_empty());
    let (output, _) = run(&["--config", "/nonexistent.toml"], None);
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn a_run_that_measured_the_generator_has_a_code_of_its_own() {
    // Far more than one thread can send.
    let sink = Sink::start();
    let run = ["-r", "50M", "-z", "1s", "--warmup", "0s", "-c", "20", "--late-limit", "10ms"];
    let (output, report) = outcome(sink.1, &[&run[..], &["--size", "256"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(report["generator"]["valid"], false, "{}", report["generator"]);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("INVALID"), "{stderr}");
    let help = String::from_utf8(bench(&["--help"]).stdout).unwrap();
    assert!(help.contains("  4  the run is INVALID"), "{help}");
}

#[test]
fn the_disk_that_a_run_may_fill_is_named_before_it() {
    let sink = Sink::start();
    // A server that takes nothing: only the words before the load matter.
    let (output, _) = outcome(
        greeter("554 no\r\n"),
        &["-r", "10k", "-z", "10s", "--warmup", "0s", "--size", "100k", "-c", "1"],
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("will receive up to 9.5 GiB"), "{stderr}");
    let (output, _) = outcome(sink.1, &["-n", "5", "-c", "1"]);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn text_says_what_a_search_and_a_scenario_found_and_what_the_server_used() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    let target = format!("smtp://{}", server.smtp);
    let common = ["--warmup", "0s", "--size", "1k"];
    let search = ["--search", "rate<1200", "-z", "0.3s", "-c", "4"];
    let output = bench(&[&[&target[..]], &common[..], &search[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(" search     500/s asked") && text.contains(" result     "), "{text}");
    let scenario = dir.path().join("scenario.toml");
    fs::write(&scenario, "[[client]]\nbehaviour = \"early-talking\"\nshare = 0.1\n").unwrap();
    let scenario = ["--scenario", scenario.to_str().unwrap(), "-z", "2s", "-c", "10"];
    let output = bench(&[&[&target[..]], &common[..], &scenario[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(" scenario   early-talking: "), "{text}");
    assert!(text.contains(" server     cpu ") && text.contains("(mailrace, process "), "{text}");
    let (_, report) = outcome(server.smtp, &["-z", "2s", "--warmup", "0s", "-c", "4"]);
    let samples = report["server"]["samples"].as_array().unwrap();
    assert!(samples.len() >= 2, "{samples:?}");
    assert!(report["server"]["cpu_mean"].as_f64().unwrap() > 0.01, "{}", report["server"]);
    assert!(count(&report, "/server/resident_bytes_max") > 1 << 20);
    // The heat map holds each acknowledged message once.
    let rows = report["heat"]["counts"].as_array().unwrap();
    let cells = rows.iter().flat_map(|row| row.as_array().unwrap());
    let sum: u64 = cells.map(|cell| cell.as_u64().unwrap()).sum();
    assert_eq!(sum, count(&report, "/totals/acked"));
}

/// What was not measured is not shown as nothing.
#[test]
fn a_run_too_short_for_a_sample_says_nothing_of_the_server() {
    let taking = |line: &str| match line.get(..4) {
        Some("DATA") => "354 go\r\n",
        Some("QUIT") => "221 bye\r\n",
        Some("MAIL" | "RCPT" | "EHLO") => "250 ok\r\n",
        _ if line == "." => "250 ok\r\n",
        _ => "",
    };
    let address = answerer(taking);
    let run = ["-n", "1", "-c", "1", "--size", "1k"];
    let (output, report) = outcome(address, &run);
    assert!(is_made(&output), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(count(&report, "/totals/acked"), 1);
    assert!(report["server"].is_null(), "{}", report["server"]);
    let text = bench(&[&[&format!("smtp://{address}")[..]], &run[..]].concat());
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(text.contains(" messages   1 acked ") && !text.contains(" server "), "{text}");
}
