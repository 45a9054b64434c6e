//! `mailrace log adopt`

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use clap::Args;

use super::EXIT_FAILED;
use crate::log::{
    DirLock, Evidence, Log, Manifest, ReadError, hex, read_node, shard_dir, write_node,
};

#[derive(Args, Debug)]
pub(super) struct AdoptArgs {
    /// Node id, if the segments do not agree on one: 12 hexadecimal digits
    #[arg(long, value_name = "ID", value_parser = parse_node)]
    node: Option<[u8; 6]>,
    /// Also record missing segments as permanently lost: startup and `log verify` no longer report
    /// them
    #[arg(long)]
    accept_loss: bool,
}

fn parse_node(text: &str) -> Result<[u8; 6], String> {
    crate::log::parse_node(text)
        .ok_or_else(|| "a node's id has 12 hexadecimal digits, such as 7f3a9c21b04e".to_owned())
}

pub(super) fn run(
    dir: &Path,
    args: &AdoptArgs,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    let _lock = DirLock::take(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            let what = format!("{} is not a mailrace data directory: {error}", dir.display());
            io::Error::new(error.kind(), what)
        }
        // It names the directory already.
        io::ErrorKind::WouldBlock => error,
        kind => io::Error::new(kind, format!("{}: {error}", dir.display())),
    })?;
    let evidence = Evidence::gather(dir)?;
    let written = match read_node(dir) {
        Ok(node) => Some(node),
        Err(ReadError::NodeDamaged { .. }) => None,
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let agreed = evidence.node().or(written.filter(|node| evidence.nodes.contains_key(node)));
    let Some(node) = args.node.or(agreed) else {
        let (dir, list) = (dir.display(), evidence.list());
        crate::cli::complain!(
            "mailrace: the segments in {dir} do not agree on a node: {list}; choose one with --node"
        );
        return Ok(ExitCode::from(EXIT_FAILED));
    };
    if !evidence.nodes.is_empty() && !evidence.nodes.contains_key(&node) {
        let (node, list) = (hex(node), evidence.list());
        let what = format!("--node {node}: no segment in {} has this id: {list}", dir.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let changed = written != Some(node);
    if changed {
        write_node(dir, node)?;
    }
    let lost = if args.accept_loss { accept(dir)? } else { Vec::new() };
    if json {
        let line = serde_json::json!({
            "node": hex(node),
            "written": changed,
            "segments": evidence.nodes.get(&node).copied().unwrap_or(0),
            "accepted": lost,
        });
        writeln!(out, "{line}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let (node, list) = (hex(node), evidence.list());
    match changed {
        true => writeln!(out, "node {node}: written; found in the log: {list}")?,
        false => {
            let rest = if lost.is_empty() { "; nothing to do" } else { "" };
            writeln!(out, "node {node}: already the id of the log{rest}")?;
        }
    }
    for fault in lost {
        writeln!(out, "accepted: {fault}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Records what is missing as deleted.
fn accept(dir: &Path) -> io::Result<Vec<String>> {
    let log = Log::open(dir)?;
    let mut accepted = Vec::new();
    for shard in log.shards()? {
        // What has no seal yet is judged by the next start.
        let gaps = log.gaps(shard)?;
        let numbers: Vec<u64> = gaps.iter().map(|gap| gap.number).collect();
        if !numbers.is_empty() {
            Manifest::open(&shard_dir(dir, shard).join("manifest"))?.remove(&numbers)?;
        }
        accepted.extend(gaps.iter().map(|gap| {
            let (number, first, end) = (gap.number, gap.first_offset, gap.end_offset);
            format!("shard {shard}, segment {number}: records {first}..{end} are lost")
        }));
    }
    Ok(accepted)
}
