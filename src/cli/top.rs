//! `mailrace top`: the live page's figures on a terminal.
//!
//! One thread reads `/v1/live`, this one draws and waits for keys. What is drawn is a function of the
//! samples alone, so it is tested without a terminal.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal},
    net::SocketAddr,
    process::ExitCode,
    sync::mpsc::{self, Receiver, Sender},
    time::Duration,
};

use clap::Args;
use ratatui::{
    Frame, Terminal,
    backend::TestBackend,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Sparkline, Table},
};
use serde_json::Value;

use super::{
    AdminArgs, EXIT_FAILED,
    figures::{age, bytes},
    hitters::{self, By},
    status::list,
    table::shows_colours,
};
use crate::admin::{self, ClientError};

/// Longest wait for a key before the samples are looked at again.
const LOOK: Duration = Duration::from_millis(100);

/// How long to wait before a server that is away is asked again.
const RETRY: Duration = Duration::from_secs(2);

/// Points kept for the curve: as many as the widest terminal has columns.
const POINTS: usize = 500;

#[derive(Args, Debug)]
pub(super) struct TopArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print one screen as text and exit; the default where stdout is not a terminal
    #[arg(long)]
    once: bool,
    /// Show who sends the most since the start
    #[arg(long, value_name = "WHAT")]
    by: Option<By>,
    /// With --by, print JSON and exit
    #[arg(long, requires = "by")]
    json: bool,
}

/// What the reader has for the screen.
enum Message {
    Event(String, Value),
    Away(String),
}

/// What is shown.
#[derive(Default)]
struct View {
    sample: Option<Value>,
    /// Messages per second, the latest last.
    rates: VecDeque<u64>,
    /// Why there are no samples now.
    away: Option<String>,
    colour: bool,
}

pub(super) fn run(args: &TopArgs) -> ExitCode {
    let (address, token) = match args.admin.find() {
        Ok(place) => place,
        Err(code) => return code,
    };
    let once_only = args.once || args.json || !io::stdout().is_terminal();
    let shown = match args.by {
        Some(by) if once_only => hitters::page(address, token.as_deref(), by, args.json),
        Some(by) => hitters::follow(address, token.as_deref(), by),
        None if once_only => once(address, token.as_deref()),
        None => follow(address, token),
    };
    match shown {
        Ok(text) => super::print(&text),
        Err(why) => {
            crate::cli::complain!("mailrace: {}", why.trim_end());
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// One screen as text.
fn once(address: SocketAddr, token: Option<&str>) -> Result<String, String> {
    let mut view = View::default();
    let read = admin::watch_live(address, token, |name, data| {
        view.take(name, data);
        view.sample.is_none()
    });
    read.map_err(|error| error.to_string())?;
    view.text(80, 24)
}

/// Draws until the user has seen enough. What could not be shown is the error.
fn follow(address: SocketAddr, token: Option<String>) -> Result<String, String> {
    let (sender, messages) = mpsc::channel();
    // It ends with the process, or when nobody listens any more.
    std::thread::spawn(move || read(address, token.as_deref(), &sender));
    // A terminal that is left raw is of no use: this restores it after a panic as well.
    let mut terminal =
        ratatui::try_init().map_err(|error| format!("cannot use this terminal: {error}"))?;
    let view = View { colour: shows_colours(), ..View::default() };
    let shown = show(&mut terminal, &messages, view);
    ratatui::restore();
    shown.map(|()| String::new()).map_err(|error| format!("cannot use this terminal: {error}"))
}

fn read(address: SocketAddr, token: Option<&str>, sender: &Sender<Message>) {
    loop {
        let read = admin::watch_live(address, token, |name, data| {
            sender.send(Message::Event(name.to_owned(), data)).is_ok()
        });
        let why = match read {
            Ok(()) => "the server has stopped".to_owned(),
            Err(ClientError::Refused(text)) => text,
            Err(error) => error.to_string(),
        };
        if sender.send(Message::Away(why)).is_err() {
            return;
        }
        std::thread::sleep(RETRY);
    }
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    messages: &Receiver<Message>,
    mut view: View,
) -> io::Result<()> {
    let mut changed = true;
    loop {
        while let Ok(message) = messages.try_recv() {
            match message {
                Message::Event(name, data) => view.take(&name, data),
                Message::Away(why) => view.away = Some(why),
            }
            changed = true;
        }
        if changed {
            terminal.draw(|frame| view.draw(frame))?;
            changed = false;
        }
        if !event::poll(LOOK)? {
            continue;
        }
        match event::read()? {
            event if ends(&event) => return Ok(()),
            Event::Resize(..) => changed = true,
            _ => {}
        }
    }
}

/// Whether the user has seen enough.
pub(super) fn ends(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let wanted = match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c') => control,
        _ => false,
    };
    wanted && key.kind == KeyEventKind::Press
}

impl View {
    fn take(&mut self, name: &str, data: Value) {
        match name {
            "history" => {
                let points = data.as_array().map_or(&[][..], Vec::as_slice);
                let latest = points.len().saturating_sub(POINTS);
                // The last of them comes again as a sample.
                let kept = points.get(latest..points.len().saturating_sub(1)).unwrap_or_default();
                self.rates =
                    kept.iter().map(|point| per_second(point, "messages") as u64).collect();
            }
            "sample" => {
                if self.rates.len() == POINTS {
                    self.rates.pop_front();
                }
                self.rates.push_back(per_second(&data, "messages").round() as u64);
                self.sample = Some(data);
                self.away = None;
            }
            _ => {}
        }
    }

    /// The screen without colours, lines without spaces at their ends.
    fn text(&self, columns: u16, rows: u16) -> Result<String, String> {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows))
            .map_err(|error| format!("cannot draw: {error}"))?;
        terminal.draw(|frame| self.draw(frame)).map_err(|error| format!("cannot draw: {error}"))?;
        let buffer = terminal.backend().buffer();
        let mut text = String::new();
        for row in 0..rows {
            let line: String =
                (0..columns).filter_map(|x| Some(buffer.cell((x, row))?.symbol())).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        let end = text.trim_end().len();
        text.truncate(end);
        Ok(text + "\n")
    }

    fn style(&self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let Some(sample) = &self.sample else {
            let why = self.away.as_deref().unwrap_or("connecting").trim_end();
            frame.render_widget(
                Paragraph::new(format!("mailrace top: {why}\n\nq quits")),
                frame.area(),
            );
            return;
        };
        let shards = list(&sample["shards"]);
        let warnings = list(&sample["warnings"]);
        let others =
            list(&sample["exporters"]).len().max(1) + list(&sample["groups"]).len().max(1) + 2;
        let areas = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(warnings.len().min(3) as u16),
            Constraint::Length(3),
            Constraint::Length(4),
            Constraint::Length(shards.len() as u16 + 1),
            Constraint::Length(others as u16),
            Constraint::Fill(1),
            Constraint::Length(1),
        ]);
        let [head, warned, figures, curve, table, rest, _, foot] =
            areas.spacing(0).areas(frame.area());
        frame.render_widget(self.head(sample), head);
        let warnings: Vec<Line<'_>> = warnings
            .iter()
            .filter_map(Value::as_str)
            .map(|line| Line::styled(format!("! {line}"), self.style(Color::Red)))
            .collect();
        frame.render_widget(Paragraph::new(warnings), warned);
        frame.render_widget(Paragraph::new(figures_of(sample)), figures);
        self.curve(frame, curve);
        frame.render_widget(self.shards(sample, shards), table);
        self.consumers(frame, sample, rest);
        let foot_text = match &self.away {
            Some(why) => {
                format!("no connection, retrying: {}", why.lines().next().unwrap_or_default())
            }
            None => "q quits".to_owned(),
        };
        frame.render_widget(Paragraph::new(foot_text), foot);
    }

    fn head(&self, sample: &Value) -> Paragraph<'static> {
        let ready = sample["ready"].as_bool().unwrap_or(false);
        let (word, colour) =
            if ready { ("ready", Color::Green) } else { ("NOT READY", Color::Red) };
        let text = |name: &str| sample[name].as_str().unwrap_or_default().to_owned();
        let up = span(sample["uptime"].as_f64());
        Paragraph::new(Line::from(vec![
            Span::styled("mailrace", Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(format!(" {} ({})   ", text("version"), text("revision"))),
            Span::styled(word, self.style(colour)),
            Span::raw(format!("   up {up}   disk {}", disk(sample))),
        ]))
    }

    fn curve(&self, frame: &mut Frame<'_>, area: Rect) {
        let [title, area] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        let shown = self.rates.len().saturating_sub(usize::from(area.width));
        let rates: Vec<u64> = self.rates.iter().skip(shown).copied().collect();
        let most = rates.iter().max().copied().unwrap_or(0);
        let text =
            format!("messages/s, the last {}; highest {most}", span(Some(rates.len() as f64)));
        frame.render_widget(Paragraph::new(text), title);
        frame.render_widget(Sparkline::default().data(rates).style(self.style(Color::Cyan)), area);
    }

    fn shards(&self, sample: &Value, shards: &[Value]) -> Table<'static> {
        let seconds = sample["seconds"].as_f64().unwrap_or(1.0).max(0.001);
        let rows = shards.iter().map(|shard| {
            let number = |name: &str| shard[name].as_f64().unwrap_or(0.0);
            let state = shard["state"].as_str().unwrap_or_default().to_owned();
            let good = state == "serving";
            Row::new([
                Cell::from(format!("{:>5}", number("shard"))),
                Cell::from(state).style(self.style(if good { Color::Green } else { Color::Red })),
                Cell::from(format!("{:>8.0}", number("messages") / seconds)),
                Cell::from(format!("{:>8.0}", number("sessions"))),
                Cell::from(format!("{:>4.0} %", 100.0 * number("busy"))),
                Cell::from(format!("{:>10}", bytes(number("inflight_bytes") as u64))),
                Cell::from(format!("{:>8.0}", number("unsynced"))),
            ])
        });
        let header =
            ["shard", "state", "    msg/s", "sessions", "  busy", " in flight", "unsynced"];
        let widths = [5, 10, 9, 8, 6, 10, 8].map(Constraint::Length);
        Table::new(rows.collect::<Vec<_>>(), widths)
            .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
            .column_spacing(2)
    }

    fn consumers(&self, frame: &mut Frame<'_>, sample: &Value, area: Rect) {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let mut lines = vec![Line::styled("group                     lag  oldest", bold)];
        let groups = list(&sample["groups"]);
        for group in groups {
            let name = group["name"].as_str().unwrap_or_default();
            let lag = group["lag"].as_u64().unwrap_or(0);
            let oldest = span(group["oldest_age"].as_f64());
            lines.push(Line::raw(format!("{name:<20} {lag:>8}  {oldest}")));
        }
        if groups.is_empty() {
            lines.push(Line::raw("none"));
        }
        lines.push(Line::styled(
            "exporter             state  delivered  retried  dead letters",
            bold,
        ));
        let exporters = list(&sample["exporters"]);
        for exporter in exporters {
            let name = exporter["name"].as_str().unwrap_or_default();
            let up = exporter["up"].as_bool().unwrap_or(false);
            let (state, colour) = if up { ("up", Color::Green) } else { ("down", Color::Red) };
            let number = |name: &str| exporter[name].as_u64().unwrap_or(0);
            lines.push(Line::from(vec![
                Span::raw(format!("{name:<20} ")),
                Span::styled(format!("{state:<5}"), self.style(colour)),
                Span::raw(format!(
                    "  {:>9}  {:>7}  {:>12}",
                    number("delivered"),
                    number("retried"),
                    number("dead_letters")
                )),
            ]));
        }
        if exporters.is_empty() {
            lines.push(Line::raw("none"));
        }
        frame.render_widget(Paragraph::new(lines), area);
    }
}

fn per_second(point: &Value, name: &str) -> f64 {
    let seconds = point["seconds"].as_f64().unwrap_or(1.0).max(0.001);
    point[name].as_f64().unwrap_or(0.0) / seconds
}

fn figures_of(sample: &Value) -> Vec<Line<'static>> {
    let messages = sample["messages"].as_f64().unwrap_or(0.0);
    let rejected = sample["rejected"].as_f64().unwrap_or(0.0);
    let part = if rejected > 0.0 { 100.0 * rejected / (messages + rejected) } else { 0.0 };
    let time = |name: &str| milliseconds(sample[name].as_f64());
    vec![
        Line::raw(format!(
            "messages/s {:>8.0}   MB/s {:>7.1}   refused {part:>5.1} %   sessions {:>6}",
            per_second(sample, "messages"),
            per_second(sample, "bytes") / 1e6,
            sample["sessions"].as_u64().unwrap_or(0),
        )),
        Line::raw(format!(
            "time to the 250   p50 {:>10}   p99 {:>10}   p99.9 {:>10}",
            time("p50"),
            time("p99"),
            time("p999")
        )),
        Line::raw(format!(
            "log {} in {} segments, oldest record {}",
            bytes(sample["log"]["bytes"].as_u64().unwrap_or(0)),
            sample["log"]["segments"].as_u64().unwrap_or(0),
            sample["log"]["oldest_age"]
                .as_f64()
                .map_or("none".to_owned(), |age| { format!("{} ago", span(Some(age))) }),
        )),
    ]
}

fn disk(sample: &Value) -> String {
    let disk = &sample["disk"];
    let Some(free) = disk["free_bytes"].as_u64() else { return "unknown".to_owned() };
    let state = disk["state"].as_str().unwrap_or_default();
    match disk["full_in"].as_f64() {
        Some(full) => format!("{state}, {} free, full in {}", bytes(free), span(Some(full))),
        None => format!("{state}, {} free", bytes(free)),
    }
}

fn milliseconds(seconds: Option<f64>) -> String {
    seconds.map_or("-".to_owned(), |seconds| format!("{:.2} ms", seconds * 1e3))
}

fn span(seconds: Option<f64>) -> String {
    seconds.map_or("-".to_owned(), |seconds| age(seconds.round() as u64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Value {
        json!({
            "time": 1000.0, "seconds": 1.0, "messages": 200, "bytes": 2_000_000, "rejected": 50,
            "p50": 0.0005, "p99": 0.012, "p999": null, "version": "1.2.3", "revision": "abc",
            "uptime": 7300.0, "ready": true, "warnings": [], "sessions": 12,
            "shards": [
                {"shard": 0, "state": "serving", "messages": 120, "sessions": 7, "busy": 0.25,
                 "inflight_bytes": 2048, "unsynced": 3},
                {"shard": 1, "state": "failed", "messages": 80, "sessions": 5, "busy": 0.5,
                 "inflight_bytes": 0, "unsynced": 0},
            ],
            "log": {"bytes": 67_108_864, "segments": 2, "oldest_age": 30.0},
            "disk": {"free_bytes": 1_073_741_824_u64, "size_bytes": 9_u64 << 30, "state": "low",
                     "full_in": 3600.0},
            "groups": [{"name": "kafka-main", "lag": 42, "oldest_age": 9.0, "readers": 1}],
            "exporters": [{"name": "kafka-main", "up": false, "delivered": 7, "retried": 2,
                           "dead_letters": 1, "errors": {}}],
            "replies": {}
        })
    }

    fn view(sample: Value) -> View {
        let mut view = View::default();
        let history = json!([{"seconds": 1.0, "messages": 100}, {"seconds": 1.0, "messages": 200}]);
        view.take("history", history);
        view.take("sample", sample);
        view
    }

    #[test]
    fn everything_fits_on_80_by_24() {
        let text = view(sample()).text(80, 24).unwrap();
        assert!(text.lines().count() <= 24 && text.lines().all(|l| l.chars().count() <= 80));
        for wanted in [
            "mailrace 1.2.3 (abc)   ready   up 2h 1m   disk low, 1.0 GiB free, full in 1h 0m",
            "messages/s      200   MB/s     2.0   refused  20.0 %   sessions     12",
            "p50    0.50 ms   p99   12.00 ms   p99.9          -",
            "log 64.0 MiB in 2 segments, oldest record 30s ago",
            "messages/s, the last 2s; highest 200",
            "failed",
            "kafka-main                 42  9s",
            "kafka-main           down",
            "q quits",
        ] {
            assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
        }
        // A small terminal loses lines, nothing else.
        assert!(view(sample()).text(20, 3).is_ok());
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let mut bad = sample();
        bad["ready"] = json!(false);
        bad["warnings"] = json!(["disk full: 1 MiB free", "draining"]);
        let mut view = view(bad);
        view.away = Some("the server has stopped".to_owned());
        let text = view.text(80, 24).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].contains("NOT READY"), "{text}");
        assert_eq!(lines[1..3], ["! disk full: 1 MiB free", "! draining"]);
        assert!(text.contains("no connection, retrying: the server has stopped"), "{text}");
    }

    #[test]
    fn without_a_sample_it_says_why() {
        let text = View::default().text(80, 24).unwrap();
        assert!(text.starts_with("mailrace top: connecting\n"), "{text}");
    }

    #[test]
    fn colours_are_used_only_where_they_are_wanted() {
        let coloured = |colour| {
            let mut view = view(sample());
            view.colour = colour;
            let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
            terminal.draw(|frame| view.draw(frame)).unwrap();
            let cells = terminal.backend().buffer().content();
            cells.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        assert!(coloured(true) && !coloured(false));
    }
}
