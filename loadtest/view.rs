//! While the run goes on: a line on the terminal, and metrics over HTTP.

use std::{
    fmt,
    io::{self, IsTerminal, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::{
    engine::Progress,
    measure::Snapshot,
    units::{show_count, show_seconds},
};

/// A scraper that sends nothing for so long is dropped.
const SCRAPE_WAIT: Duration = Duration::from_secs(5);

/// Writes to stderr. `eprintln!` panics where nobody reads it any more (a closed pipe), which is no
/// failure of the run.
pub(super) fn say(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(text);
}

/// Shows how far the run is. Drawn on stderr, so a report on stdout stays clean.
#[derive(Debug)]
pub(super) struct View {
    draws: bool,
    is_dirty: bool,
    last: (f64, u64),
    /// What `/metrics` answers.
    page: Option<Arc<Mutex<String>>>,
}

impl View {
    /// # Errors
    /// Where the metrics' address cannot be bound.
    pub(super) fn new(no_tui: bool, metrics: Option<SocketAddr>) -> io::Result<Self> {
        let page = metrics.map(serve).transpose()?;
        let draws = !no_tui && io::stderr().is_terminal();
        Ok(Self { draws, is_dirty: false, last: (0.0, 0), page })
    }

    /// Wipes the line.
    pub(super) fn close(&mut self) {
        if self.is_dirty {
            crate::complain_on!("\r\x1b[K");
            self.is_dirty = false;
        }
        self.last = (0.0, 0);
    }

    fn draw(&mut self, snapshot: &Snapshot, now: f64) {
        let (before, acked) = self.last;
        self.last = (now, snapshot.acked);
        let rate = (snapshot.acked.saturating_sub(acked)) as f64 / (now - before).max(1e-9);
        let quantile = |at| show_seconds(snapshot.response.value_at_quantile(at) as f64 / 1e9);
        let line = if now < 0.0 {
            format!("warm-up {:.0} s", -now)
        } else {
            format!(
                "{now:.0} s   {} acked   {}/s   {} failed   p50 {}   p99 {}   max {}",
                show_count(snapshot.acked),
                show_count(rate as u64),
                show_count(snapshot.failed),
                quantile(0.5),
                quantile(0.99),
                show_seconds(snapshot.response.max() as f64 / 1e9),
            )
        };
        crate::complain_on!("\r\x1b[K{line}");
        // A terminal that is gone is no reason to stop.
        let _ = io::stderr().flush();
        self.is_dirty = true;
    }
}

impl Progress for View {
    fn is_watched(&self) -> bool {
        self.draws || self.page.is_some()
    }

    fn tell(&mut self, snapshot: &Snapshot, now: f64) {
        if self.draws {
            self.draw(snapshot, now);
        }
        if let Some(page) = &self.page {
            *page.lock().unwrap_or_else(PoisonError::into_inner) = render(snapshot);
        }
    }
}

/// Text format 0.0.4 of Prometheus.
fn render(snapshot: &Snapshot) -> String {
    let counters = [
        ("messages_acked_total", "Messages that got a 2yz", snapshot.acked),
        ("messages_failed_total", "Messages that failed", snapshot.failed),
        (
            "messages_late_skipped_total",
            "Messages skipped after waiting too long for a free connection",
            snapshot.late_skipped,
        ),
        ("acked_bytes_total", "Mail data that got a 2yz", snapshot.bytes),
        ("connections_total", "Connections opened", snapshot.connections),
        ("connection_errors_total", "Connections that failed", snapshot.connection_errors),
    ];
    let mut out = String::new();
    for (name, help, value) in counters {
        let name = format!("mailrace_bench_{name}");
        out += &format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}\n");
    }
    let family = "mailrace_bench_response_seconds";
    out += &format!("# HELP {family} From the scheduled time to the final reply\n");
    out += &format!("# TYPE {family} summary\n");
    for quantile in [0.5, 0.9, 0.99, 0.999] {
        let value = snapshot.response.value_at_quantile(quantile) as f64 / 1e9;
        out += &format!("{family}{{quantile=\"{quantile}\"}} {value}\n");
    }
    let sum = snapshot.response.mean() * snapshot.response.len() as f64 / 1e9;
    out + &format!("{family}_sum {sum}\n{family}_count {}\n", snapshot.response.len())
}

/// One request a connection, any path; the thread ends with the process.
fn serve(address: SocketAddr) -> io::Result<Arc<Mutex<String>>> {
    let listener = TcpListener::bind(address).map_err(|error| {
        io::Error::new(error.kind(), format!("--metrics-addr {address}: {error}"))
    })?;
    // The port may have been left to the system.
    crate::complain!("metrics: http://{}/metrics", listener.local_addr()?);
    let page = Arc::new(Mutex::new(render(&Snapshot::default())));
    let shown = Arc::clone(&page);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(SCRAPE_WAIT));
            let _ = stream.set_write_timeout(Some(SCRAPE_WAIT));
            let _ = stream.read(&mut [0; 4096]);
            let body = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // Whoever asked may be gone.
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    Ok(page)
}
