//! The command line of a maxhost, and the host itself (`maxhost run`).

mod cli;
mod commands;
mod config;
mod context;
mod embedded_sdk;
mod files;
mod foundation;
mod key_files;
mod manifest;
mod mirror;
mod output;
mod render;
mod run;
mod strict_toml;
mod units;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ColorChoice, CommandFactory, FromArgMatches};
use maxhost_model::{Code, Problem};

use crate::cli::Cli;
use crate::context::Context;
use crate::output::Output;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Two providers of cryptography may be linked in; without a choice the first use of TLS would fail. An error means
    // that the choice was made already.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let parsed = Cli::command().color(color()).try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let context = Context { out: Output::new(&cli.global), global: cli.global };
    match commands::execute(&context, cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            context.out.problem(&problem);
            ExitCode::from(problem.class().exit_code())
        }
    }
}

/// Colours of help and usage. They are written when the options could not be parsed, so that these are looked for here.
fn color() -> ColorChoice {
    let words: Vec<OsString> = std::env::args_os().collect();
    let pairs = words.windows(2).filter(|pair| pair[0] == "--color").map(|pair| pair[1].to_string_lossy());
    let joined = words.iter().filter_map(|word| Some(word.to_str()?.strip_prefix("--color=")?.into()));
    match pairs.chain(joined).last().as_deref() {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
}

/// Help and version are answers; anything else is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // Nobody has parsed the options when parsing them failed.
    let out = Output::unparsed(std::env::args_os().any(|argument| argument == "--json"));
    if asked {
        let shown = error.print().and_then(|()| std::io::stdout().flush());
        return match output::written(shown) {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                out.problem(&problem);
                ExitCode::from(problem.class().exit_code())
            }
        };
    }
    if out.is_json() {
        let text = error.render().to_string();
        // What was wrong, which may be a list; usage and hints follow an empty line.
        let said: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let message = match error.kind() {
            // The text is the whole help, which does not say what was wrong.
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                "the command is incomplete: its last word is missing".to_owned()
            }
            _ => said.join(" ").trim_start_matches("error: ").to_owned(),
        };
        out.problem(&Problem::new(Code::Usage, message));
    } else {
        // Nothing is left to be told to whoever does not read standard error.
        let _gone = error.print();
    }
    ExitCode::from(Code::Usage.class().exit_code())
}
