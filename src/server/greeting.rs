//! What a server that has started prints for people and logs.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
};

use super::{
    listeners::{Bound, Place},
    revision::revision,
};
use crate::{
    config::{Config, DEFAULT_DIR, DEFAULT_LISTEN, plural},
    log::{DataDir, SyncPolicy},
    policy::Accept,
    smtp,
};

pub(super) fn greet(
    config: &Config,
    data: &DataDir,
    shards: usize,
    listeners: &[Bound],
    admin: Option<SocketAddr>,
) {
    let names = listeners.iter().map(|at| format!("{} {}", at.name, at.place));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        shards,
        listeners = names.collect::<Vec<_>>().join(", "),
        dir = %data.path.display(),
        sync = config.log.sync.name(),
        "started"
    );
    let mut out = io::stdout().lock();
    let shards = plural(shards as u64, "shard");
    let _ = writeln!(
        out,
        "mailrace {} ({})   {shards}   io_uring ok   sync={}   data {}{}",
        env!("CARGO_PKG_VERSION"),
        revision(),
        config.log.sync.name(),
        data.path.display(),
        if data.fresh { " (new)" } else { "" },
    );
    for Bound { place, smtp, accept, .. } in listeners {
        let tls = match smtp.tls {
            smtp::TlsPolicy::Off => "",
            smtp::TlsPolicy::Offered => ", STARTTLS",
            smtp::TlsPolicy::Required => ", STARTTLS required",
            smtp::TlsPolicy::Implicit => ", implicit TLS",
        };
        let spoken = match smtp.protocol {
            smtp::Protocol::Lmtp => "lmtp",
            smtp::Protocol::Smtp | smtp::Protocol::Refuse => "smtp",
        };
        let what = match (accept, config.file()) {
            _ if smtp.protocol == smtp::Protocol::Refuse => "refuses mail (521)".to_owned(),
            (Some(accept), _) => whose_mail(accept),
            (None, Some(_)) => "any recipient accepted".to_owned(),
            (None, None) => {
                "any recipient accepted (no config file: development defaults)".to_owned()
            }
        };
        let _ = writeln!(out, "  {spoken}    {place}             {what}{tls}");
    }
    if let Some(admin) = admin {
        let _ = writeln!(out, "  admin   http://{admin}/     /metrics, /healthz, /readyz");
    }
    let first = listeners.iter().find_map(|at| match (&at.place, at.smtp.protocol) {
        (Place::Tcp(address), smtp::Protocol::Smtp) => Some(address),
        _ => None,
    });
    let mut next = "Next:";
    let mut tell = |command: String, what: &str| {
        let _ = writeln!(out, "{next:<7} {command:<55} {what}");
        next = "";
    };
    if let Some(address) = first {
        tell(format!("swaks --server {address} --to you@example.test"), "send one message");
    }
    let dir = data.path.display();
    let tail = match &config.log.dir {
        dir if dir == Path::new(DEFAULT_DIR) => "mailrace log tail -f".to_owned(),
        _ => format!("mailrace log --dir {dir} tail -f"),
    };
    tell(tail, "watch it arrive");
    if let Some(address) = first {
        let bench = match address.to_string().as_str() {
            DEFAULT_LISTEN => "mailrace bench".to_owned(),
            address => format!("mailrace bench smtp://{address}"),
        };
        tell(bench, "10 s load test against this server");
    }
    if config.file().is_none() {
        let init = "mailrace config init > mailrace.toml";
        let _ = writeln!(out, "        {init:<55} start a real configuration");
    }
    if config.log.sync == SyncPolicy::None {
        let _ = writeln!(out, "NOT DURABLE: log.sync = \"none\"; a crash loses acknowledged mail");
    }
    let _ = out.flush();
}

/// `mail for 2 domains, 10 recipients`
fn whose_mail(accept: &Accept) -> String {
    let count = |number: usize, what| plural(number as u64, what);
    let domains = accept.domains().map(|number| count(number, "domain"));
    let recipients = accept.recipients().map(|number| count(number, "recipient"));
    match (domains, recipients) {
        (None, None) => "any recipient accepted".to_owned(),
        (None, Some(recipients)) => format!("mail for {recipients}"),
        (Some(domains), None) => format!("mail for {domains}, any recipient"),
        (Some(domains), Some(recipients)) => format!("mail for {domains}, {recipients}"),
    }
}
