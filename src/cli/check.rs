//! `mailrace check`

use super::{ConfigArgs, EXIT_CONFIG};
use crate::config::{Config, ConfigErrors, Origin};
use clap::Args;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::process::ExitCode;

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print every key with its value and origin
    #[arg(long)]
    effective: bool,
    /// Print JSON, including mistakes
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let loaded = args.config.load_or_errors().and_then(|config| {
        config.load_accept()?;
        config.load_senders()?;
        config.open_users()?;
        config.admin_token()?;
        Ok(config)
    });
    let code = if loaded.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIG) };
    let printed = match (&loaded, args.json) {
        (Ok(config), false) => print_text(config, args.effective),
        (Err(errors), false) => {
            super::print_errors(errors);
            Ok(())
        }
        (loaded, true) => print_json(loaded, args.effective),
    };
    super::finish(printed, code)
}

fn print_text(config: &Config, effective: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for warning in config.warnings() {
        crate::cli::complain!("mailrace: warning: {warning}");
    }
    if !effective {
        let file = config.file().map_or("no file".into(), |file| file.display().to_string());
        return writeln!(out, "configuration ok ({file})");
    }
    for setting in config.settings() {
        let assignment = format!("{} = {}", setting.key, setting.value);
        writeln!(out, "{assignment:<48} # {}", setting.origin)?;
    }
    Ok(())
}

fn print_json(loaded: &Result<Config, ConfigErrors>, effective: bool) -> io::Result<()> {
    let told = match loaded {
        Ok(config) => {
            let file = config.file().map(|file| file.display().to_string());
            let mut told = json!({
                "ok": true, "file": file, "errors": [], "warnings": config.warnings(),
            });
            if effective {
                let settings = config.settings().iter().map(|setting| {
                    let value = setting.value.to_json();
                    with_origin(json!({"key": setting.key, "value": value}), &setting.origin)
                });
                told["settings"] = settings.collect();
            }
            told
        }
        Err(errors) => {
            let errors = errors.0.iter().map(|error| {
                let told = json!({"key": error.key, "message": error.message});
                with_origin(told, &error.origin)
            });
            json!({"ok": false, "errors": errors.collect::<Vec<_>>()})
        }
    };
    writeln!(io::stdout(), "{told}")
}

/// `origin` for people; `file` and `line` for programs, where it is a file.
fn with_origin(mut told: Value, origin: &Origin) -> Value {
    told["origin"] = origin.to_string().into();
    if let Origin::File { path, line } = origin {
        told["file"] = path.display().to_string().into();
        if *line > 0 {
            told["line"] = (*line).into();
        }
    }
    told
}
