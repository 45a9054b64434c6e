//! The documents against the tree: each rule that a comment cites exists, and so does each test, type,
//! path and planted bug that a document names.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

/// Documents whose rules name the tests that prove them.
const RULES: [&str; 4] =
    ["docs/DURABILITY.md", "docs/PROTOCOL.md", "docs/BAD-INPUTS.md", "SECURITY.md"];

/// Documents whose backticked names of code are looked up.
const NAMING: [&str; 6] = [
    "src/ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/DURABILITY.md",
    "docs/PROTOCOL.md",
    "docs/BAD-INPUTS.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Files of these directories with one of these extensions: name from the root, and text.
fn texts(dirs: &[&str], extensions: &[&str]) -> Vec<(String, String)> {
    fn collect(path: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(path).into_iter().flatten() {
            let path = entry.unwrap().path();
            // Foreign servers and builds lie under target.
            if path.is_dir() && !path.ends_with("target") {
                collect(&path, found);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    dirs.iter().for_each(|dir| collect(&root().join(dir), &mut found));
    let wanted = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extensions.iter().any(|known| extension == *known))
    };
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    };
    found.into_iter().filter(wanted).map(named).collect()
}

const CODE: [&str; 7] = ["src", "tests", "benches", "loadtest", "fuzz", "config", "deploy"];

/// Every document.
fn documents() -> Vec<(String, String)> {
    let mut found = texts(&["docs", "src", "tests"], &["md"]);
    for name in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"] {
        found.push((name.to_owned(), read(name)));
    }
    found
}

/// The first group of each match.
fn all(pattern: &str, text: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).unwrap();
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// What is in backticks, code blocks aside.
fn backticked(text: &str) -> BTreeSet<String> {
    let mut code = false;
    let prose = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        code ^= fence;
        !code && !fence
    });
    let prose: Vec<_> = prose.collect();
    all("`([^`]+)`", &prose.join("\n"))
}

#[test]
fn rules_that_are_cited_exist() {
    let durability = all(r"(?m)^(?:### |\| )([DTI]\d+)\b", &read("docs/DURABILITY.md"));
    let inputs = all(r"(?m)^\| ([A-J]\d+[a-z]?) \|", &read("docs/BAD-INPUTS.md"));
    let sections = all(r"(?m)^(?:#+ )?(\d+(?:\.\d+)?)\.? ", &read("docs/PROTOCOL.md"));
    assert!(durability.len() > 40 && inputs.len() > 150 && sections.len() > 15);

    let row = r"[A-J]\d{1,2}[a-z]?";
    let of_inputs = Regex::new(&format!(r"BAD-INPUTS {row}(?:(?:, | and | to ){row})*")).unwrap();
    let one = Regex::new(row).unwrap();
    let alone = Regex::new(&format!(r"(?:^|[\s(/])({row}|T\d{{1,2}})(?:$|[\s).,:;])")).unwrap();
    let section = Regex::new(r"PROTOCOL §(\d+(?:\.\d+)?)").unwrap();
    let elsewhere = Regex::new(r"\b(?:UX|TECH|STYLE|DURABILITY) ?§|\b(?:UX|TECH)\b").unwrap();
    let (mut wrong, mut cited) = (Vec::new(), 0);
    let mut files = texts(&CODE, &["rs", "toml", "sh", "py"]);
    files.extend(documents());
    for (file, text) in files {
        let markdown = file.ends_with(".md");
        let own = file.starts_with("docs/") && RULES.contains(&&*file);
        if own || file == "docs/README.md" {
            continue;
        }
        let mark = if file.ends_with(".rs") { "//" } else { "#" };
        for (number, line) in text.lines().enumerate() {
            let comment = match line.split_once(mark) {
                _ if markdown => line,
                Some((_, comment)) => comment,
                None => continue,
            };
            let mut check = |id: &str, known: &BTreeSet<String>| {
                cited += 1;
                if !known.contains(id) {
                    wrong.push(format!("{file}:{}: {id}", number + 1));
                }
            };
            for found in of_inputs.find_iter(comment) {
                one.find_iter(found.as_str()).for_each(|id| check(id.as_str(), &inputs));
            }
            let rest = of_inputs.replace_all(comment, "");
            // A character between two ids belongs to both matches.
            for word in rest.split([' ', ',']) {
                for found in alone.captures_iter(word) {
                    let durable = found[1].starts_with(['D', 'T', 'I']);
                    check(&found[1], if durable { &durability } else { &inputs });
                }
            }
            section.captures_iter(&rest).for_each(|found| check(&found[1], &sections));
            if !markdown && elsewhere.is_match(&rest) {
                wrong.push(format!("{file}:{}: cites what is not in docs", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "cited, and not in docs:\n{}", wrong.join("\n"));
    assert!(cited > 200, "{cited} citations");
}

#[test]
fn tests_that_prove_rules_exist() {
    let code: String = texts(&CODE, &["rs"]).into_iter().map(|(_, text)| text).collect();
    let functions = all(r"\bfn ([a-z0-9_]+)", &code);
    let name = Regex::new(r"^[a-z][a-z0-9]*(?:_[a-z0-9]+)+$").unwrap();
    let mut wrong = Vec::new();
    for document in RULES {
        let mut named = 0;
        for paragraph in read(document).split("\n\n") {
            // A paragraph that begins so, or the last cell of a row.
            let proofs: Vec<&str> = match paragraph.strip_prefix("Proof:") {
                Some(proof) => vec![proof],
                None => paragraph
                    .lines()
                    .filter_map(|line| line.strip_suffix(" |")?.rsplit_once(" | "))
                    .map(|(_, cell)| cell)
                    .collect(),
            };
            for test in proofs.into_iter().flat_map(backticked) {
                if name.is_match(&test) {
                    named += 1;
                    if !functions.contains(&test) {
                        wrong.push(format!("{document}: {test}"));
                    }
                }
            }
        }
        assert!(named > 10, "{document}: {named} tests");
    }
    assert!(wrong.is_empty(), "there are no such tests:\n{}", wrong.join("\n"));
}

/// Each rule of the contract, each section of the protocol and each row of the bad inputs names a test.
#[test]
fn each_rule_has_a_proof() {
    let mut bare = Vec::new();
    for (document, heading) in [("docs/DURABILITY.md", "\n### D"), ("docs/PROTOCOL.md", "\n## ")] {
        for rule in read(document).split(heading).skip(1) {
            let rule = rule.split("\n## ").next().unwrap();
            let table = rule.contains("| proof |");
            if !table && !rule.contains("\nProof: `") {
                bare.push(format!("{document}: {}", rule.lines().next().unwrap()));
            }
        }
    }
    let row = Regex::new(r"^\| [A-J]\d+[a-z]? \|.* \| `[a-z]+\w+`[^|]*\|$").unwrap();
    for line in read("docs/BAD-INPUTS.md").lines() {
        if line.starts_with("| ") && !line.starts_with("| id |") && !row.is_match(line) {
            bare.push(line.to_owned());
        }
    }
    assert!(bare.is_empty(), "no proof:\n{}", bare.join("\n"));
}

#[test]
fn names_of_code_exist() {
    let files = texts(&["src", "loadtest", "tests", "benches"], &["rs"]);
    let code: String = files.iter().map(|(_, text)| text.as_str()).collect();
    let words = all(r"\b([A-Za-z_][A-Za-z0-9_]*)\b", &code);
    let typ = Regex::new(r"^[A-Z][a-z]+[A-Za-z]*$").unwrap();
    let path = Regex::new(r"^([A-Za-z_]+)((?:::[A-Za-z_]+)+)$").unwrap();
    let file = Regex::new(r"^(?:src|tests|docs|config|benches|loadtest|fuzz|deploy)/[\w./-]*$");
    let file = file.unwrap();
    let foreign = ["mailrace", "std", "rustls", "tokio", "glommio"];
    let mut wrong = Vec::new();
    let mut named = 0;
    for document in NAMING {
        for name in backticked(&read(document)) {
            let exists = if typ.is_match(&name) {
                words.contains(&name)
            } else if file.is_match(&name) {
                root().join(&name).exists()
            } else if let Some(parts) = path.captures(&name) {
                let (first, rest) = (&parts[1], parts[2].split("::").skip(1));
                // `log::Appender` is a word in the files of `log`; `Facts::tls` is anywhere.
                let room = first.starts_with(char::is_lowercase);
                let (dir, module) = (format!("/{first}/"), format!("/{first}.rs"));
                let of_room = |name: &str| {
                    let name = format!("/{name}");
                    name.contains(&dir) || name.ends_with(&module)
                };
                let there: Vec<_> =
                    files.iter().filter(|(name, _)| !room || of_room(name)).collect();
                let said = |part: &str| {
                    let word = Regex::new(&format!(r"\b{part}\b")).unwrap();
                    there.iter().any(|(name, text)| word.is_match(name) || word.is_match(text))
                };
                foreign.contains(&first)
                    || (room || words.contains(first)) && rest.into_iter().all(said)
            } else {
                continue;
            };
            named += 1;
            if !exists {
                wrong.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(named > 50, "{named} names");
    assert!(wrong.is_empty(), "there is no such thing:\n{}", wrong.join("\n"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut count = 0;
    for (file, text) in documents() {
        let dir = root().join(&file);
        for link in all(r"\]\(([^)]+)\)", &text) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            if path.contains("://") {
                continue;
            }
            let there = path.is_empty() || dir.parent().unwrap().join(path).exists();
            let heading = |line: &str| {
                let title = line.trim_start_matches('#').trim().to_lowercase();
                line.starts_with('#') && title.replace(' ', "-") == anchor
            };
            let other = dir.parent().unwrap().join(path);
            let linked = match path.is_empty() || anchor.is_empty() {
                true => text.clone(),
                false => fs::read_to_string(other).unwrap_or_default(),
            };
            let said = anchor.is_empty() || linked.lines().any(heading);
            assert!(there && said, "{file}: {link}");
            count += 1;
        }
    }
    assert!(count > 20, "{count} links");
}
