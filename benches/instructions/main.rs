//! Does a message take more instructions than before, in the protocol core and in the log's appender?
//!
//! ```text
//! cargo run --release -p mailrace-instructions               # compare with the baseline
//! cargo run --release -p mailrace-instructions -- --accept   # make what was counted the baseline
//! ```
//!
//! valgrind's callgrind counts the instructions of each case in two runs of different length; the
//! difference, divided by the messages between them, is the figure: what the start costs is left out.
//! `baseline.txt` has the accepted figures and the compiler they are of. More than 3 % above is a failure.
//!
//! The count is the same on each CPU with AVX2: valgrind shows every program the same CPU (no AVX-512, no
//! VPCLMULQDQ), by which the scanner, the checksums and libc choose their code. On other CPUs, and with
//! another compiler, nothing is compared: the program says so and ends with status 3. What it cannot see is
//! an instruction that stalls, such as a `memcmp` of no octets at an address that is not mapped: one
//! instruction, 80 ns.

#![allow(unreachable_pub, reason = "the harnesses are those of other crates")]

mod baseline;
#[path = "../callgrind.rs"]
mod callgrind;
mod cases;
mod log;
mod smtp;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use baseline::{Baseline, Verdict};

const FEW: u64 = 100;
const MANY: u64 = 600;

/// Exit status where there is nothing to compare with.
const NOT_COMPARED: u8 = 3;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--run", case, messages] => messages
            .parse()
            .map_err(|_| format!("{messages} is no number"))
            .and_then(|messages| cases::run(case, messages)),
        [] => match not_comparable() {
            Some(why) => {
                eprintln!("instructions: not compared: {why}");
                return ExitCode::from(NOT_COMPARED);
            }
            None => compare(),
        },
        ["--accept"] => count_all().and_then(|counted| write(&counted)),
        _ => Err("it takes --accept or nothing".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("instructions: {why}");
            ExitCode::FAILURE
        }
    }
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.txt")
}

fn write(counted: &Baseline) -> Result<(), String> {
    print!("{counted}");
    fs::write(file(), counted.to_string()).map_err(|error| format!("{}: {error}", file().display()))
}

fn read() -> Result<Baseline, String> {
    let text =
        fs::read_to_string(file()).map_err(|error| format!("{}: {error}", file().display()))?;
    text.parse()
}

/// Why the baseline says nothing about counts of here.
fn not_comparable() -> Option<String> {
    if !takes_part() {
        return Some("the baseline is of x86-64 CPUs with AVX2".to_owned());
    }
    // A file that cannot be read is an error of the comparison.
    let accepted = read().ok()?;
    let here = compiler();
    (accepted.compiler != here)
        .then(|| format!("the baseline is of {}, this is {here}", accepted.compiler))
}

/// The compiler's name and version; another one makes other instructions of the same source.
fn compiler() -> String {
    let told = Command::new("rustc").arg("--version").output();
    let told = told.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    told.ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "an unknown compiler".to_owned())
}

fn compare() -> Result<(), String> {
    let accepted = read()?;
    let counted = count_all()?;
    let Verdict { lines, fails } = accepted.judge(&counted);
    lines.iter().for_each(|line| println!("{line}"));
    match fails {
        false => Ok(()),
        true => Err("a message takes more instructions than the baseline says; if it has to be: \
                     cargo run --release -p mailrace-instructions -- --accept"
            .to_owned()),
    }
}

/// Whether this CPU has what valgrind passes on, and code for which is chosen then.
fn takes_part() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("pclmulqdq");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn count_all() -> Result<Baseline, String> {
    let mut counted = Baseline::of(compiler());
    for case in cases::NAMES {
        let each = (count(case, MANY)? - count(case, FEW)?) / (MANY - FEW);
        counted.set(case, each);
    }
    Ok(counted)
}

/// Instructions of a run.
fn count(case: &str, messages: u64) -> Result<u64, String> {
    callgrind::count(&["--run", case, &messages.to_string()])
}
