//! `mailrace top --by`: who sends the most.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use ratatui::{crossterm::event, widgets::Paragraph};
use serde_json::Value;

use super::{
    table::{Side, Table, Tone},
    top::ends,
};
use crate::admin;

/// Shards answer within a second.
const WAIT: Duration = Duration::from_secs(5);

/// How often a screen is drawn anew.
const REFRESH: Duration = Duration::from_secs(2);

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

/// Draws the list again and again until the user has seen enough.
pub(super) fn follow(address: SocketAddr, token: Option<&str>, by: By) -> Result<String, String> {
    // A server that cannot be asked at all is told on a line, and not on a screen.
    let mut shown = page(address, token, by, false)?;
    let failed = |error: io::Error| format!("cannot use this terminal: {error}");
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let mut state = String::new();
    let ended = loop {
        let text = format!(
            "mailrace top --by {}   since the start   every {} s   q ends\n{state}\n{shown}",
            by.name(),
            REFRESH.as_secs()
        );
        let drawn = terminal.draw(|frame| {
            frame.render_widget(Paragraph::new(text.as_str()), frame.area());
        });
        match drawn.and_then(|_| rest()) {
            Ok(false) => {}
            Ok(true) => break Ok(String::new()),
            Err(error) => break Err(failed(error)),
        }
        match page(address, token, by, false) {
            Ok(text) => (shown, state) = (text, String::new()),
            Err(_) => state = "NO ANSWER, retrying".to_owned(),
        }
    };
    ratatui::restore();
    ended
}

/// Waits for the next screen, or for a key: whether that ends it.
fn rest() -> io::Result<bool> {
    let until = Instant::now() + REFRESH;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !event::poll(left)? {
            return Ok(false);
        }
        match event::read()? {
            event if ends(&event) => return Ok(true),
            event::Event::Resize(..) => return Ok(false),
            _ => {}
        }
    }
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
