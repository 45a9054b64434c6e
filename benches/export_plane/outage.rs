//! A sink that is down, seen from the SMTP side.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::median::median;

const ROUNDS: usize = 5;

/// Well below what a core takes, so that both meet the same load.
const RATE: &str = "10k";

struct Run {
    /// Microseconds of the server's CPU a message.
    cpu: f64,
    /// Response time, seconds.
    p99: f64,
}

pub fn run() {
    let room = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let programs = room.parent().unwrap().join("release");
    if !programs.join("mailrace").exists() {
        println!("outage: {} is missing: cargo build --release", programs.display());
        return;
    }
    // A port that refuses: bound for a moment, then free.
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("export.0.url=http://{refused}/");
    let down = ["export.0.name=down", "export.0.type=webhook", url.as_str()];
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(one(&programs, room, &[]));
        with.push(one(&programs, room, &down));
    }
    let of = |runs: &[Run], what: fn(&Run) -> f64| median(runs.iter().map(what));
    let (cpu, cpu_down) = (of(&without, |run| run.cpu), of(&with, |run| run.cpu));
    let (p99, p99_down) = (of(&without, |run| run.p99), of(&with, |run| run.p99));
    println!("outage     no exporter   sink down   ratio   (medians of {ROUNDS}, {RATE}/s)");
    println!("CPU        {cpu:>8.2} us {cpu_down:>8.2} us   {:>5.2}", cpu_down / cpu);
    let (p99, p99_down) = (p99 * 1e3, p99_down * 1e3);
    println!("reply p99  {p99:>8.2} ms {p99_down:>8.2} ms   {:>5.2}", p99_down / p99);
}

struct Server {
    child: Child,
    smtp: String,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pinned(core: &str, program: PathBuf) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}

fn start(programs: &Path, room: &Path, settings: &[&str]) -> Server {
    let dir = tempfile::Builder::new().prefix("outage").tempdir_in(room).unwrap();
    let mut command = pinned("0", programs.join("mailrace"));
    command.arg("serve").args(["--set", "server.shards=1"]);
    command.args(["--set", "listener.0.listen=127.0.0.1:0"]);
    command.args(["--set", "server.admin.listen=127.0.0.1:0", "--set"]);
    command.arg(format!("log.dir={}", dir.path().display()));
    for setting in settings {
        command.args(["--set", setting]);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let smtp = lines.map_while(Result::ok).find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("smtp")).then(|| words.next().unwrap_or_default().to_owned())
    });
    Server { child, smtp: smtp.expect("it listens"), _dir: dir }
}

fn one(programs: &Path, room: &Path, settings: &[&str]) -> Run {
    let server = start(programs, room, settings);
    let load = |time: &str| {
        let mut command = pinned("1", programs.join("mailrace"));
        command.arg("bench").arg(format!("smtp://{}", server.smtp));
        command.args(["-r", RATE, "-z", time, "--warmup", "0s", "--size", "4k", "--chunking"]);
        command.args(["--no-tui", "--format", "json"]);
        let output = command.stderr(Stdio::null()).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("the loader's report")
    };
    load("1s");
    let before = cpu_us(&server.child);
    let report = load("5s");
    let cpu = cpu_us(&server.child) - before;
    let acked = report["totals"]["acked"].as_f64().expect("acked");
    let p99 = report["latency"]["response"]["p99"].as_f64().expect("p99");
    Run { cpu: cpu / acked, p99 }
}

/// User and system time of a process, in microseconds.
fn cpu_us(child: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks * 1e4
}
