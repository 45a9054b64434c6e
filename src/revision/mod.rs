//! [`revision!`]: the commit that a program is built from.
//!
//! A build script could tell it as well, but Cargo runs one for a whole package: after each commit it
//! would compile the library again. What a macro reads is noted for the crate that calls it, here the
//! program's few lines.

use std::{env, fmt::Write, path::Path, process::Command};

use proc_macro::TokenStream;

/// The first seven digits of the commit's name, as a string literal; `unknown` outside of a git
/// checkout.
#[proc_macro]
pub fn revision(_: TokenStream) -> TokenStream {
    let dir = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let revision = git(&dir, &["rev-parse", "--short=7", "HEAD"]);
    // The log of HEAD grows with each commit and checkout. Where none is kept, the branch's file changes.
    let branch = git(&dir, &["symbolic-ref", "--quiet", "HEAD"]);
    let files = ["HEAD", "logs/HEAD"].into_iter().chain(branch.as_deref());
    let mut block = "{".to_owned();
    for file in files.filter_map(|file| git(&dir, &["rev-parse", "--git-path", file])) {
        let path = Path::new(&dir).join(file);
        if path.is_file() {
            // Names the file as one that this crate is built from.
            let _ = write!(block, "const _: &[u8] = include_bytes!({path:?});");
        }
    }
    let _ = write!(block, "{:?}}}", revision.as_deref().unwrap_or("unknown"));
    block.parse().expect("it is a block of Rust")
}

/// What git prints, without the end of the line.
fn git(dir: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(dir).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}
