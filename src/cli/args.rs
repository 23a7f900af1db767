//! What may be typed. Each noun brings its own arguments; here they meet, and what clap finds wrong
//! becomes one line and exit code 1.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;

use clap::builder::{EnumValueParser, PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::{
    agents, backends, cert, cluster, completions, config, context, controller, data_dir, dev,
    events, join_token, namespaces, policies, task,
};

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
        value_parser = FormatParser,
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

/// As every other variable of ours, `QUORATE_OUTPUT` says nothing where it is set to nothing.
#[derive(Clone)]
struct FormatParser;

impl TypedValueParser for FormatParser {
    type Value = Format;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> std::result::Result<Format, clap::Error> {
        if value.is_empty() {
            return Ok(Format::default());
        }
        EnumValueParser::<Format>::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let all = Format::value_variants().iter();
        Some(Box::new(all.filter_map(ValueEnum::to_possible_value)))
    }
}

impl Global {
    /// Whether colours may be used on stderr.
    pub fn coloured(&self) -> bool {
        coloured(if self.no_color {
            ColorChoice::Never
        } else {
            ColorChoice::Auto
        })
    }
}

fn coloured(wanted: ColorChoice) -> bool {
    wanted != ColorChoice::Never
        && std::env::var_os("NO_COLOR").is_none()
        && std::io::stderr().is_terminal()
}

#[derive(Debug, Subcommand)]
pub enum Noun {
    Dev(dev::DevArgs),
    Task(task::TaskArgs),
    Agent(agents::AgentArgs),
    Backend(backends::BackendArgs),
    Namespace(namespaces::NamespaceArgs),
    Policy(policies::PolicyArgs),
    Cluster(cluster::ClusterArgs),
    Events(events::EventsArgs),
    Controller(controller::ControllerArgs),
    DataDir(data_dir::DataDirArgs),
    Context(context::ContextArgs),
    Cert(cert::CertArgs),
    JoinToken(join_token::JoinTokenArgs),
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
    let mut command = command().color(colour_of(given));
    let matches = command
        .try_get_matches_from_mut(given)
        .map_err(|error| explain(&error, given))?;
    if let Some(failure) = misplaced(&command, &matches) {
        return Err(say(&failure, given));
    }
    Cli::from_arg_matches(&matches).map_err(|error| explain(&error, given))
}

/// What was said about colours, where the arguments as a whole could not be parsed.
fn colour_of(given: &[OsString]) -> ColorChoice {
    let mut ours = given.iter().take_while(|arg| *arg != "--");
    if ours.any(|arg| arg == "--no-color") {
        ColorChoice::Never
    } else {
        ColorChoice::Auto
    }
}

/// Some nouns run by themselves, with flags of their own. In front of a verb such a flag would be
/// ignored, so it is refused. (clap's `args_conflicts_with_subcommands` refuses the global ones too.)
fn misplaced(command: &clap::Command, matches: &clap::ArgMatches) -> Option<Failure> {
    let (noun, given) = matches.subcommand()?;
    let verb = given.subcommand_name()?;
    let mut own = command
        .find_subcommand(noun)?
        .get_arguments()
        .filter(|arg| !arg.is_global_set());
    let flag = own
        .find(|arg| given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine))?;
    let name = flag.get_long().unwrap_or_else(|| flag.get_id().as_str());
    Some(Failure::usage(
        format!("--{name} stands in front of `{verb}`, where it means nothing"),
        format!("put it behind `{verb}` if that takes it: see `quorate {noun} {verb} --help`"),
    ))
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
    say(&usage(error, given), given)
}

fn say(failure: &Failure, given: &[OsString]) -> Exit {
    output::failure(failure, format_of(given), coloured(colour_of(given)));
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

    use clap::{ColorChoice, Parser};

    use super::{Cli, Format, colour_of, command, format_of, misplaced, parse, usage};

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
            // Nobody types what is hidden.
            let shown = command.get_subcommands().filter(|next| !next.is_hide_set());
            for next in shown {
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
    fn global_options_may_stand_in_front_of_every_verb() {
        let verbs = [
            "agent list",
            "backend list",
            "cert create --role agent --id a1 --ca ca --out out",
            "cluster status",
            "config show",
            "context list",
            "controller run",
            "data-dir info DIR",
            "dev start c1",
            "join-token list",
            "namespace list",
            "policy get",
            "task list",
        ];
        for line in verbs {
            let (noun, rest) = line.split_once(' ').unwrap();
            let line = format!("quorate {noun} -o json --no-color {rest}");
            let global = parse(&given(&line)).expect(&line).global;
            assert_eq!((global.output, global.no_color), (Format::Json, true));
        }
        let command = command();
        let with_verbs = command
            .get_subcommands()
            .filter(|noun| noun.has_subcommands());
        let tested = verbs.iter().filter_map(|line| line.split(' ').next());
        let mut nouns: Vec<&str> = with_verbs.map(clap::Command::get_name).collect();
        nouns.sort_unstable();
        assert_eq!(nouns, tested.collect::<Vec<_>>());
    }

    #[test]
    fn a_flag_in_front_of_a_verb_that_would_ignore_it_is_refused() {
        for line in [
            "quorate agent --slots 2 list",
            "quorate controller --config x run",
            "quorate dev --agents 3 start a3",
        ] {
            let mut command = command();
            let matches = command.try_get_matches_from_mut(given(line)).unwrap();
            assert!(misplaced(&command, &matches).is_some(), "{line}");
        }
        for line in [
            "quorate agent --slots 2",
            "quorate agent run --slots 2",
            "quorate dev --dir x start c1",
            "quorate task --addr h:1 list",
        ] {
            let mut command = command();
            let matches = command.try_get_matches_from_mut(given(line)).unwrap();
            assert!(misplaced(&command, &matches).is_none(), "{line}");
        }
    }

    #[test]
    fn no_slots_at_all_are_refused_before_they_are_remembered() {
        for line in ["quorate dev --slots 0", "quorate agent run --slots 0"] {
            let error = Cli::try_parse_from(given(line)).unwrap_err();
            let text = usage(&error, &given(line)).to_string();
            assert!(text.contains("--slots") && text.contains("1.."), "{text}");
        }
    }

    #[test]
    fn a_controllers_id_that_is_none_is_refused_in_words() {
        for id in ["foo", "c0", "1"] {
            let line = given(&format!("quorate controller run --id {id}"));
            let text = usage(&Cli::try_parse_from(&line).unwrap_err(), &line).to_string();
            assert!(text.contains("--id") && !text.contains("key"), "{text}");
        }
    }

    #[test]
    fn that_no_colours_are_wanted_is_known_even_of_a_line_that_makes_no_sense() {
        let bad = colour_of(&given("quorate task --no-color bad"));
        assert_eq!(bad, ColorChoice::Never);
        let of_the_task = colour_of(&given("quorate task run -- ls --no-color"));
        assert_eq!(of_the_task, ColorChoice::Auto);
    }

    #[test]
    fn an_empty_format_is_as_good_as_none_and_a_wrong_one_is_refused_with_what_there_is() {
        let format = |line: &str| Cli::try_parse_from(given(line)).map(|cli| cli.global.output);
        assert_eq!(format("quorate version --output=").unwrap(), Format::Table);
        let wrong = format("quorate version -o xml").unwrap_err();
        let text = usage(&wrong, &given("quorate version -o xml")).to_string();
        assert!(text.contains("table, wide, json, yaml, quiet"), "{text}");
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
