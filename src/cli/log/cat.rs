//! `mailrace log cat`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;

use super::{
    EXIT_FAILED,
    format::{Format, Named, Template, help},
    select::{Selection, Span, count},
};
use crate::{
    cli::progress::{Progress, Unit, stdout_is_file},
    log::Log,
};

#[derive(Args, Debug)]
#[command(after_help = help())]
pub(super) struct CatArgs {
    #[command(flatten)]
    selection: Selection,
    /// At most this many records
    #[arg(short = 'n', long = "count", value_name = "COUNT")]
    count: Option<u64>,
    /// How a record is printed
    #[arg(long, value_enum, conflicts_with = "template")]
    format: Option<Named>,
    /// A template, for example '%s:%o %t %F %R %z\n'
    #[arg(short = 'f', long, value_name = "TEMPLATE")]
    template: Option<Template>,
}

pub(super) fn run(
    log: &Log,
    args: &CatArgs,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    let format = Format::new(args.format, args.template.as_ref(), json);
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut code = ExitCode::SUCCESS;
    let spans = args.selection.spans(log)?;
    let progress =
        Progress::new("reading", Unit::Records, || count(log, &spans), json || !stdout_is_file());
    for Span { shard, from, to } in spans {
        let damage = log.walk(shard, from, to, &mut |offset, record| {
            if left == 0 {
                return Ok(false);
            }
            progress.add(1);
            if args.selection.filter.matches(record) {
                left -= 1;
                format.print(log, shard, offset, record, out)?;
            }
            Ok(left > 0)
        })?;
        for (segment, end) in damage {
            if progress.aside(|| super::is_corrupt(shard, segment, &end)) {
                code = ExitCode::from(EXIT_FAILED);
            }
        }
        if left == 0 {
            break;
        }
    }
    Ok(code)
}
