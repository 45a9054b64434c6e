use super::super::tests::from_text;
use super::super::{STARTER, every_default};
use super::*;

/// Where a value breaks the schema; knows the words that `schema` uses, and fails at others.
fn violations(schema: &Json, value: &Json, at: &str, found: &mut Vec<String>) {
    for (word, expected) in schema.as_object().unwrap() {
        let fits = match word.as_str() {
            "$schema" | "title" | "description" | "default" => true,
            "type" => match expected.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_i64(),
                "boolean" => value.is_boolean(),
                other => panic!("{other}"),
            },
            "const" => value == expected,
            "enum" => expected.as_array().unwrap().contains(value),
            "minimum" => value.as_i64().is_none_or(|value| value >= expected.as_i64().unwrap()),
            "maximum" => value.as_i64().is_none_or(|value| value <= expected.as_i64().unwrap()),
            "minLength" => value.as_str().is_none_or(|value| !value.is_empty()),
            "minItems" => value.as_array().is_none_or(|items| !items.is_empty()),
            "maxItems" => {
                let most = expected.as_u64().unwrap();
                value.as_array().is_none_or(|items| items.len() as u64 <= most)
            }
            "pattern" => value.as_str().is_none_or(|text| {
                regex::Regex::new(expected.as_str().unwrap()).unwrap().is_match(text)
            }),
            "anyOf" | "oneOf" => {
                let fitting = expected.as_array().unwrap().iter().filter(|choice| {
                    let mut inner = Vec::new();
                    violations(choice, value, at, &mut inner);
                    inner.is_empty()
                });
                let count = fitting.count();
                if word == "oneOf" { count == 1 } else { count > 0 }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    violations(expected, item, &format!("{at}[{index}]"), found);
                }
                true
            }
            "properties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = expected.get(name) {
                        violations(schema, value, &format!("{at}.{name}"), found);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = &schema["properties"];
                let members = value.as_object();
                members.is_none_or(|members| members.keys().all(|name| known.get(name).is_some()))
            }
            "required" => expected
                .as_array()
                .unwrap()
                .iter()
                .all(|name| value.get(name.as_str().unwrap()).is_some()),
            other => panic!("{other} is not known here"),
        };
        if !fits {
            found.push(format!("{at}: {word}"));
        }
    }
}

fn against_schema(text: &str) -> Vec<String> {
    let table: toml::Table = text.parse().unwrap();
    let mut found = Vec::new();
    violations(&schema(), &serde_json::to_value(table).unwrap(), "", &mut found);
    found
}

/// What is off is turned on: see [`super::super::defaults`].
fn turned_on(text: &str) -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c != ' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(on).collect()
}

#[test]
fn both_files_fit_the_schema_and_pass_the_check() {
    for (name, text) in [("init", STARTER.to_owned()), ("default", every_default())] {
        let on = turned_on(&text);
        assert!(on.len() < text.len(), "{name} has something that is off");
        for text in [text, on] {
            assert_eq!(against_schema(&text), [""; 0], "{name}");
            from_text(&text).unwrap_or_else(|errors| panic!("{name}: {errors}"));
        }
    }
}

#[test]
fn both_files_mean_what_no_file_means() {
    let nothing = from_text("").unwrap();
    for text in [STARTER, &every_default()] {
        let changes = nothing.changes(&from_text(text).unwrap());
        // A host name of "" is the system's, which is what the key has without a file.
        let changed: Vec<_> = changes.iter().map(|change| change.key.as_str()).collect();
        assert!(changed.iter().all(|key| *key == "server.hostname"), "{changed:?}");
        assert_eq!(from_text(text).unwrap().server, nothing.server);
    }
}

#[test]
fn the_default_file_has_every_key() {
    let text = turned_on(&every_default());
    let written = from_text(&text).unwrap();
    let unwritten: Vec<_> = written
        .settings()
        .iter()
        .filter(|setting| setting.origin == super::super::Origin::Default)
        .map(|setting| setting.key.as_str())
        .collect();
    assert_eq!(unwritten, [""; 0]);
    assert_eq!(written.exports.len(), TYPES.len());
}

/// The schema need not know everything the check does, but may not refuse what that takes; and of
/// what it can know it refuses the same.
#[test]
fn schema_and_check_agree() {
    let export = |rest: &str| format!("[[export]]\nname = \"a\"\n{rest}\n");
    let kafka = "type = \"kafka\"\nbrokers = [\"a:1\"]\ntopic = \"t\"\n";
    for good in [
        "server.shards = 4".to_owned(),
        "log.segment_size = 67108864\nlog.retention.size = \"50G\"".to_owned(),
        "log.retention.age = \"2w\"\nlimits.message_size = \"1000000\"".to_owned(),
        "limits.inflight_bytes = \"1GiB\"\nlog.disk.low = \"5 %\"".to_owned(),
        "log.retention.age = \"\"\nlog.retention.size = \"\"".to_owned(),
        export("type = \"blackhole\"\nretry.give_up_after = \"1d\"\nreplay_rate = \"10/s\""),
        export(kafka),
        export("type = \"smtp\"\nserver = \"a:25\"\nencoding = \"raw\"\nstarttls = true"),
    ] {
        assert_eq!(against_schema(&good), [""; 0], "{good}");
        from_text(&good).unwrap_or_else(|errors| panic!("{good}: {errors}"));
    }
    for bad in [
        "log.dri = \"/x\"".to_owned(),
        "log.dir = 5".to_owned(),
        "server.shards = 0".to_owned(),
        "limits.recipients = 99".to_owned(),
        "log.segment_size = \"64 octets\"".to_owned(),
        "log.segment_size = -1".to_owned(),
        "limits.timeout.data = 10".to_owned(),
        "log.sync = \"x\"".to_owned(),
        "log.retention = \"7d\"".to_owned(),
        "listener = {}".to_owned(),
        "limits.timeout.data = \"never\"".to_owned(),
        export(""),
        export("type = \"pigeon\""),
        export("type = \"kafka\"\ntopic = \"t\""),
        export("type = \"kafka\"\nbrokers = []\ntopic = \"t\""),
        export(&format!("{kafka}subject = \"x\"")),
        export(&format!("{kafka}create_partitions = -1")),
        export("type = \"lmtp\"\nserver = \"a:24\"\nencoding = \"json\""),
        export("type = \"files\"\ndir = \"\""),
        "[[export]]\ntype = \"blackhole\"".to_owned(),
    ] {
        assert_ne!(against_schema(&bad), [""; 0], "{bad}");
        assert!(from_text(&bad).is_err(), "{bad}");
    }
}
