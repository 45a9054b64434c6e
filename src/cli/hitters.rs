//! `mailrace top --by`: who sends the most.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;

use super::table::{Side, Table, Tone};
use crate::admin;

/// Shards answer within a second.
const WAIT: Duration = Duration::from_secs(5);

/// By what messages are counted.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum By {
    /// Addresses of clients; of IPv6 their /64
    Client,
    /// Domains of senders
    SenderDomain,
    /// Domains of recipients
    RcptDomain,
    /// Codes of replies
    Reply,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::SenderDomain => "sender-domain",
            Self::RcptDomain => "rcpt-domain",
            Self::Reply => "reply",
        }
    }
}

/// The first twenty, as a table or as the server's JSON.
pub(super) fn page(
    address: SocketAddr,
    token: Option<&str>,
    by: By,
    json: bool,
) -> Result<String, String> {
    let path = format!("/v1/hitters?by={}", by.name());
    let answer = admin::get(address, token, &path, WAIT).map_err(|error| error.to_string())?;
    if json {
        return Ok(answer);
    }
    let answer: Value = serde_json::from_str(&answer)
        .map_err(|error| format!("the answer from http://{address} is not a list: {error}"))?;
    Ok(table(&answer, by))
}

fn table(answer: &Value, by: By) -> String {
    let total = answer["total"].as_u64().unwrap_or(0);
    let columns = [
        (by.name(), Side::Left),
        ("count", Side::Right),
        ("share", Side::Right),
        ("at least", Side::Right),
    ];
    let mut table = Table::new(&columns);
    for hit in answer["hits"].as_array().into_iter().flatten() {
        let number = |name: &str| hit[name].as_u64().unwrap_or(0);
        let (count, error) = (number("count"), number("error"));
        let share = format!("{:.1} %", 100.0 * count as f64 / total.max(1) as f64);
        // A client made the key up.
        let key: String =
            hit["key"].as_str().unwrap_or("-").chars().filter(|c| !c.is_control()).collect();
        let cells = [key, count.to_string(), share, count.saturating_sub(error).to_string()];
        table.row(cells.map(|cell| (cell, Tone::Plain)));
    }
    table.text(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hitters_are_a_table() {
        let answer = serde_json::json!({
            "total": 40,
            "hits": [
                { "key": "big.\u{1b}example", "count": 30, "error": 0 },
                { "key": "b.example", "count": 5, "error": 2 },
            ],
        });
        assert_eq!(
            table(&answer, By::SenderDomain),
            "sender-domain  count   share  at least\n\
             big.example       30  75.0 %        30\n\
             b.example          5  12.5 %         3\n"
        );
    }
}
