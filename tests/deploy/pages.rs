//! The operator's and the consumer's page: their commands run against a real server, each reply is
//! explained, the figures they calculate with are the README's, and the keys they name exist.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

use regex::Regex;

use crate::{
    support::{self, Launch, MAILRACE, Server, machine::has, succeeded},
    tree,
};

const OPERATIONS: &str = "docs/OPERATIONS.md";
const CONSUMERS: &str = "docs/CONSUMERS.md";

/// The code blocks of a page with their language.
fn blocks(page: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(tree(page)).unwrap();
    let mut found: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(language) if !open => found.push((language.to_owned(), String::new())),
            Some(_) => {}
            None if open => {
                let (_, block) = found.last_mut().expect("it is open");
                *block += line;
                block.push('\n');
            }
            None => {}
        }
        open ^= line.starts_with("```");
    }
    found
}

/// A machine as the pages have it, in a directory: `/etc/mailrace`, `/var/lib/mailrace`, `/srv`.
struct Place {
    dir: tempfile::TempDir,
    server: Option<Server>,
    /// What is written in a page, and what it is here.
    here: Vec<(&'static str, String)>,
}

impl Place {
    /// With a server, an exporter `events` and some mail. One shard: the kernel spreads connections as it
    /// likes, and the pages commit an offset of shard 0.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["etc/mailrace", "var/lib", "srv/backup", "bin"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        symlink(MAILRACE, dir.path().join("bin/mailrace")).unwrap();
        symlink(tree("config"), dir.path().join("config")).unwrap();
        let file = dir.path().join("etc/mailrace/mailrace.toml");
        // Found without -c, too.
        symlink(&file, dir.path().join("mailrace.toml")).unwrap();
        let data = dir.path().join("var/lib/mailrace");
        let exporter = "[[export]]\nname = \"events\"\ntype = \"blackhole\"\n";
        fs::write(&file, exporter).unwrap();
        let server = Launch::new(&data).file(&file).set("server.shards=1").start();
        // What the kernel picked, for the commands.
        let config = format!(
            "server.admin.listen = \"{}\"\nlog.dir = \"{}\"\nserver.shards = 1\n[[listener]]\n\
             name = \"smtp\"\nlisten = [\"{}\"]\n{exporter}",
            server.admin,
            data.display(),
            server.smtp
        );
        fs::write(&file, config).unwrap();
        support::send(&server, 40, 3_000);
        let path = |name: &str| dir.path().join(name).display().to_string();
        let here = vec![
            ("/etc/mailrace", path("etc/mailrace")),
            ("/var/lib/mailrace", path("var/lib/mailrace")),
            ("/srv/", path("srv/") + "/"),
            ("127.0.0.1:2580", server.admin.to_string()),
            ("127.0.0.1:2525", server.smtp.to_string()),
        ];
        Self { dir, server: Some(server), here }
    }

    fn run(&self, program: &str, options: &[&str], block: &str) -> Output {
        let mut text = block.to_owned();
        for (there, here) in &self.here {
            text = text.replace(there, here);
        }
        let mut command = Command::new(program);
        command.args(options).arg(text).current_dir(self.dir.path());
        support::without_settings(&mut command);
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = self.dir.path().join("bin");
        command.env("PATH", format!("{}:{path}", bin.display()));
        support::output_of(command)
    }

    /// Runs the blocks of a page in their order; what each said.
    fn follow(&mut self, page: &str) -> Vec<String> {
        let mut said = Vec::new();
        for (language, block) in blocks(page) {
            let output = match &*language {
                "sh" => self.run("sh", &["-euc"], &block),
                "python" => self.run("python3", &["-c"], &block),
                "console" if block == "systemctl stop mailrace\n" => {
                    let stopped = self.server.take().expect("it runs").stop();
                    assert_eq!(stopped, Some(0));
                    continue;
                }
                "console" | "sql" => continue,
                "toml" => {
                    let file = self.dir.path().join("block.toml");
                    fs::write(&file, &block).unwrap();
                    let mut check = Command::new(MAILRACE);
                    check.args(["check", "-c"]).arg(&file);
                    support::without_settings(&mut check);
                    succeeded(&format!("{page}:\n{block}"), check.output().unwrap());
                    continue;
                }
                other => panic!("{page}: a block in {other:?}"),
            };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            succeeded(&format!("{page}:\n{block}{text}"), output);
            said.push(text);
        }
        said
    }
}

#[test]
fn the_commands_of_the_operators_page_run() {
    let mut place = Place::new();
    let said = place.follow(OPERATIONS);
    assert_eq!(said.len(), 7, "{said:?}");
    let restored = place.dir.path().join("srv/restored/data");
    assert!(support::verified(&restored) >= 40, "{said:?}");
    assert_eq!(fs::read_dir(place.dir.path().join("srv/backup/node")).unwrap().count(), 3);
    let eml = fs::read_dir(place.dir.path().join("srv/backup/mail")).unwrap();
    let is_mail = |name: &Path| name.extension().is_some_and(|extension| extension == "eml");
    let count = eml.filter(|entry| is_mail(&entry.as_ref().unwrap().path())).count();
    assert!(count >= 40, "{count} messages saved");
    // The copy is a node: it serves on, under the same id, and nothing waits for its exporter.
    let copy = place.dir.path().join("srv/mailrace");
    let node = |dir: &Path| fs::read(dir.join("node")).unwrap();
    assert_eq!(node(&copy), node(&place.dir.path().join("var/lib/mailrace")));
    let moved = Launch::new(&copy).set("server.shards=1").start();
    let ids = support::send(&moved, 1, 500);
    assert!(!moved.get(&ids[0]).is_empty());
    assert!(support::verified(&copy) > count as u64);
}

#[test]
fn the_commands_of_the_consumers_page_run() {
    if !has("curl") || !has("python3") {
        return;
    }
    let mut place = Place::new();
    let said = place.follow(CONSUMERS);
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said[0].contains("\"committed\":{\"0\":2}"), "{}", said[0]);
    assert_eq!(said[1].lines().count(), 5, "{}", said[1]);
    assert_eq!(said[2], "new: 40\n");
    // From the start, as after a crash before the commit: everything comes again, nothing is new.
    let (_, recipe) = blocks(CONSUMERS).into_iter().find(|(of, _)| of == "python").unwrap();
    let again = recipe.replace("group=sql", "group=again");
    let output = succeeded("again", place.run("python3", &["-c"], &again));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "new: 0\n");
    let mut group = Command::new(MAILRACE);
    group.args(["group", "describe", "sql", "--json", "--dir"]);
    let server = place.server.as_ref().unwrap();
    let output = succeeded("group", group.arg(&server.dir).output().unwrap());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("\"lag\":0").count(), 1, "{text}");
}

/// Every reply of `src/smtp`: the constants, and the 421 that end a session.
#[test]
fn each_reply_is_in_the_operators_page() {
    let page = fs::read_to_string(tree(OPERATIONS)).unwrap();
    let mut rows: BTreeMap<&str, String> = BTreeMap::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        if let Some((code, rest)) = line.split_once("` | ")
            && code.starts_with(|digit: char| digit.is_ascii_digit())
        {
            let text = rest.split(" | ").next().unwrap().replace('`', "");
            rows.entry(code).or_default().push_str(&format!("{text}; "));
        }
    }
    let source = fs::read_to_string(tree("src/smtp/reply.rs")).unwrap();
    let fixed = Regex::new(r#"Reply::new\(\s*"(\d{3}(?: \d\.\d+\.\d+)?) (.*?)\\r\\n""#).unwrap();
    let mut replies: Vec<(String, String)> = Vec::new();
    for found in fixed.captures_iter(&source) {
        replies.push((found[1].to_owned(), found[2].to_owned()));
    }
    assert_eq!(replies.len(), source.matches("Reply::new(").count(), "each is read");
    let ending = Regex::new(r#"421\([^"()]*"(\d\.\d\.\d)", "([^"]+)"\)"#).unwrap();
    let constants = replies.len();
    for name in ["mod", "mail", "content", "auth", "drain", "other"] {
        let text = fs::read_to_string(tree(&format!("src/smtp/session/{name}.rs"))).unwrap();
        for found in ending.captures_iter(&text) {
            replies.push((format!("421 {}", &found[1]), found[2].to_owned()));
        }
    }
    assert!(replies.len() >= constants + 15, "{} that end a session", replies.len() - constants);
    let missing: Vec<_> = replies
        .iter()
        // HELP lists commands.
        .filter(|(code, _)| code != "214 2.0.0")
        .filter(|(code, text)| !rows.get(&**code).is_some_and(|row| row.contains(text.as_str())))
        .collect();
    assert!(missing.is_empty(), "not in {OPERATIONS}: {missing:#?}");
    let codes: Vec<_> = replies.iter().map(|(code, _)| &**code).collect();
    // Those that are rendered: of DNS lists, of verdicts.
    let decision = fs::read_to_string(tree("src/verdict/decision.rs")).unwrap();
    let rejected = Regex::new(r#"enhanced: .*"(5\.7\.\d+)""#).unwrap();
    let mut rendered = vec!["554 5.7.1".to_owned(), "451 4.7.0".to_owned()];
    rendered.extend(rejected.captures_iter(&decision).map(|found| format!("550 {}", &found[1])));
    let unlisted: Vec<_> = rendered.iter().filter(|code| !rows.contains_key(&***code)).collect();
    assert!(unlisted.is_empty() && rendered.len() >= 5, "not in {OPERATIONS}: {unlisted:?}");
    let is_rendered = |row: &str| rendered.iter().any(|code| code == row);
    let unknown: Vec<_> =
        rows.keys().filter(|row| !codes.contains(row) && !is_rendered(row)).collect();
    assert!(unknown.is_empty(), "replies that do not exist: {unknown:?}");
}

#[test]
fn sizing_calculates_with_the_figures_of_the_readme() {
    let readme = fs::read_to_string(tree("README.md")).unwrap();
    let page = fs::read_to_string(tree(OPERATIONS)).unwrap();
    let cost =
        Regex::new(r"^\| .* \| ([0-9.]+) us \| ([0-9,]+) \| ([0-9.]+) \| ([0-9]+) \|$").unwrap();
    let number = |text: &str| text.replace(',', "").parse::<f64>().unwrap();
    let handshake = 219.0;
    let mut rows = 0;
    for row in page.lines().filter_map(|line| cost.captures(line)) {
        let micros = number(&row[1]);
        let own = readme.contains(&format!("({} us)", &row[1]));
        let with_handshake = readme.contains(&format!("({:.1} us)", micros + 0.3 - handshake));
        assert!(own || with_handshake, "{}", &row[0]);
        let near = |shown: f64, sum: f64| (shown - sum).abs() <= sum * 0.02 + 0.5;
        assert!(near(number(&row[2]), 1e6 / micros), "{}", &row[0]);
        assert!(near(number(&row[3]), micros), "{}", &row[0]);
        assert!((number(&row[4]) - 2.0 * micros).abs() <= 1.0, "{}", &row[0]);
        rows += 1;
    }
    assert_eq!(rows, 5);
    for figure in ["219 us", "1.5 us of CPU", "870 bytes", "4,428"] {
        assert!(readme.contains(figure) && page.contains(figure), "{figure}");
    }
}

/// What a record takes on disk beyond its message, where many are synced at once.
#[test]
fn sizing_knows_what_a_record_takes() {
    let page = fs::read_to_string(tree(OPERATIONS)).unwrap();
    let known = Regex::new(r"the message and about ([0-9]+) bytes").unwrap();
    let stated: f64 = known.captures(&page).expect("a figure")[1].parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut bench = Command::new(MAILRACE);
    bench.args(["bench", &format!("smtp://{}", server.smtp), "--no-tui"]);
    bench.args(["-n", "3000", "--warmup", "0s", "--size", "4k", "-c", "50"]);
    succeeded("bench", bench.output().unwrap());
    let stats = support::log_command(dir.path(), &["stats", "--json"]);
    let stats = String::from_utf8(stats).unwrap();
    let field = |name: &str| {
        let field = Regex::new(&format!("\"{name}\":([0-9]+)")).unwrap();
        field.captures(&stats).unwrap_or_else(|| panic!("{name}: {stats}"))[1]
            .parse::<f64>()
            .unwrap()
    };
    let more = field("bytes") / field("records") - 4096.0;
    assert!(more > 100.0 && more <= stated * 2.0, "{more} bytes more, not {stated}");
}

#[test]
fn keys_that_the_pages_name_exist() {
    let mut check = Command::new(MAILRACE);
    check.args(["check", "--effective", "--json"]).current_dir(std::env::temp_dir());
    support::without_settings(&mut check);
    let output = succeeded("check", check.output().unwrap());
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let settings = answer["settings"].as_array().unwrap();
    let known: Vec<_> = settings.iter().map(|one| one["key"].as_str().unwrap()).collect();
    let key = Regex::new(r"`((?:server|log|limits)\.[a-z_.]*[a-z_])").unwrap();
    let mut named = 0;
    for page in [OPERATIONS, CONSUMERS] {
        let text = fs::read_to_string(tree(page)).unwrap();
        for found in key.captures_iter(&text) {
            let table = format!("{}.", &found[1]);
            let exists = known.iter().any(|key| *key == &found[1] || key.starts_with(&table));
            assert!(exists, "{page}: {}", &found[1]);
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}
