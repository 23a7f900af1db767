//! What may be typed. Each noun brings its own arguments; here they meet, and what clap finds wrong
//! becomes one line and exit code 1.

use std::ffi::OsString;
use std::io::IsTerminal;

use clap::error::{ContextKind, ErrorKind};
use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::{agents, cert, cluster, completions, config, context, controller, dev, task};

const EXAMPLES: &str = "\
Examples:
  quorate dev                                a whole cluster on this machine
  quorate task run -- echo 'hello, quorum'   run a command on it, and wait
  quorate cluster status                     who leads, and how far each one is

Every command has --help with examples of its own.
Exit codes: 0 ok, 1 usage or refused, 2 unhealthy or not found, 3 the task failed,
4 no leader or timed out (the outcome is unknown), 130 interrupted.";

/// Runs work on machines that you own, and survives the loss of some of them
#[derive(Debug, Parser)]
#[command(name = "quorate", version, after_help = EXAMPLES, subcommand_required = true)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub noun: Noun,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// How to print the answer; wide: more columns, quiet: ids alone
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "table"
    )]
    #[arg(env = "QUORATE_OUTPUT", hide_env_values = true)]
    pub output: Format,
    /// Print without colours (as does the variable NO_COLOR)
    #[arg(long, global = true)]
    pub no_color: bool,
    /// Do not ask before something that can't be undone
    #[arg(long, global = true)]
    pub yes: bool,
}

impl Global {
    /// Whether colours may be used on stderr.
    pub fn coloured(&self) -> bool {
        !self.no_color && std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal()
    }
}

#[derive(Debug, Subcommand)]
pub enum Noun {
    Dev(dev::DevArgs),
    Task(task::TaskArgs),
    Agent(agents::AgentArgs),
    Cluster(cluster::ClusterArgs),
    Controller(controller::ControllerArgs),
    Context(context::ContextArgs),
    Cert(cert::CertArgs),
    Config(config::ConfigArgs),
    /// Print the version
    #[command(after_help = "Example:\n  quorate version -o json")]
    Version,
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
}

/// The whole command, for completions and manual pages too.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses, or has said what is wrong (or what was asked for: help, version) and gives the exit code.
pub fn parse(given: &[OsString]) -> std::result::Result<Cli, Exit> {
    let colourless = given
        .iter()
        .take_while(|arg| *arg != "--")
        .any(|arg| arg == "--no-color");
    let colour = if colourless {
        ColorChoice::Never
    } else {
        ColorChoice::Auto
    };
    let parsed = command().color(colour).try_get_matches_from(given);
    parsed
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| explain(&error, given))
}

fn explain(error: &clap::Error, given: &[OsString]) -> Exit {
    let shown = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    if shown || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // A closed pipe is no reason to fail.
        let _unheard = error.print();
        return if shown { Exit::Ok } else { Exit::Refused };
    }
    let failure = usage(error, given);
    output::failure(&failure, format_of(given), std::io::stderr().is_terminal());
    failure.exit
}

/// One line from clap's several.
fn usage(error: &clap::Error, given: &[OsString]) -> Failure {
    let text = error.render().to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let mut message = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    // What is required stands in lines of its own, up to an empty one.
    for line in lines.by_ref().take_while(|line| !line.trim().is_empty()) {
        message = format!("{message} {}", line.trim());
    }
    let tips = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tip: "));
    let mut hints: Vec<String> = tips.map(str::to_owned).collect();
    let verb = error.get(ContextKind::InvalidSubcommand).is_none();
    hints.extend(separator(error, given));
    hints.push(format!("see `{} --help`", words(given, verb).join(" ")));
    Failure::usage(message.trim_end_matches(':'), hints.join("; "))
}

/// What is to run stands behind `--`, which is easily forgotten.
fn separator(error: &clap::Error, given: &[OsString]) -> Option<String> {
    let unexpected = error.get(ContextKind::InvalidArg)?.to_string();
    let words = words(given, true);
    let runs = words
        .get(1..3)
        .is_some_and(|verb| verb == ["task", "run"] || verb == ["task", "submit"]);
    let bare = error.kind() == ErrorKind::UnknownArgument && !unexpected.starts_with('-');
    (runs && bare).then(|| {
        format!(
            "put `--` in front of the command: `{} -- {unexpected} …`",
            words.join(" ")
        )
    })
}

/// The leading words of a command line that are commands of ours: `quorate task run`.
fn words(given: &[OsString], whole: bool) -> Vec<String> {
    let mut at = command();
    let mut words = vec!["quorate".to_owned()];
    for word in given.iter().skip(1).filter_map(|word| word.to_str()) {
        if word == "--" || !whole && words.len() > 2 {
            break;
        }
        if let Some(next) = at.find_subcommand(word) {
            words.push(word.to_owned());
            at = next.clone();
        }
    }
    words
}

/// The format that was asked for, where the arguments as a whole could not be parsed.
fn format_of(given: &[OsString]) -> Format {
    let mut found = std::env::var("QUORATE_OUTPUT").ok();
    let texts: Vec<&str> = given
        .iter()
        .map(|arg| arg.to_str().unwrap_or_default())
        .collect();
    let ours = texts.split(|arg| *arg == "--").next().unwrap_or_default();
    for (at, arg) in ours.iter().enumerate() {
        if *arg == "-o" || *arg == "--output" {
            found = ours.get(at + 1).map(|value| (*value).to_owned());
        } else if let Some(value) = arg.strip_prefix("--output=").or(arg.strip_prefix("-o")) {
            found = Some(value.trim_start_matches('=').to_owned());
        }
    }
    found
        .and_then(|name| <Format as clap::ValueEnum>::from_str(&name, false).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{Cli, Format, command, format_of, usage};
    use clap::Parser;

    fn given(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_arguments_fit_together() {
        command().debug_assert();
    }

    #[test]
    fn every_command_has_a_word_about_it_and_an_example() {
        fn check(command: &clap::Command, path: &str) {
            assert!(
                command.get_about().is_some(),
                "{path} says nothing about itself"
            );
            for next in command.get_subcommands() {
                let path = format!("{path} {}", next.get_name());
                let help = next
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(
                    help.contains(&path),
                    "`{path} --help` has no example of itself"
                );
                check(next, &path);
            }
        }
        check(&command(), "quorate");
    }

    #[test]
    fn what_clap_finds_wrong_is_one_line_with_a_next_step() {
        let cases = [
            ("quorate task list --stat queued", "--state"),
            ("quorate task get 17", "t17"),
            ("quorate task get", "<TASK>"),
            ("quorate taks list", "task"),
            ("quorate task run echo hi", "-- echo"),
        ];
        for (line, part) in cases {
            let error = Cli::try_parse_from(given(line)).unwrap_err();
            let text = usage(&error, &given(line)).to_string();
            assert!(text.contains(part), "{line}: {text}");
            assert!(text.contains("--help`"), "{line}: {text}");
            assert!(!text.contains('\n'), "{line}: {text}");
        }
    }

    #[test]
    fn the_format_is_found_where_nothing_else_can_be() {
        assert_eq!(format_of(&given("quorate task -o json bad")), Format::Json);
        assert_eq!(format_of(&given("quorate task -ojson bad")), Format::Json);
        assert_eq!(
            format_of(&given("quorate task --output=yaml bad")),
            Format::Yaml
        );
        assert_eq!(
            format_of(&given("quorate task run -- sh -o json")),
            Format::Table
        );
    }
}
