//! `mailrace config init` and `mailrace config default`: configurations to start from.
//!
//! In both, `#` directly before a key or a table turns it off, and `# ` begins a comment: the file
//! is still valid when that one `#` is removed.

use std::borrow::Cow;
use std::fmt::Write;

use super::export_keys::TYPES;
use super::keys::{Key, Table};
use super::value::Kind;

/// The annotated starter file, shipped as `config/mailrace.toml`.
pub const STARTER: &str = include_str!("../../config/mailrace.toml");

const HEAD: &str = "\
# Every key of Mailrace with its default; omitting a line means the same.
# Each key is also a variable (MAILRACE_LOG__DIR for log.dir, MAILRACE_EXPORT__0__TOPIC) and a flag
# (--set log.dir=...): flags override variables, and variables override the file.
# A table or key that is commented out is off; if it has no default, its value is an example.
";

/// Every key with its default and what it does, as TOML. Exporters are turned off, because a
/// default cannot know where the mail goes.
pub fn every_default() -> String {
    let mut text = HEAD.to_owned();
    let mut section = "";
    for key in Table::Root.keys() {
        let (name, field) = key.name.split_once('.').unwrap_or(("", key.name));
        if name != section {
            let _ = write!(text, "\n[{name}]\n");
            section = name;
        }
        entry(&mut text, key, field, "");
    }
    text.push_str("\n[[listener]]\n");
    for key in Table::Listener(0).keys() {
        entry(&mut text, key, key.name, "");
    }
    for kind in TYPES {
        text.push_str("\n#[[export]]\n");
        for key in Table::Export(0).keys().iter().filter(|key| key.is_of(kind)) {
            match key.name {
                "name" => {
                    let _ = writeln!(text, "# {}", key.doc);
                    let _ = writeln!(text, "#name = \"{kind}\"");
                }
                "type" => {
                    let _ = writeln!(text, "#type = \"{kind}\"");
                }
                name => entry(&mut text, key, name, "#"),
            }
        }
    }
    text
}

fn entry(text: &mut String, key: &Key, name: &str, off: &str) {
    let value = key.kind.read(&key.example.map_or_else(|| key.default(), Cow::Borrowed));
    let _ = match key.kind {
        Kind::Choice(words) if words.iter().any(|word| !key.doc.contains(word)) => {
            writeln!(text, "# {} One of {words:?}.", key.doc)
        }
        _ => writeln!(text, "# {}", key.doc),
    };
    let _ = writeln!(text, "{off}{name} = {value}");
}
