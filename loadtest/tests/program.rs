//! The program `mailrace-loadtest`, without the server: its arguments, and a run against a sink.

#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output},
    thread,
    time::Duration,
};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mailrace-loadtest")).args(arguments).output().unwrap()
}

#[test]
fn it_names_itself_and_refuses_nonsense() {
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert_eq!(version, format!("mailrace-loadtest {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert_eq!(run(&["--no-such-flag"]).status.code(), Some(2));
    // Unlike `mailrace bench` it knows no configuration that would name the directory.
    for flag in ["--verify", "--e2e"] {
        let output = run(&["smtp://127.0.0.1:1", "-n", "1", flag]);
        assert_eq!(output.status.code(), Some(2));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("need --log-dir DIR"), "{stderr}");
    }
}

/// Takes every message of a connection.
fn serve(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (mut input, mut output) = (BufReader::new(stream), stream);
    let mut line = String::new();
    let mut in_data = false;
    output.write_all(b"220 sink.test\r\n")?;
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let reply: &[u8] = match (in_data, line.as_str()) {
            (true, ".\r\n") => b"250 Ok\r\n",
            (true, _) => continue,
            (false, "DATA\r\n") => b"354 Go\r\n",
            (false, "QUIT\r\n") => b"221 Bye\r\n",
            (false, _) => b"250 Ok\r\n",
        };
        in_data = reply.starts_with(b"354");
        output.write_all(reply)?;
    }
}

#[test]
fn it_loads_a_sink() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("smtp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(&stream));
        }
    });
    let output = run(&[&target, "-n", "20", "-c", "2", "--format", "json"]);
    // 4: this machine was too busy for figures.
    assert!(matches!(output.status.code(), Some(0 | 4)), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["totals"]["acked"], 20, "{report}");
}
