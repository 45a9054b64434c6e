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
    let unreachable =
        |error: &dyn fmt::Display| ClientError::Unreachable(address, error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable(&error))?;
    crate::export::install_crypto();
    runtime.block_on(async {
        // Never by way of a proxy that the environment names.
        let client = reqwest::Client::builder().no_proxy().timeout(wait).build();
        let client = client.map_err(|error| unreachable(&error))?;
        let mut request = client.request(method, format!("http://{address}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|error| unreachable(&error.without_url()))?;
        let good = answer.status().is_success();
        let text = answer.text().await.map_err(|error| unreachable(&error.without_url()))?;
        if good { Ok(text) } else { Err(ClientError::Refused(text)) }
    })
}
