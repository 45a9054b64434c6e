//! `mailrace top` on a terminal of 80 columns and 24 rows, and where there is none.

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use crate::support::{Server, eventually, machine::has, send, succeeded};

const WAIT: Duration = Duration::from_secs(20);

/// A terminal of its own; dropped, it ends with all that runs in it.
struct Tmux(String);

impl Tmux {
    fn start(command: &str) -> Self {
        // Tests of one process run at the same time.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let socket = format!("mailrace-top-{}-{count}", std::process::id());
        let tmux = Self(socket);
        let mut started = tmux.tmux(&["new-session", "-d", "-x", "80", "-y", "24", command]);
        succeeded("tmux", started.output().unwrap());
        tmux
    }

    fn tmux(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.0, "-f", "/dev/null"]).args(arguments);
        command.env("TERM", "xterm-256color");
        command
    }

    fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn shows(&self, wanted: &str) {
        eventually(wanted, WAIT, || self.screen().contains(wanted));
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]).output();
    }
}

fn top(server: &Server) -> String {
    let program = env!("CARGO_BIN_EXE_mailrace");
    format!("{program} top --admin {}", server.admin)
}

#[test]
fn top_shows_the_server_until_q() {
    if !has("tmux") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["server.shards=1"]);
    let terminal = Tmux::start(&format!("{}; echo ended with $?; sleep 60", top(&server)));
    terminal.shows("messages/s");
    terminal.shows("serving");
    send(&server, 50, 1_000);
    terminal.shows("ago");
    assert_eq!(server.stop(), Some(0));
    terminal.shows("no connection, retrying");
    succeeded("tmux", terminal.tmux(&["send-keys", "q"]).output().unwrap());
    terminal.shows("ended with 0");
    // The terminal is as it was.
    assert!(!terminal.screen().contains("messages/s"), "{}", terminal.screen());
}

/// New mail shows up on the screen by itself.
#[test]
fn top_by_is_drawn_again_until_q() {
    if !has("tmux") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["server.shards=1"]);
    send(&server, 3, 1_000);
    let command = format!("{} --by client; echo ended with $?; sleep 60", top(&server));
    let terminal = Tmux::start(&command);
    terminal.shows("127.0.0.1      3  100.0 %");
    send(&server, 4, 1_000);
    terminal.shows("127.0.0.1      7  100.0 %");
    assert_eq!(server.stop(), Some(0));
    terminal.shows("NO ANSWER, retrying");
    succeeded("tmux", terminal.tmux(&["send-keys", "q"]).output().unwrap());
    terminal.shows("ended with 0");
}

#[test]
fn top_prints_one_screen_into_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["server.shards=2"]);
    let output = Command::new("sh").args(["-c", &top(&server)]).output().unwrap();
    let text = String::from_utf8(succeeded("mailrace top", output).stdout).unwrap();
    assert!(text.starts_with("mailrace ") && text.contains("   ready   "), "{text}");
    assert_eq!(text.matches("serving").count(), 2, "{text}");
    assert!(!text.contains('\u{1b}'), "no control sequences: {text:?}");
    let command = top(&server);
    assert_eq!(server.stop(), Some(0));
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("no answer from http://") && told.lines().count() == 1, "{told}");
}
