//! What users read is plain English: help, errors, log messages, replies, the configuration, metrics,
//! reports and documents have none of the words that CONTRIBUTING.md lists as dialect.

use std::{collections::BTreeSet, fs, path::Path, process::Command, sync::LazyLock};

use regex::Regex;

use crate::{
    support::{Launch, MAILRACE},
    words::{files, sources},
};

/// A word that no user reads, and what is right instead.
const WORDS: [(&str, &str); 21] = [
    (r"octets?", "bytes"),
    (r"tells?|told", "report, log, return"),
    (r"anew", "again"),
    (r"for ever", "forever"),
    (r"for good", "permanently"),
    (r"whoever|whom", "the client, the caller, the peer"),
    (r"(?:those|asks for|who) (?:who )?(?:asks|talks)", "a client that asks"),
    (r"behind", "after"),
    (r"beside", "besides, next to"),
    (r"so (?:many|much|long)", "that many, that much, that long"),
    (r"(?:take|takes|taken|taking|took) up", "reload"),
    (r"(?:give|gives|given|giving|gave) up", "disable, stop retrying"),
    (r"(?:go|goes|going|went) by", "use, be deleted by"),
    (r"borne", "tolerated"),
    (r"lies? in|lay in", "is in"),
    (r"makes? no sense", "is not valid"),
    (r"pass(?:ed|es)? over", "skip"),
    (r"stands? (?:here|there|in)", "is in, occurs"),
    (r"under way", "running, in progress"),
    (r"broken off", "interrupted"),
    (r"at hand", "available"),
];

/// Not a word but a turn of phrase: `"a b" is no name`. "There is no", "is no longer" and "is no
/// more than" are right.
const IS_NO: &str = r"(?i)(\w+|[}\x22'`])\s(?:is|are) no\s(\w+)";

/// Where a word is right: file, what the text holds, and why.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("README.md", "behind a load balancer", "as in any text on networks"),
    ("docs/proxy.md", "Behind a load balancer", "as in any text on networks"),
    ("docs/RUNBOOK.md", "Behind a load balancer", "as in any text on networks"),
    ("docs/BAD-INPUTS.md", "octet", "a protocol counts octets"),
    ("docs/PROTOCOL.md", "octet", "a protocol counts octets"),
    ("docs/DURABILITY.md", "octet", "a disk format counts octets"),
    ("CONTRIBUTING.md", "octet", "for those who work on the code"),
    ("log/record.rs", "RecordView({} octets", "an implementation of Debug"),
    ("shard/core/buffer.rs", "ReceiveBuffer({} octets", "an implementation of Debug"),
];

/// One thing a user may read.
struct Text {
    /// File, or command.
    place: String,
    line: usize,
    text: String,
}

impl Text {
    fn new(place: &str, line: usize, text: impl Into<String>) -> Self {
        Self { place: place.to_owned(), line, text: text.into() }
    }
}

/// The lines of a text.
fn lines<'a>(place: &'a str, text: &'a str) -> impl Iterator<Item = Text> + 'a {
    (1..).zip(text.lines()).map(move |(number, line)| Text::new(place, number, line))
}

/// What a text should not say, with what is right.
fn dialect(text: &str) -> Vec<String> {
    static COMPILED: LazyLock<(Vec<(Regex, &str)>, Regex)> = LazyLock::new(|| {
        let whole = |word| Regex::new(&format!(r"(?i)\b(?:{word})\b")).unwrap();
        let words = WORDS.iter().map(|(word, instead)| (whole(word), *instead));
        (words.collect(), Regex::new(IS_NO).unwrap())
    });
    let (words, is_no) = &*COMPILED;
    let mut found = Vec::new();
    for (word, instead) in words {
        found.extend(word.find(text).map(|word| format!("{:?}: {instead}", word.as_str())));
    }
    for phrase in is_no.captures_iter(text) {
        let there = phrase[1].eq_ignore_ascii_case("there");
        if !there && !["longer", "more", "less"].contains(&&phrase[2]) {
            found.push(format!("{:?}: is not a", &phrase[0]));
        }
    }
    found
}

/// The string literals of a source that are read outside of it, and the fields of its log lines.
/// Texts of assertions are left out: they are for developers.
fn literals(place: &str, source: &str) -> Vec<Text> {
    let token = Regex::new(
        r##"(?s)//[^\n]*|r#".*?"#|"(?:\\.|[^"\\])*"|'(?:\\[^']+|[^'\\])'|'\w+|#\[cfg\(test\)\]\nmod \w+ \{"##,
    )
    .unwrap();
    let continued = Regex::new(r"\\\n\s*").unwrap();
    let placeholder = Regex::new(r"\{[^{}\s]*\}").unwrap();
    let assertion = Regex::new(r"assert\w*!|\b(?:expect|panic!|unreachable!)\(").unwrap();
    let mut found = Vec::new();
    for literal in token.find_iter(source) {
        let text = literal.as_str();
        if text.starts_with("#[cfg(test)]") {
            break;
        }
        if !text.starts_with(['"', 'r']) {
            continue;
        }
        let before = &source[..literal.start()];
        let statement = before.rfind([';', '{', '}']).map_or(before, |end| &before[end..]);
        if assertion.is_match(statement) {
            continue;
        }
        let line = before.matches('\n').count() + 1;
        let text = continued.replace_all(text.trim_matches('"'), "");
        found.push(Text::new(place, line, placeholder.replace_all(&text, "{}").into_owned()));
    }
    let event = Regex::new(r"(?s)tracing::(?:error|warn|info|debug|trace)!\((.*?)\);").unwrap();
    let field = Regex::new(r"^\s*[%?]?([a-z_]+)\s*(?:=|$)").unwrap();
    for event in event.captures_iter(source) {
        let fields = event.get(1).unwrap();
        let line = source[..fields.start()].matches('\n').count() + 1;
        for name in fields.as_str().split(',').filter_map(|part| field.captures(part)) {
            found.push(Text::new(place, line, name[1].replace('_', " ")));
        }
    }
    found
}

/// The help of a program and of each of its commands.
fn helps(program: &str) -> Vec<Text> {
    let command = Regex::new(r"^  ([a-z][a-z-]*)(?:  |$)").unwrap();
    let (mut found, mut open) = (Vec::new(), vec![Vec::<String>::new()]);
    while let Some(words) = open.pop() {
        let output = Command::new(program).args(&words).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && help.contains("Usage:"), "{program} {words:?}");
        let name = Path::new(program).file_name().unwrap().to_str().unwrap();
        found.extend(lines(&format!("{name} {} --help", words.join(" ")), &help));
        let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        for line in commands.take_while(|line| !line.is_empty()) {
            let Some(name) = command.captures(line).map(|found| found[1].to_owned()) else {
                continue;
            };
            if name != "help" {
                open.push(words.iter().cloned().chain([name]).collect());
            }
        }
    }
    found
}

/// All that users read.
fn everything() -> Vec<Text> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let relative = |path: &Path| {
        let path = path.strip_prefix(root).unwrap().display().to_string();
        path.strip_prefix("src/").unwrap_or(&path).to_owned()
    };
    let mut texts = helps(MAILRACE);
    assert!(texts.len() > 500, "{} lines of help", texts.len());
    for words in [["config", "default"], ["config", "schema"], ["config", "init"]] {
        let output = Command::new(MAILRACE).args(words).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().count() > 50, "{words:?}");
        texts.extend(lines(&words.join(" "), &text));
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(dir.path()).set("server.shards=1").start();
    let (status, page) = server.page("/metrics");
    assert_eq!(status, 200);
    let help: Vec<_> = page.lines().filter(|line| line.starts_with("# HELP ")).collect();
    assert!(help.len() > 50, "{} families", help.len());
    texts.extend(lines("/metrics", &help.join("\n")));
    // The simulator speaks to developers, and is in no build but theirs.
    let code = ["src", "loadtest"].iter().flat_map(|dir| sources(&root.join(dir)));
    for path in code.filter(|path| !path.starts_with(root.join("src/sim"))) {
        texts.extend(literals(&relative(&path), &fs::read_to_string(&path).unwrap()));
    }
    for place in ["config", "deploy", "docs", "README.md", "SECURITY.md", "CONTRIBUTING.md"] {
        let is_picture = |path: &Path| path.extension().is_some_and(|name| name == "png");
        for path in files(&root.join(place)).into_iter().filter(|path| !is_picture(path)) {
            texts.extend(lines(&relative(&path), &fs::read_to_string(&path).unwrap()));
        }
    }
    texts
}

#[test]
fn what_users_read_is_plain_english() {
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for Text { place, line, text } in everything() {
        let found = dialect(&text);
        if found.is_empty() {
            continue;
        }
        let allowed =
            |(file, holds, _): &(&str, &str, &str)| *file == place && text.contains(holds);
        match ALLOWED.iter().position(allowed) {
            Some(number) => {
                used.insert(number);
            }
            None => {
                wrong.push(format!("{place}:{line}: {}\n    {}", text.trim(), found.join(", ")))
            }
        }
    }
    assert!(wrong.is_empty(), "{} texts:\n{}", wrong.len(), wrong.join("\n"));
    let idle: Vec<_> = (0..ALLOWED.len()).filter(|number| !used.contains(number)).collect();
    assert!(idle.is_empty(), "allowed and not there: {idle:?}");
}

/// Every word is found, in every kind of text that is read off a source.
#[test]
fn each_word_is_found() {
    for text in [
        "65 octets",
        "as told",
        "anew",
        "for ever",
        "for good",
        "whoever",
        "who asks",
        "behind it",
        "beside it",
        "so many",
        "taken up",
        "gives up",
        "goes by age",
        "is borne",
        "lies in",
        "makes no sense",
        "passed over",
        "stands here",
        "under way",
        "broken off",
        "at hand",
        "\"a b\" is no name",
        "{} is no host",
        "they are no numbers",
    ] {
        assert!(!dialect(text).is_empty(), "{text}");
    }
    for text in ["there is no such user", "is no longer", "retold", "a besides", "take it up"] {
        assert_eq!(dialect(text), Vec::<String>::new());
    }
    let source = r#"
        // told in a comment
        fn f() { Err(format!("{octets} of it, \
            told")); assert!(x, "told in an assertion"); }
        tracing::warn!(shard, told = 3, %whoever, "event");
        '"'; "last";
    "#;
    let found: Vec<_> = literals("x.rs", source).into_iter().map(|text| text.text).collect();
    assert_eq!(found, ["{} of it, told", "event", "last", "shard", "told", "whoever"]);
}
