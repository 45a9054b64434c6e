//! Which store is meant, and how to reach it.

use std::{path::PathBuf, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, Checksum, S3ConditionalPut},
};

use super::error;
use crate::{SinkError, StorePlace};
use mailrace_tls::{install_crypto, read_secret};

/// Longest until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest that one request may take: 8 MiB at 2 Mbit/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(32);

/// Where objects are put.
pub(super) enum Bucket {
    /// A local folder. Its files are written by the code of `files`, for their modes' sake.
    Folder(PathBuf),
    /// Anything with an API.
    Remote(Box<dyn ObjectStore>),
}

/// Makes the client; no connection yet.
pub(super) fn connect(place: &StorePlace) -> Result<Bucket, SinkError> {
    match place {
        StorePlace::Folder(dir) => Ok(Bucket::Folder(dir.clone())),
        StorePlace::S3 { bucket, endpoint, region, access_key, secret_key_file } => {
            install_crypto();
            // Without keys: those of the environment, or of the machine's role.
            let mut s3 = match access_key.as_str() {
                "" => AmazonS3Builder::from_env(),
                key => AmazonS3Builder::new().with_access_key_id(key),
            };
            if let Some(file) = secret_key_file {
                s3 = s3.with_secret_access_key(read_secret(file)?);
            }
            if !endpoint.is_empty() {
                s3 = s3.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
            }
            if !region.is_empty() {
                s3 = s3.with_region(region);
            }
            let client = ClientOptions::new()
                .with_allow_http(endpoint.starts_with("http://"))
                .with_connect_timeout(CONNECT_TIMEOUT)
                .with_timeout(REQUEST_TIMEOUT);
            let store = s3
                .with_bucket_name(bucket)
                .with_checksum_algorithm(Checksum::SHA256)
                .with_conditional_put(S3ConditionalPut::ETagMatch)
                .with_client_options(client)
                .with_retry(retry())
                .build();
            Ok(Bucket::Remote(Box::new(store.map_err(error::classify)?)))
        }
    }
}

/// The exporter has its own patience. One more attempt covers a connection that was kept too long.
fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_millis(200),
        ..BackoffConfig::default()
    };
    RetryConfig { backoff, max_retries: 1, retry_timeout: Duration::from_secs(10) }
}
