//! `mailrace user`.

use super::*;

use crate::support::machine::has;

#[test]
fn users_are_added_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    let file = path.display().to_string();
    assert_eq!(user_add(&path, "tim", "one"), "tim added\n");
    assert_eq!(user_add(&path, "tom", "two"), "tom added\n");
    assert_eq!(user_add(&path, "tim", "three"), "tim has a new password\n");
    let ls = |arguments: &[&str]| {
        let output = Command::new(MAILRACE).args(["user", "ls", &file]).args(arguments).output();
        String::from_utf8(succeeded("ls", output.unwrap()).stdout).unwrap()
    };
    assert_eq!(ls(&[]), "tim\ntom\n");
    let json = "{\"name\":\"tim\",\"scram\":true}\n{\"name\":\"tom\",\"scram\":true}\n";
    assert_eq!(ls(&["--json"]), json);
    let output = succeeded("rm", run_with(&["user", "rm", &file, "tim"], ""));
    assert_eq!(output.stdout, b"tim removed\n");
    let output = succeeded("rm", run_with(&["user", "add", &file, "tam", "--json"], "four\n"));
    assert_eq!(output.stdout, b"{\"done\":\"added\",\"name\":\"tam\"}\n");
    let output = succeeded("rm", run_with(&["user", "rm", "--json", &file, "tam"], ""));
    assert_eq!(output.stdout, b"{\"done\":\"removed\",\"name\":\"tam\"}\n");
    assert_eq!(ls(&[]), "tom\n");
    for (arguments, line, told) in [
        (["user", "rm", &file, "tim"], "", "there is no user tim"),
        (["user", "add", &file, "a:b"], "x", "is not a user name"),
        (["user", "add", &file, "tim"], "", "the password is empty"),
        (["user", "add", "/nonexistent/users", "tim"], "x", "No such file"),
    ] {
        let output = run_with(&arguments, line);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(told), "{arguments:?}: {text}");
    }
    assert_eq!(ls(&[]), "tom\n");
    // Usage: there is no argument for a password.
    let output = run_with(&["user", "add", &file, "tim", "secret"], "");
    assert_eq!(output.status.code(), Some(2));
}

/// The SCRAM credential is the one that GNU SASL derives.
#[test]
fn gsasl_derives_the_same() {
    if !has("gsasl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    user_add(&path, USER, PASSWORD);
    let text = std::fs::read_to_string(&path).unwrap();
    let (_, credential) = text.split_once("SCRAM-SHA-256$").unwrap();
    let (work, keys) = credential.trim_end().split_once('$').unwrap();
    let (iterations, salt) = work.split_once(':').unwrap();
    let output = Command::new("gsasl")
        .args(["--mkpasswd", "--mechanism", "SCRAM-SHA-256", "--password", PASSWORD])
        .args(["--iteration-count", iterations, "--salt", salt])
        .output();
    let told = String::from_utf8(succeeded("gsasl", output.unwrap()).stdout).unwrap();
    let wanted = format!("{{SCRAM-SHA-256}}{iterations},{salt},{}", keys.replace(':', ","));
    assert_eq!(told.trim_end(), wanted);
}

/// At a terminal it is asked for twice, and not shown.
#[test]
fn a_terminal_shows_no_password() {
    if !has("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    let script = "import os, pty, sys
def wait_for(fd, what, seen=b''):
    while what not in seen:
        seen += os.read(fd, 1024)
    return seen
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = wait_for(fd, b'Password of tim: ')
os.write(fd, b'tanstaaf\\n')
seen = wait_for(fd, b'Repeat password: ', seen)
os.write(fd, os.environb[b'AGAIN'] + b'\\n')
try:
    while True:
        more = os.read(fd, 1024)
        if not more: break
        seen += more
except OSError:
    pass
assert b'tanstaaf' not in seen, seen
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
    for (again, code) in [("another", 1), ("tanstaaf", 0)] {
        let output = Command::new("python3")
            .args(["-c", script, MAILRACE, "user", "add"])
            .arg(&path)
            .arg("tim")
            .env("AGAIN", again)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert_eq!(path.exists(), code == 0);
    }
}
