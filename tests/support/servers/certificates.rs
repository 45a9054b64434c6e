//! Certificates for servers and clients on this machine.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use mailrace::export::TlsOptions;

/// Signs certificates for this machine.
pub struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        // One of another name is another one to a client that looks for the issuer.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {}", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        valid_for_a_season(&mut params);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    /// Its certificate as `NAME.pem`.
    pub fn write(&self, dir: &Path, name: &str) {
        std::fs::write(dir.join(name).with_extension("pem"), self.certificate.pem()).unwrap();
    }

    /// What both sides need that verify each other: `ca`, `server`, `client`, and `other` for an
    /// authority that issued none of them.
    pub fn write_mutual(dir: &Path) {
        let authority = Self::new();
        authority.write(dir, "ca");
        authority.issue(dir, "server");
        authority.issue(dir, "client");
        Self::new().write(dir, "other");
    }

    /// For a client of what [`Authority::write_mutual`] wrote.
    pub fn mutual(dir: &Path) -> TlsOptions {
        let file = |name: &str| Some(dir.join(name));
        TlsOptions {
            enabled: true,
            ca_file: file("ca.pem"),
            cert_file: file("client.pem"),
            key_file: file("client.key"),
        }
    }

    /// A certificate and its key as `NAME.pem` and `NAME.key`.
    pub fn issue(&self, dir: &Path, name: &str) {
        self.issue_for(dir, name, &["localhost", "127.0.0.1"]);
    }

    /// The same for other names than those of this machine.
    pub fn issue_for(&self, dir: &Path, name: &str, names: &[&str]) {
        self.issue_until(dir, name, names, false);
    }

    /// One whose time was over years ago.
    pub fn issue_expired(&self, dir: &Path, name: &str) {
        self.issue_until(dir, name, &["localhost"], true);
    }

    fn issue_until(&self, dir: &Path, name: &str, names: &[&str], expired: bool) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        valid_for_a_season(&mut params);
        if expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        // OpenSSL takes a certificate whose issuer has its own name for one that signed itself.
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(dir.join(name).with_extension("pem"), certificate.pem()).unwrap();
        std::fs::write(dir.join(name).with_extension("key"), key.serialize_pem()).unwrap();
    }
}

/// rcgen's own default is for thousands of years, which scanners rightly frown upon.
fn valid_for_a_season(params: &mut rcgen::CertificateParams) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let day = Duration::from_secs(86_400);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + (now - day);
    params.not_after = params.not_before + day * 90;
}
