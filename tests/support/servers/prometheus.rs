//! A Prometheus that scrapes one address.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::{eventually, machine, ports::free_address};

pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Keeps its files in `dir`; scrapes `target` once in so many milliseconds.
    pub(crate) fn start(dir: &Path, target: SocketAddr, millis: u32) -> Self {
        Self::start_with(dir, target, millis, &[])
    }

    /// As [`Prometheus::start`], with more flags.
    pub(crate) fn start_with(dir: &Path, target: SocketAddr, millis: u32, flags: &[&str]) -> Self {
        let config = dir.join("prometheus.yml");
        let text = format!(
            "global:\n  scrape_interval: {millis}ms\n  scrape_timeout: {millis}ms\nscrape_configs:\n\
             - job_name: mailrace\n  static_configs:\n  - targets: ['{target}']\n"
        );
        fs::write(&config, text).unwrap();
        let address = free_address();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: the call is one system call.
        unsafe { command.pre_exec(machine::die_with_parent) };
        let prometheus = Self { child: command.spawn().unwrap(), address };
        eventually("Prometheus is ready", Duration::from_secs(60), || {
            prometheus.get("/-/ready").is_some_and(|answer| answer.contains(" 200 "))
        });
        prometheus
    }

    /// The values of an instant query.
    pub(crate) fn values(&self, query: &str) -> Vec<f64> {
        let query: String = query.bytes().map(|octet| format!("%{octet:02x}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={query}")).expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        let answer: serde_json::Value = serde_json::from_str(body).expect("JSON");
        let result = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let value = |series: &serde_json::Value| series["value"][1].as_str().unwrap().parse();
        result.iter().map(|series| value(series).unwrap()).collect()
    }

    /// The answer to a request, header and all; `None`: it could not be asked.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
