//! Counts of refusals.

use std::{
    collections::HashMap,
    io::{self, Write},
    net::SocketAddr,
};

use serde_json::json;

use super::{
    read::{Found, Merged},
    show::reply,
};
use crate::{
    cli::{
        log::text::escape,
        table::{Side, Table, Tone, shows_colours},
    },
    log::{Refusal, format_time_micros},
    network::Network,
};

/// Name in JSON, column, and what a refusal is counted as.
type By = (&'static str, &'static str, fn(&Refusal) -> String);

/// What is counted.
const BY: [By; 4] = [
    ("reason", "REASON", |refusal| format!("{} {}", reply(refusal), refusal.reason)),
    ("stage", "STAGE", |refusal| refusal.stage.clone()),
    ("client_network", "CLIENT NETWORK", network),
    ("sender_domain", "SENDER DOMAIN", sender),
];

pub(super) fn run(
    merged: &mut Merged,
    most: usize,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut counts: [HashMap<String, u64>; BY.len()] = Default::default();
    let (mut total, mut span) = (0_u64, None);
    while let Some(Found { refusal, .. }) = merged.next()? {
        total += 1;
        let (first, _) = span.unwrap_or((refusal.at, refusal.at));
        span = Some((first, refusal.at));
        for ((_, _, of), counts) in BY.iter().zip(&mut counts) {
            *counts.entry(of(&refusal)).or_default() += 1;
        }
    }
    let tables: Vec<_> = counts.into_iter().map(|counts| highest(counts, most)).collect();
    let time = |at: i64| format_time_micros(at);
    if json {
        let mut all = serde_json::Map::new();
        all.insert("refusals".to_owned(), total.into());
        all.insert("first".to_owned(), span.map(|(first, _)| time(first)).into());
        all.insert("last".to_owned(), span.map(|(_, last)| time(last)).into());
        for ((name, _, _), rows) in BY.iter().zip(&tables) {
            let rows = rows.iter().map(|(value, count)| json!({*name: value, "count": count}));
            all.insert(format!("by_{name}"), rows.collect());
        }
        return writeln!(out, "{}", serde_json::Value::Object(all));
    }
    match span {
        None => writeln!(out, "0 refusals")?,
        Some((first, last)) => {
            writeln!(out, "{total} refusals from {} to {}", time(first), time(last))?;
        }
    }
    for ((_, column, _), rows) in BY.iter().zip(tables).filter(|(_, rows)| !rows.is_empty()) {
        let mut table = Table::new(&[("COUNT", Side::Right), (column, Side::Left)]);
        for (value, count) in rows {
            table.row([(count.to_string(), Tone::Plain), (escape(&value), Tone::Plain)]);
        }
        write!(out, "\n{}", table.text(shows_colours()))?;
    }
    Ok(())
}

/// The highest counts; equal ones by name.
fn highest(counts: HashMap<String, u64>, most: usize) -> Vec<(String, u64)> {
    let mut rows: Vec<_> = counts.into_iter().collect();
    rows.sort_by(|(name, count), (other, others)| others.cmp(count).then(name.cmp(other)));
    rows.truncate(most);
    rows
}

fn network(refusal: &Refusal) -> String {
    let around = |client: SocketAddr| Network::around(client.ip()).to_string();
    refusal.client.map_or_else(|| "unix".to_owned(), around)
}

/// The domain of the reverse-path, in lower case.
fn sender(refusal: &Refusal) -> String {
    match refusal.mail_from.as_deref() {
        None => "-".to_owned(),
        Some("") => "<>".to_owned(),
        Some(path) => path.rsplit_once('@').map_or(path, |(_, domain)| domain).to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_come_first() {
        let counts = [("b", 2), ("a", 2), ("c", 9), ("d", 1)];
        let counts = counts.map(|(name, count)| (name.to_owned(), count)).into_iter().collect();
        let rows = highest(counts, 3);
        let rows: Vec<_> = rows.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(rows, [("c", 9), ("a", 2), ("b", 2)]);
    }
}
