//! The judge against suites of others and against bad input, with DNS of the tests' own.

mod agreement;
mod arc;
mod bad_input;
mod dkim;
mod dmarc;
mod gate;
mod opendkim;
mod plane;
mod spf_suite;
#[path = "../../../tests/support/servers/zone.rs"]
mod zone;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use mailrace_dns::{Dns, DnsOptions};
use mailrace_log::Verdict;
use mailrace_metrics::DnsMetrics;

use self::zone::{Responder, Zone};
use crate::{Envelope, Judge, Letter, Methods};

/// A judge, and the DNS that it asks.
struct Court {
    judge: Judge,
    dns: Responder,
    runtime: tokio::runtime::Runtime,
}

impl Court {
    fn new(zone: Zone) -> Self {
        let dns = Responder::start(zone);
        let attempt = Duration::from_millis(300);
        let options = DnsOptions { attempt, retries: 0, ..DnsOptions::new(vec![dns.address]) };
        let judge = Judge::new(Dns::start(&options, DnsMetrics::new()).unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { judge, dns, runtime }
    }

    fn judge(&self, envelope: &Envelope<'_>, mail: &[u8], methods: Methods) -> Verdict {
        let letter = Letter::of(mail);
        let own = |domain: &str| domain == "ours.test";
        self.runtime.block_on(self.judge.judge(envelope, &letter, methods, &own))
    }
}

const NONE: Methods = Methods { spf: false, dkim: false, dmarc: false, arc: false, iprev: false };

fn envelope<'a>(client: IpAddr, helo: &'a str, mail_from: &'a str) -> Envelope<'a> {
    Envelope { client, helo, mail_from, receiver: "unknown", authenticated: false }
}

/// What `tests/support/servers/suites.sh` fetches; `None`: it did not, which CI does not allow.
fn suite(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers/suites");
    let path = root.join(path);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", path.display());
    eprintln!("skipped: {} is missing: run tests/support/servers/suites.sh", path.display());
    None
}
