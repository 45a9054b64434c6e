//! The client of the admin API, for the command line.

use std::{fmt, net::SocketAddr, time::Duration};

/// A reload reads files and waits for requests of exporters.
const WAIT: Duration = Duration::from_secs(60);

/// Why there was no good answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody answers there.
    Unreachable(SocketAddr, String),
    /// The server's own words.
    Refused(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(address, error) => {
                write!(f, "no answer from http://{address} (server.admin.listen): {error}")
            }
            Self::Refused(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ClientError {}

/// Sends a POST without a body to the admin plane of a running server; its answer.
///
/// # Errors
/// [`ClientError`], also where the answer is none of 2xx.
pub fn post(address: SocketAddr, token: Option<&str>, path: &str) -> Result<String, ClientError> {
    request(reqwest::Method::POST, address, token, path, WAIT)
}

/// Gets a page of the admin plane; waits so long.
///
/// # Errors
/// [`ClientError`], also where the answer is none of 2xx.
pub fn get(
    address: SocketAddr,
    token: Option<&str>,
    path: &str,
    wait: Duration,
) -> Result<String, ClientError> {
    request(reqwest::Method::GET, address, token, path, wait)
}

fn request(
    method: reqwest::Method,
    address: SocketAddr,
    token: Option<&str>,
    path: &str,
    wait: Duration,
) -> Result<String, ClientError> {
    let client = reqwest::Client::builder().timeout(wait);
    exchange(client, method, address, token, path, async |answer| {
        answer.text().await.map_err(|error| unreachable(address, error.without_url()))
    })
}

fn unreachable(address: SocketAddr, error: impl fmt::Display) -> ClientError {
    ClientError::Unreachable(address, error.to_string())
}

/// One request, on a runtime of its own; `read` takes what it wants of a good answer.
fn exchange<T>(
    client: reqwest::ClientBuilder,
    method: reqwest::Method,
    address: SocketAddr,
    token: Option<&str>,
    path: &str,
    read: impl AsyncFnOnce(reqwest::Response) -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| unreachable(address, error))?;
    crate::tls::install_crypto();
    runtime.block_on(async {
        // Never by way of a proxy that the environment names.
        let client = client.no_proxy().build().map_err(|error| unreachable(address, error))?;
        let mut request = client.request(method, format!("http://{address}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let lost = |error: reqwest::Error| unreachable(address, error.without_url());
        let answer = request.send().await.map_err(lost)?;
        if answer.status().is_success() {
            return read(answer).await;
        }
        Err(ClientError::Refused(answer.text().await.map_err(lost)?))
    })
}

/// Reads an answer of lines for as long as it goes on: `take` gets each until it returns false.
///
/// # Errors
/// [`ClientError`], also where the answer is none of 2xx, or nothing comes for a while.
pub fn watch_lines(
    address: SocketAddr,
    token: Option<&str>,
    path: &str,
    mut take: impl FnMut(&str) -> bool,
) -> Result<(), ClientError> {
    let client = reqwest::Client::builder().connect_timeout(SILENCE).read_timeout(SILENCE);
    exchange(client, reqwest::Method::GET, address, token, path, async |mut answer| {
        let mut pending = Vec::new();
        while let Some(chunk) =
            answer.chunk().await.map_err(|error| unreachable(address, error.without_url()))?
        {
            pending.extend_from_slice(&chunk);
            while let Some(end) = memchr::memchr(b'\n', &pending) {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if !take(line.trim_end_matches('\n')) {
                    return Ok(());
                }
            }
            if pending.len() > EVENT_BYTES_MAX {
                return Err(unreachable(address, "the answer has no lines"));
            }
        }
        Ok(())
    })
}

/// Reads `/v1/live` of a running server: `take` gets each event's name and data until it returns false
/// or the server ends the stream.
///
/// # Errors
/// [`ClientError`], also where the answer is none of 2xx or the connection breaks.
pub fn watch_live(
    address: SocketAddr,
    token: Option<&str>,
    mut take: impl FnMut(&str, serde_json::Value) -> bool,
) -> Result<(), ClientError> {
    let client = reqwest::Client::builder().connect_timeout(SILENCE).read_timeout(SILENCE);
    exchange(client, reqwest::Method::GET, address, token, "/v1/live", async |mut answer| {
        let mut pending = Vec::new();
        while let Some(chunk) =
            answer.chunk().await.map_err(|error| unreachable(address, error.without_url()))?
        {
            pending.extend_from_slice(&chunk);
            while let Some(end) = memchr::memmem::find(&pending, b"\n\n") {
                let event: Vec<u8> = pending.drain(..end + 2).collect();
                if let Some((name, data)) = parse_event(&event)
                    && !take(name, data)
                {
                    return Ok(());
                }
            }
            if pending.len() > EVENT_BYTES_MAX {
                return Err(unreachable(address, "the answer is not a stream of samples"));
            }
        }
        Ok(())
    })
}

/// A server that sends nothing for so long is gone: samples come each second.
const SILENCE: Duration = Duration::from_secs(5);

/// Longest event: 15 minutes of samples have about 200 KB.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// Name and data of a server-sent event.
fn parse_event(event: &[u8]) -> Option<(&str, serde_json::Value)> {
    let text = std::str::from_utf8(event).ok()?;
    let (name, data) = text.strip_prefix("event: ")?.split_once("\ndata: ")?;
    Some((name, serde_json::from_str(data.trim_end()).ok()?))
}
