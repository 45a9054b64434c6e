//! From settings to the checked configuration: what each key means, and what keys require of each
//! other.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::options::{DiskLow, ListenerConfig, LogConfig, ServerConfig};
use super::raw::Settings;
use super::value::Amount;
use super::{
    Config, ConfigErrors, Machine, Source, address, exports, exposure, limits, listeners, overlap,
    promises, units,
};
use crate::{log::Rules, smtp::TlsPolicy, tls::Files};

pub(super) fn check(
    mut settings: Settings,
    machine: &Machine,
    hostname: &str,
) -> Result<Config, ConfigErrors> {
    let s = &mut settings;
    let server = ServerConfig {
        hostname: s.parse("server.hostname", |text| match text {
            "" => Ok(hostname.to_owned()),
            _ => units::hostname(text),
        }),
        shards: s.integer("server.shards").unwrap_or(machine.cpus.len()).max(1),
        cpus: if machine.cpus.is_empty() { vec![0] } else { machine.cpus.clone() },
        admin_listen: admin_listen(s),
        admin_token_file: s.file("server.admin.token_file"),
        admin_hosts: s.list("server.admin.hosts", |text| {
            units::hostname(text).map(|name| name.to_lowercase())
        }),
        drain_lead: s.duration("server.drain.lead").unwrap_or_default(),
        log_level: s.choice("server.log_level").to_owned(),
        log_format: s.choose("server.log_format"),
        dns_servers: s.list("server.dns.servers", address::dns_server),
        tls: files(s, "server.tls"),
    };
    let log = log(s);
    let mut warnings = Vec::new();
    let limits = limits::limits(s, machine, &mut warnings);
    let listeners: Vec<ListenerConfig> =
        (0..s.listener_count()).map(|index| listeners::listener(s, index)).collect();
    check_listeners(s, &listeners, limits.session.commit_wait);
    let context = exports::Context {
        hostname: &server.hostname,
        admin: server.admin_listen,
        listeners: listeners.iter().map(|listener| listener.name.as_str()).collect(),
        tags: listeners.iter().any(|listener| listener.authserv_id.is_some()),
    };
    let exports = exports::exports(s, &context);
    promises::check(s, &listeners, &exports);
    exposure::check(s, &listeners, &exports);
    overlap::check(s, &listeners, server.admin_listen);
    let settings = settings.finish()?;
    Ok(Config {
        server,
        log,
        limits,
        listeners,
        exports,
        file: None,
        settings,
        warnings,
        source: Source::default(),
    })
}

/// What listeners require of each other and of the server.
fn check_listeners(s: &mut Settings, listeners: &[ListenerConfig], commit_wait: Duration) {
    for (index, listener) in listeners.iter().enumerate() {
        let demanded = matches!(listener.tls_mode, TlsPolicy::Required | TlsPolicy::Implicit);
        let written = s.is_written("server.tls.cert_file")
            || s.is_written(&format!("listener.{index}.tls.cert_file"));
        if demanded && !written {
            let message = "a certificate is needed: server.tls.cert_file and server.tls.key_file";
            s.blame(&format!("listener.{index}.tls_mode"), message.to_owned());
        }
        if listener.tls_client_ca.is_some() && (listener.tls_mode == TlsPolicy::Off || !written) {
            let message = "client certificates need TLS: set a server certificate and tls_mode";
            s.blame(&format!("listener.{index}.tls.client_ca_file"), message.to_owned());
        }
        if !listener.auth.mechanisms.is_empty() && listener.tls_mode != TlsPolicy::Off && !written {
            let message = "AUTH is offered only over TLS, which needs server.tls.cert_file and \
                           server.tls.key_file";
            s.blame(&format!("listener.{index}.auth.mechanisms"), message.to_owned());
        }
        if listener.reject.as_ref().is_some_and(|reject| reject.deadline >= commit_wait) {
            let message = "must be less than limits.timeout.commit, which ends the wait with 451";
            s.blame(&format!("listener.{index}.verify.deadline"), message.to_owned());
        }
        if listeners.iter().take(index).any(|earlier| earlier.name == listener.name) {
            s.blame(&format!("listener.{index}.name"), "another listener has this name".to_owned());
        }
    }
}

pub(super) fn admin_listen(s: &mut Settings) -> Option<SocketAddr> {
    let has_token = s.is_written("server.admin.token_file");
    s.parse("server.admin.listen", |text| match text {
        "" => Ok(None),
        _ => admin_address(text, has_token).map(Some),
    })
}

pub(super) fn log_dir(s: &mut Settings) -> PathBuf {
    s.parse("log.dir", |text| match text {
        "" => Err("a directory is needed".to_owned()),
        _ => Ok(PathBuf::from(text)),
    })
}

fn log(s: &mut Settings) -> LogConfig {
    LogConfig {
        dir: log_dir(s),
        sync: s.choose("log.sync"),
        segment_size: s.size("log.segment_size").unwrap_or_default(),
        abort_on_io_error: s.choice("log.on_io_error") == "abort",
        retention: Rules {
            age: s.duration("log.retention.age"),
            size: s.size("log.retention.size"),
            require_consumed: s.boolean("log.retention.require_consumed"),
            retain_after_export: s
                .duration("log.retention.retain_after_export")
                .unwrap_or_default(),
            hold: s.boolean("log.retention.hold"),
        },
        refusals_size: s.size("log.refusals.size"),
        disk_low: match s.amount("log.disk.low") {
            Amount::Percent(percent) => DiskLow::Percent(u8::try_from(percent).unwrap_or(99)),
            Amount::Bytes(bytes) => DiskLow::Bytes(bytes),
            Amount::Word => DiskLow::Bytes(0),
        },
    }
}

/// A certificate with its key.
pub(super) fn files(settings: &mut Settings, table: &str) -> Option<Files> {
    let [cert, key] = ["cert_file", "key_file"].map(|field| format!("{table}.{field}"));
    for (one, other) in [(&cert, &key), (&key, &cert)] {
        if settings.is_written(one) && !settings.is_written(other) {
            settings.blame(one, format!("requires {other} as well"));
        }
    }
    let (cert_file, key_file) = (settings.file(&cert), settings.file(&key));
    cert_file.zip(key_file).map(|(cert_file, key_file)| Files { cert_file, key_file })
}

fn admin_address(text: &str, has_token: bool) -> Result<SocketAddr, String> {
    let address = address::listen(text)?;
    if has_token || address.ip().to_canonical().is_loopback() {
        return Ok(address);
    }
    Err(format!("{text} listens beyond loopback: server.admin.token_file is needed for that"))
}
