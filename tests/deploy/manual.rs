//! Shell completions and manual pages, under the shells and formatters that read them.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::support::{MAILRACE, machine::has, succeeded};

fn mailrace(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(MAILRACE).args(arguments).output().unwrap();
    succeeded(&arguments.join(" "), output).stdout
}

/// A shell accepts its script, and offers what the script knows.
fn completed(shell: &str, ask: &str) -> Option<String> {
    if !has(shell) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    fs::write(&script, mailrace(&["completions", shell])).unwrap();
    let run = |arguments: &[&str]| -> Output {
        let mut command = Command::new(shell);
        command.args(arguments).env("HOME", dir.path()).env("SCRIPT", &script);
        command.output().unwrap()
    };
    let checked = succeeded(shell, run(&["-n", script.to_str().unwrap()]));
    assert_eq!(String::from_utf8_lossy(&checked.stderr), "", "{shell}");
    let answer = succeeded(shell, run(&["-c", ask]));
    assert_eq!(String::from_utf8_lossy(&answer.stderr), "", "{shell}");
    Some(String::from_utf8(answer.stdout).unwrap())
}

#[test]
fn bash_completes() {
    let ask = "source \"$SCRIPT\"; COMP_WORDS=(mailrace drain --un) COMP_CWORD=2
        _mailrace mailrace --un drain; echo \"${COMPREPLY[@]}\"";
    assert_eq!(completed("bash", ask).as_deref(), Some("--until-exported\n"));
}

#[test]
fn fish_completes() {
    let ask = "source $SCRIPT; complete -C 'mailrace drain --un'";
    let Some(answer) = completed("fish", ask) else { return };
    assert!(answer.starts_with("--until-exported\t"), "{answer}");
}

#[test]
fn zsh_loads_its_script() {
    let ask = "autoload -Uz compinit; compinit -u -D; source $SCRIPT; print $_comps[mailrace]";
    let Some(answer) = completed("zsh", ask) else { return };
    assert_eq!(answer, "_mailrace\n");
}

/// As man(1) formats them.
fn formatted(page: &Path) -> String {
    let mut groff = Command::new("groff");
    groff.args(["-man", "-Tutf8", "-P-cbou", "-ww", "-rLL=100n"]).arg(page);
    let output = succeeded("groff", groff.output().unwrap());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{}", page.display());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn manual_pages_have_no_warnings() {
    if !has("groff") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("new/man1");
    mailrace(&["man", pages.to_str().unwrap()]);
    let mut names = Vec::new();
    for entry in fs::read_dir(&pages).unwrap() {
        let path = entry.unwrap().path();
        assert!(fs::read(&path).unwrap().is_ascii(), "{}", path.display());
        let text = formatted(&path);
        assert!(text.contains("SYNOPSIS"), "{text}");
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    for name in ["mailrace.1", "mailrace-serve.1", "mailrace-log-cat.1", "mailrace-group-dead-ls.1"]
    {
        assert!(names.iter().any(|found| found == name), "{name} is missing in {names:?}");
    }
    // Each subcommand that a page names has a page.
    let root = pages.join("mailrace.1");
    let text = formatted(&root);
    let named = text.lines().filter_map(|line| line.trim().strip_suffix("(1)"));
    let named: Vec<_> = named.filter(|name| name.starts_with("mailrace-")).collect();
    assert!(named.contains(&"mailrace-drain"), "{text}");
    for name in named {
        assert!(names.contains(&format!("{name}.1")), "{name}");
    }
    assert_eq!(fs::read(&root).unwrap(), mailrace(&["man"]));
    let serve = formatted(&pages.join("mailrace-serve.1"));
    // Laid out as in the help.
    assert!(serve.contains("HUP             Reload the configuration\n"), "{serve}");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let output = Command::new(MAILRACE).arg("man").arg(file.join("x")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with(&format!("mailrace: {}", file.display())), "{said}");
}
