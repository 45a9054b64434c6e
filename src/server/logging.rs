//! Lines on stderr: text or JSON, written by a thread of their own.
//!
//! ```text
//!   tracing event --> one line, escaped --> bounded queue --> thread "log" --> stderr
//!                                             | full: dropped and counted
//! ```
//!
//! Logging never waits: a stderr that is not read stalls the thread, and lines are lost and
//! counted, while mail is still served. The thread looks every [`LOOK_EVERY`] instead of being
//! woken, so that logging costs a shard no system call.

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender, bounded};
use tracing::{Event, Level, Subscriber, field::Field, field::Visit};
use tracing_subscriber::{
    EnvFilter, Layer, layer::Context, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::{
    admin::Readiness,
    config::{LogFormat, ServerConfig},
    log::{format_time_micros, unix_micros},
};

/// Lines that wait to be written, of all threads.
const LINES_MAX: usize = 8_192;

/// How often the thread looks for lines.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long the end of the process waits for the last lines to be taken.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Octets of a message, and of a value of one field; the rest is cut off.
const VALUE_BYTES_MAX: usize = 2_048;

/// Libraries that say of each connection and attempt what the exporters say with their names, once.
const SILENT: &str = "async_nats=off,rskafka=off,object_store=off";

/// How often a flush looks whether it is done.
const FLUSH_LOOK: Duration = Duration::from_millis(1);

/// How far the lines of this process are written.
static LINES: OnceLock<Arc<Progress>> = OnceLock::new();

/// Returns once the lines logged so far are on stderr, or the limit is over. For where the process is
/// about to end: nobody else waits for the log. May be called in a signal handler.
pub(super) fn flush(limit: Duration) {
    if let Some(lines) = LINES.get() {
        lines.flush(limit);
    }
}

/// Lines on their way.
#[derive(Default)]
struct Progress {
    queued: AtomicU64,
    /// Those that could not be written are among them: nothing comes of waiting for them.
    written: AtomicU64,
}

impl Progress {
    fn flush(&self, limit: Duration) {
        let target = self.queued.load(Ordering::Acquire);
        let began = Instant::now();
        while self.written.load(Ordering::Acquire) < target && began.elapsed() < limit {
            thread::sleep(FLUSH_LOOK);
        }
    }
}

/// Lines are taken as long as it is held; when it is dropped the last ones are written.
pub(super) struct Logging {
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.progress.flush(LAST_LINES);
        self.stop.store(true, Ordering::Release);
    }
}

/// Begins to log to stderr.
///
/// # Errors
/// Where there is no thread for it.
pub(super) fn start(config: &ServerConfig, ready: Arc<Readiness>) -> io::Result<Logging> {
    let json = match config.log_format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let (sender, lines) = bounded(LINES_MAX);
    let stop = Arc::new(AtomicBool::new(false));
    let progress = Arc::new(Progress::default());
    let (asked, counts, written) = (stop.clone(), ready.clone(), progress.clone());
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        write_lines(&lines, &asked, &counts, &written.written, &mut io::stderr());
    })?;
    let by_key = format!("{},{SILENT}", config.log_level);
    let wanted = std::env::var("RUST_LOG").ok().filter(|wanted| !wanted.is_empty());
    let (filter, bad) = match wanted.as_deref().map(EnvFilter::try_new) {
        None => (EnvFilter::new(by_key), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(by_key), Some(error.to_string())),
    };
    let lines = Lines { json, sender, ready, progress: progress.clone() };
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = LINES.set(progress.clone());
    }
    if let Some(error) = bad {
        tracing::warn!("RUST_LOG is ignored: {error}; using server.log_level");
    }
    Ok(Logging { stop, progress })
}

/// Writes what comes until it is asked to stop and nothing is left.
fn write_lines(
    lines: &Receiver<String>,
    stop: &AtomicBool,
    ready: &Readiness,
    written: &AtomicU64,
    to: &mut dyn io::Write,
) {
    let mut together = String::new();
    loop {
        let last = stop.load(Ordering::Acquire);
        let mut count = 0;
        let until = Instant::now() + LOOK_EVERY;
        while let Ok(line) = lines.try_recv() {
            together.push_str(&line);
            count += 1;
            if together.len() > 64 << 10 || Instant::now() >= until {
                break;
            }
        }
        if count > 0 && to.write_all(together.as_bytes()).is_err() {
            ready.count_dropped_lines(count);
        }
        written.fetch_add(count, Ordering::Release);
        together.clear();
        if count > 0 {
            continue;
        }
        if last {
            return;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Makes lines of events, and counts what operators are to look at.
struct Lines {
    json: bool,
    sender: Sender<String>,
    ready: Arc<Readiness>,
    progress: Arc<Progress>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        match level {
            Level::ERROR => self.ready.count_error(),
            Level::WARN => self.ready.count_warning(),
            _ => {}
        }
        let now = format_time_micros(unix_micros());
        let line = Line::of(event, self.json).whole(&now, level);
        // Counted ahead of the queue, so that who flushes next waits for this line too.
        self.progress.queued.fetch_add(1, Ordering::AcqRel);
        if self.sender.try_send(line).is_err() {
            self.progress.queued.fetch_sub(1, Ordering::AcqRel);
            self.ready.count_dropped_lines(1);
        }
    }
}

/// One event, as it is put together.
struct Line {
    json: bool,
    message: String,
    fields: String,
}

impl Line {
    fn of(event: &Event<'_>, json: bool) -> Self {
        let mut line = Self { json, message: String::new(), fields: String::new() };
        event.record(&mut line);
        line
    }

    fn whole(self, now: &str, level: Level) -> String {
        let Self { json, message, fields } = self;
        let mut line = String::with_capacity(64 + message.len() + fields.len());
        // Writing into a String cannot fail.
        let _ = match json {
            true => {
                let _ =
                    write!(line, "{{\"timestamp\":\"{now}\",\"level\":\"{level}\",\"message\":");
                quote(&mut line, &message);
                writeln!(line, "{fields}}}")
            }
            false => {
                let _ = write!(line, "{now} {level:<5} ");
                message.chars().for_each(|char| shown(&mut line, char));
                writeln!(line, "{fields}")
            }
        };
        line
    }

    fn name(&mut self, field: &Field) {
        let _ = match self.json {
            true => write!(self.fields, ",\"{}\":", field.name()),
            false => write!(self.fields, " {}=", field.name()),
        };
    }

    fn text(&mut self, field: &Field, text: &str) {
        let text = &text[..text.floor_char_boundary(VALUE_BYTES_MAX)];
        if field.name() == "message" {
            text.clone_into(&mut self.message);
            return;
        }
        self.name(field);
        let bare = |octet: u8| octet.is_ascii_graphic() && !matches!(octet, b'"' | b'\\' | b'=');
        match !self.json && !text.is_empty() && text.bytes().all(bare) {
            true => self.fields.push_str(text),
            false => quote(&mut self.fields, text),
        }
    }

    fn number(&mut self, field: &Field, number: &dyn fmt::Display) {
        self.name(field);
        let _ = write!(self.fields, "{number}");
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no other numbers.
        if value.is_finite() {
            self.number(field, &value);
        }
    }

    // `%field` and messages come this way: their Debug is their Display.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}

/// A JSON string.
fn quote(line: &mut String, text: &str) {
    line.push('"');
    for char in text.chars() {
        if matches!(char, '"' | '\\') {
            line.push('\\');
        }
        shown(line, char);
    }
    line.push('"');
}

/// As in a JSON string where it could end the line, move the cursor of a terminal or turn the
/// direction of what follows; else as it is.
fn shown(line: &mut String, char: char) {
    match char {
        '\n' => line.push_str("\\n"),
        '\r' => line.push_str("\\r"),
        '\t' => line.push_str("\\t"),
        _ if char.is_control() || moves(char) => {
            let _ = write!(line, "\\u{:04x}", u32::from(char));
        }
        _ => line.push(char),
    }
}

/// Line and paragraph separators, marks of direction, and the byte order mark.
fn moves(char: char) -> bool {
    matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn quoted(text: &str) -> String {
        let mut line = String::new();
        quote(&mut line, text);
        line
    }

    /// BAD-INPUTS J2: one line an event, whatever a client sends.
    #[test]
    fn what_could_end_a_line_or_move_a_cursor_is_escaped() {
        assert_eq!(
            quoted("a\r\nb\t\u{1b}[2J\u{2028}\u{85}\u{202e}\"\\é"),
            r#""a\r\nb\t\u001b[2J\u2028\u0085\u202e\"\\é""#
        );
        let read: String = serde_json::from_str(&quoted("\u{7f}\0\n\u{feff}")).unwrap();
        assert_eq!(read, "\u{7f}\0\n\u{feff}");
    }

    /// A line of text is for people: what quotes a name or a path stays as it was said.
    #[test]
    fn quotes_and_backslashes_are_escaped_in_values_only() {
        let (message, value) = ("log.sync = \"none\" in C:\\x\n", "\"a\\b\"@c d");
        let line = |json| {
            let lines = Arc::new(Mutex::new(Vec::new()));
            let subscriber =
                tracing_subscriber::registry().with(Kept { json, lines: lines.clone() });
            tracing::subscriber::with_default(subscriber, || {
                tracing::warn!(value, bare = "x", "{message}");
                tracing::warn!("{}", "é".repeat(5_000));
            });
            let lines = lines.lock().unwrap();
            // Cut where a character begins.
            assert_eq!(lines[1].matches('é').count(), VALUE_BYTES_MAX / 2, "{}", lines[1]);
            lines[0].clone()
        };
        let said = r#"NOW WARN  log.sync = "none" in C:\x\n value="\"a\\b\"@c d" bare=x"#;
        assert_eq!(line(false), format!("{said}\n"));
        let read: serde_json::Value = serde_json::from_str(&line(true)).unwrap();
        assert_eq!((&read["message"], &read["value"]), (&message.into(), &value.into()));
    }

    struct Kept {
        json: bool,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.lines.lock().unwrap().push(Line::of(event, self.json).whole("NOW", Level::WARN));
        }
    }

    #[test]
    fn the_last_lines_are_written_at_the_end() {
        let (sender, lines) = bounded(8);
        sender.send("one\n".to_owned()).unwrap();
        sender.send("two\n".to_owned()).unwrap();
        let (mut written, ready) = (Vec::new(), Readiness::default());
        let count = AtomicU64::new(0);
        write_lines(&lines, &AtomicBool::new(true), &ready, &count, &mut written);
        assert_eq!(written, b"one\ntwo\n");
        assert_eq!(count.into_inner(), 2);
    }

    #[test]
    fn a_flush_ends_with_the_lines_before_it_or_at_its_limit() {
        let progress = Progress::default();
        progress.queued.store(2, Ordering::Relaxed);
        thread::scope(|scope| {
            let flushed = scope.spawn(|| progress.flush(Duration::from_secs(60)));
            progress.written.store(1, Ordering::Relaxed);
            thread::sleep(5 * FLUSH_LOOK);
            assert!(!flushed.is_finished(), "a line is still on its way");
            progress.written.store(2, Ordering::Relaxed);
            flushed.join().unwrap();
        });
        progress.queued.store(3, Ordering::Relaxed);
        let began = Instant::now();
        progress.flush(Duration::from_millis(5));
        assert!(began.elapsed() >= Duration::from_millis(5), "nobody writes the third");
    }
}
