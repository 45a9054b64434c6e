//! `mailrace config schema`: a JSON Schema of the file, for editors.
//!
//! It knows types, words and bounds of single values; `mailrace check` knows the rest.

use serde_json::{Map, Value as Json, json};

use super::export_keys::TYPES;
use super::keys::{ARRAYS, Key, Table};
use super::units;
use super::value::Kind;

const PERCENT: &str = "^[0-9]+ ?%$";
const RATE: &str = "^[0-9]+/s$";
const PER_MINUTE: &str = "^[0-9]+/m$";

/// The schema, draft 2020-12.
pub fn schema() -> Json {
    let root = Table::Root.keys().iter().map(|key| (*key, key.name));
    let mut schema = object(root);
    for (name, most) in ARRAYS {
        let items = match name {
            "listener" => object(Table::Listener(0).keys().iter().map(|key| (*key, key.name))),
            _ => json!({"oneOf": TYPES.iter().map(|kind| export(kind)).collect::<Vec<_>>()}),
        };
        set(
            &mut schema,
            &["properties", name],
            json!({"type": "array", "maxItems": most, "items": items}),
        );
    }
    set(&mut schema, &["$schema"], json!("https://json-schema.org/draft/2020-12/schema"));
    set(&mut schema, &["title"], json!("Mailrace configuration"));
    schema
}

fn export(kind: &str) -> Json {
    let keys = Table::Export(0).keys().iter().filter(|key| key.is_of(kind));
    let mut schema = object(keys.map(|key| (*key, key.name)));
    let doc = schema["properties"]["type"]["description"].clone();
    set(&mut schema, &["properties", "type"], json!({"const": kind, "description": doc}));
    set(&mut schema, &["title"], json!(kind));
    schema
}

/// A table of dotted names.
fn object(keys: impl Iterator<Item = (Key, &'static str)>) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    // Neighbours with the same first name are one table.
    let mut tables: Vec<(&str, Vec<(Key, &'static str)>)> = Vec::new();
    for (key, name) in keys {
        let Some((table, field)) = name.split_once('.') else {
            if key.example.is_some() {
                required.push(name);
            }
            properties.insert(name.to_owned(), value(&key));
            continue;
        };
        match tables.iter_mut().find(|(known, _)| *known == table) {
            Some((_, fields)) => fields.push((key, field)),
            None => tables.push((table, vec![(key, field)])),
        }
    }
    for (table, fields) in tables {
        properties.insert(table.to_owned(), object(fields.into_iter()));
    }
    let mut object =
        json!({"type": "object", "additionalProperties": false, "properties": properties});
    if !required.is_empty() {
        set(&mut object, &["required"], json!(required));
    }
    object
}

fn value(key: &Key) -> Json {
    let text = |pattern: &str| json!({"type": "string", "pattern": pattern});
    let mut choices = Vec::new();
    let mut schema = match key.kind {
        Kind::Text | Kind::File if key.example.is_some() => {
            json!({"type": "string", "minLength": 1})
        }
        Kind::Text | Kind::File => json!({"type": "string"}),
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::List if key.example.is_some() => {
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1})
        }
        Kind::List => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Choice(words) => json!({"enum": words}),
        Kind::Integer { least, most, word } => {
            choices.extend(word.map(|word| json!({"const": word})));
            json!({"type": "integer", "minimum": least, "maximum": most})
        }
        Kind::Size { word, percent, .. } => {
            choices.extend(word.map(|word| json!({"const": word})));
            choices.extend(percent.map(|_| text(PERCENT)));
            choices.push(json!({"type": "integer", "minimum": 0}));
            text(&units::size_pattern())
        }
        Kind::Duration { word, .. } => {
            choices.extend(word.map(|word| json!({"const": word})));
            text(&units::duration_pattern())
        }
        Kind::PerMinute => {
            choices.push(json!({"const": ""}));
            text(PER_MINUTE)
        }
        Kind::Rate => {
            choices.push(json!({"const": ""}));
            text(RATE)
        }
    };
    if !choices.is_empty() {
        choices.insert(0, schema);
        schema = json!({"anyOf": choices});
    }
    set(&mut schema, &["description"], json!(key.doc));
    if key.example.is_none() {
        set(&mut schema, &["default"], key.kind.read(&key.default()).to_json());
    }
    schema
}

/// Sets a member of nested objects; those on the way exist.
fn set(object: &mut Json, path: &[&str], value: Json) {
    let member = path.iter().fold(object, |object, name| &mut object[*name]);
    *member = value;
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
