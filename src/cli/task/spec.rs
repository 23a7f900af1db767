//! What a task is to do: flags, a file in TOML or JSON, or both; flags win over the file.
//!
//! Everything that the cluster would refuse is checked here first, by the same code of `model`, so that
//! a mistake is reported at once and with its place.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;

use super::ask::{AskArgs, Given};
use super::attach::{Origin, Upload, attach};
use super::quantity::{Quantity, mebibytes, millis, processors, time};
use super::spec_file::{SpecFile, read};
use crate::failure::{Failure, Result};

/// A request to a model is sent with the spec up to so many bytes; a larger one is uploaded before.
const REQUEST_MAX_BYTES: usize = 128 * 1024;
const DEFAULT_NAMESPACE: &str = "default";

/// The task's own arguments, for `submit` and `run`.
#[derive(Debug, Default, Args)]
pub struct SpecArgs {
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// Who shares quota and weight; default: the context's, else `default`
    #[arg(long, env = "QUORATE_NAMESPACE", hide_env_values = true)]
    namespace: Option<String>,
    /// Priority band: critical, interactive, standard, batch or scavenger, the highest first [default: standard; of an
    /// inference interactive]
    #[arg(long)]
    class: Option<model::Class>,
    /// A label of the task; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// What an agent must satisfy: its labels `k=v`, `k!=v`, `k in (a,b)` or `k`, its back ends `offers MODEL`
    #[arg(long, value_name = "EXPRESSION")]
    require: Vec<String>,
    /// What makes an agent better, in the same words; those that satisfy more of it are taken first, as long as one of them
    /// has a free slot
    #[arg(long, value_name = "EXPRESSION")]
    prefer: Vec<String>,
    /// Processors that its agent has to have free, such as 2 or 0.5
    #[arg(long, value_name = "N", value_parser = processors)]
    cpu: Option<u32>,
    /// Memory that its agent has to have free, and more than which an attempt may not use: such as 512MiB or 2GiB (a bare
    /// number is MiB)
    #[arg(long, value_name = "SIZE", value_parser = mebibytes)]
    memory: Option<u64>,
    /// GPUs that it has for itself
    #[arg(long, value_name = "N")]
    gpus: Option<u32>,
    /// Memory that each of its GPUs has at least; without --gpus it has that much of one that others may use too
    #[arg(long, value_name = "SIZE", value_parser = mebibytes)]
    vram: Option<u64>,
    /// How long an attempt may run, such as 30s or 5m (a bare number is seconds)
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
    /// How long from now until it must have been assigned for the first time, else it fails
    #[arg(long, value_name = "TIME", value_parser = time)]
    deadline: Option<Duration>,
    /// Attempts after a failed one [default: 0; of an inference 2]
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// Never start it a second time, even if its agent is lost
    #[arg(long)]
    at_most_once: bool,
    /// Let a task of a higher class that finds no room take its place: it is ended then, and starts anew later
    #[arg(long)]
    preemptible: bool,
    /// Your name for this submit: the same one gives the same task, so asking again is safe
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// An environment variable: KEY=VALUE, or KEY to pass your own on
    #[arg(long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Working directory on the agent; default: a scratch directory of the attempt
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// A file that the task finds in its scratch directory, up to 64 MiB; may be given several times
    #[arg(long, value_name = "FILE")]
    attach: Vec<PathBuf>,
    #[command(flatten)]
    ask: AskArgs,
    /// Read the spec from a file in TOML or JSON (`-`: stdin); flags win over it
    #[arg(long, value_name = "FILE|-")]
    from: Option<String>,
    /// The program and its arguments, after `--`
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// A checked spec, and the submitter's name for the submit if there is one.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    pub spec: model::TaskSpec,
    pub request_id: Option<String>,
    /// What has to be on the controllers first.
    pub uploads: Vec<Upload>,
}

impl SpecArgs {
    /// `namespace` is the context's.
    pub fn wanted(self, namespace: Option<String>) -> Result<Wanted> {
        let file = match self.from.as_deref() {
            Some(from) => read(from)?,
            None => SpecFile::default(),
        };
        assemble(self, file, namespace, |name| std::env::var(name).ok())
    }
}

fn assemble(
    args: SpecArgs,
    file: SpecFile,
    of_context: Option<String>,
    own_env: impl Fn(&str) -> Option<String>,
) -> Result<Wanted> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let request_id = args.request_id.or(file.request_id);
    if request_id.as_deref() == Some("") {
        // Made up silently, it would make two tasks where the caller means one.
        return Err(Failure::usage(
            "the request id is empty",
            "give it a value, or leave --request-id (request_id in a file) out",
        ));
    }
    let namespace = given(args.namespace)
        .or(file.namespace)
        .or(given(of_context));
    let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let namespace = model::Namespace::new(&namespace).map_err(invalid)?;
    let command = if args.command.is_empty() {
        file.command
    } else {
        args.command
    };
    let timeout = args
        .timeout
        .or(in_file(file.timeout, "timeout", time).transpose()?);
    let deadline = args
        .deadline
        .or(in_file(file.deadline, "deadline", time).transpose()?);
    let memory = in_file(file.memory, "memory", mebibytes).transpose()?;
    let vram = in_file(file.vram, "vram", mebibytes).transpose()?;
    let cpu = in_file(file.cpu, "cpu", processors).transpose()?;
    let given_command = match command.is_empty() {
        true => Given::No,
        false => Given::Yes,
    };
    let mut spec = match args.ask.wanted(file.inference, given_command)? {
        Some(inference) => model::TaskSpec::inference(namespace, inference),
        None => model::TaskSpec::process(namespace, command),
    };
    spec.name = args.name.or(file.name).unwrap_or_default();
    spec.env = file.env;
    for variable in &args.env {
        let (name, value) = environment(variable, &own_env)?;
        spec.env.insert(name, value);
    }
    spec.cwd = args.cwd.or(file.cwd).unwrap_or_default();
    spec.class = args.class.or(class_in(file.class)?);
    spec.labels = file.labels;
    spec.labels.extend(args.labels);
    spec.require
        .extend(expressions(&file.require, &args.require)?);
    spec.prefer = expressions(&file.prefer, &args.prefer)?.into();
    spec.timeout = timeout.map(millis);
    spec.deadline = deadline.map(millis);
    spec.retries = args.retries.or(file.retries).unwrap_or(spec.retries);
    spec.at_most_once = args.at_most_once || file.at_most_once.unwrap_or(false);
    spec.preemptible = args.preemptible || file.preemptible.unwrap_or(false);
    spec.memory_mib = args.memory.or(memory);
    spec.hardware = model::Hardware {
        cpu_milli: args.cpu.or(cpu).unwrap_or(0),
        gpus: args.gpus.or(file.gpus).unwrap_or(0),
        vram_mib: args.vram.or(vram).unwrap_or(0),
    };
    let paths = file.attach.iter().chain(&args.attach);
    let mut uploads = attach_all(&mut spec, paths)?;
    let (spec, request) = beside(spec)?;
    uploads.extend(request);
    spec.validate()
        .map_err(|rejected| refused(rejected, &spec))?;
    Ok(Wanted {
        spec,
        request_id,
        uploads,
    })
}

fn expressions(in_file: &[String], args: &[String]) -> Result<Vec<model::Expression>> {
    let texts = in_file.iter().chain(args);
    texts.map(|text| text.parse().map_err(invalid)).collect()
}

/// An amount that stands in a file, by its key.
fn in_file<T>(given: Option<Quantity>, key: &str, parse: Parse<T>) -> Option<Result<T>> {
    given.map(|given| parse(&given.text()).map_err(|why| invalid(format!("{key}: {why}"))))
}

fn class_in(file: Option<String>) -> Result<Option<model::Class>> {
    let named = file.map(|name| name.parse::<model::Class>().map_err(invalid));
    named.transpose()
}

/// Names the files in the spec, and says which have to be uploaded.
fn attach_all<'a>(
    spec: &mut model::TaskSpec,
    paths: impl Iterator<Item = &'a PathBuf>,
) -> Result<Vec<Upload>> {
    let mut uploads = Vec::new();
    for path in paths {
        let (attachment, upload) = attach(path)?;
        spec.blobs.attachments.push(attachment);
        uploads.extend(upload);
    }
    Ok(uploads)
}

/// A request to a model that is too large for a spec goes beside it.
fn beside(mut spec: model::TaskSpec) -> Result<(model::TaskSpec, Option<Upload>)> {
    let Some(inference) = &mut spec.inference else {
        return Ok((spec, None));
    };
    if inference.request.len() <= REQUEST_MAX_BYTES {
        return Ok((spec, None));
    }
    let bytes = Bytes::from(std::mem::take(&mut inference.request));
    let blob = model::BlobRef::of(&bytes);
    blob.validate()
        .map_err(|rejected| refused(rejected, &spec))?;
    let upload = Upload {
        name: "the request".to_owned(),
        blob,
        from: Origin::Memory(bytes),
    };
    Ok((spec.with_bulk(blob), Some(upload)))
}

type Parse<T> = fn(&str) -> std::result::Result<T, String>;

pub(super) fn invalid(message: impl std::fmt::Display) -> Failure {
    Failure::refused("invalid", message, "see `quorate task submit --help`")
}

fn refused(rejected: model::Rejected, spec: &model::TaskSpec) -> Failure {
    let code = match &rejected {
        model::Rejected::OverLimit { .. } => "over_limit",
        _ => "invalid",
    };
    let hint = if spec.size() > model::SPEC_MAX_BYTES {
        "put what is large into files, and give them with --attach"
    } else {
        "see `quorate task submit --help`"
    };
    Failure::refused(code, rejected, hint)
}

fn environment(given: &str, own: impl Fn(&str) -> Option<String>) -> Result<(String, String)> {
    if let Some((name, value)) = given.split_once('=') {
        return Ok((name.to_owned(), value.to_owned()));
    }
    let value = own(given).ok_or_else(|| {
        Failure::usage(
            format!("--env {given}: your own environment has no such variable (in UTF-8)"),
            format!("give its value: --env {given}=VALUE"),
        )
    })?;
    Ok((given.to_owned(), value))
}

/// `KEY=VALUE`.
pub fn pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::spec_file::parse;

    const TOML: &str = r#"
        name = "nightly"
        command = ["make", "all"]
        labels = { team = "x" }
        require = ["gpu=none"]
        prefer = ["ssd"]
        timeout = "5m"
        memory = 512
        retries = 2
        [env]
        A = "1"
        B = "2"
    "#;

    fn command(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn from_file(text: &str, args: SpecArgs) -> Result<Wanted> {
        assemble(args, parse(text, "spec")?, None, |_| None)
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let json = r#" {"name": "nightly", "command": ["make", "all"], "labels": {"team": "x"},
            "require": ["gpu=none"], "prefer": ["ssd"], "timeout": 300, "memory": "512MiB", "retries": 2,
            "env": {"A": "1", "B": "2"}}"#;
        let wanted = from_file(TOML, SpecArgs::default()).unwrap();
        assert_eq!(wanted, from_file(json, SpecArgs::default()).unwrap());
        assert_eq!(wanted.spec.timeout, Some(model::Millis(300_000)));
        assert_eq!(wanted.spec.memory_mib, Some(512));
        assert_eq!(wanted.spec.namespace.as_str(), "default");
    }

    #[test]
    fn flags_win_over_the_file() {
        let args = SpecArgs {
            command: command(&["true"]),
            env: command(&["B=3", "C="]),
            timeout: Some(Duration::from_secs(1)),
            retries: Some(0),
            ..SpecArgs::default()
        };
        let spec = from_file(TOML, args).unwrap().spec;
        assert_eq!(spec.command, ["true"]);
        let env: Vec<_> = spec.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(env, ["A=1", "B=3", "C="]);
        assert_eq!((spec.timeout, spec.retries), (Some(model::Millis(1000)), 0));
    }

    #[test]
    fn what_a_machine_has_to_have_is_said_by_flags_or_in_the_file() {
        let file = "cpu = 1.5\nmemory = '2GiB'\ngpus = 2\nvram = '24GiB'\n";
        let hardware = |args| {
            let spec = from_file(file, args).unwrap().spec;
            (spec.memory_mib, spec.hardware)
        };
        let of_file = model::Hardware {
            cpu_milli: 1_500,
            gpus: 2,
            vram_mib: 24 * 1_024,
        };
        assert_eq!(hardware(with_command()), (Some(2_048), of_file));
        let args = SpecArgs {
            cpu: Some(500),
            gpus: Some(1),
            vram: Some(10),
            ..with_command()
        };
        let of_flags = model::Hardware {
            cpu_milli: 500,
            gpus: 1,
            vram_mib: 10,
        };
        assert_eq!(hardware(args), (Some(2_048), of_flags));
        for (text, key) in [
            ("cpu = 'x'", "cpu"),
            ("cpu = 0.0001", "cpu"),
            ("vram = 1.5", "vram"),
        ] {
            let wrong = from_file(text, with_command()).unwrap_err().to_string();
            assert!(wrong.contains(key), "{wrong}");
        }
    }

    #[test]
    fn a_class_is_that_of_the_flag_then_of_the_file_then_of_the_kind() {
        let class = |text: &str, flag| {
            let args = SpecArgs {
                class: flag,
                ..with_command()
            };
            from_file(text, args).map(|wanted| wanted.spec.class)
        };
        let (batch, critical) = (model::Class::Batch, model::Class::Critical);
        assert_eq!(class("class = 'batch'", None).unwrap(), Some(batch));
        let both = class("class = 'batch'", Some(critical));
        assert_eq!(both.unwrap(), Some(critical));
        assert_eq!(class("", None).unwrap(), None);
        let wrong = class("class = 'urgent'", None).unwrap_err().to_string();
        assert!(
            wrong.contains("`urgent`") && wrong.contains("scavenger"),
            "{wrong}"
        );
    }

    #[test]
    fn a_mistake_in_a_file_is_named_with_its_line() {
        let text = parse("command = ['a']\ntimeot = '5m'\n", "f.toml")
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("f.toml:2") && text.contains("timeot"),
            "{text}"
        );
        let text = parse("{\n \"commnd\": []}", "f.json")
            .unwrap_err()
            .to_string();
        assert!(text.contains("line 2") && text.contains("commnd"), "{text}");
    }

    #[test]
    fn what_the_cluster_would_refuse_is_refused_here() {
        let cases = [
            (SpecArgs::default(), "no command"),
            (
                SpecArgs {
                    prefer: command(&["a in"]),
                    ..with_command()
                },
                "character",
            ),
            (
                SpecArgs {
                    namespace: Some("No".into()),
                    ..with_command()
                },
                "namespace",
            ),
            (
                SpecArgs {
                    retries: Some(1),
                    at_most_once: true,
                    ..with_command()
                },
                "exclude",
            ),
            (
                SpecArgs {
                    preemptible: true,
                    at_most_once: true,
                    ..with_command()
                },
                "could not go on after it was preempted",
            ),
            (
                SpecArgs {
                    command: vec!["x".repeat(300_000)],
                    ..SpecArgs::default()
                },
                "--attach",
            ),
            (
                SpecArgs {
                    retries: Some(1_000),
                    ..with_command()
                },
                "limit of 100 retries; see `quorate",
            ),
            (
                SpecArgs {
                    env: command(&["NOT_SET"]),
                    ..with_command()
                },
                "NOT_SET",
            ),
        ];
        for (args, part) in cases {
            let failure = assemble(args, SpecFile::default(), None, |_| None).unwrap_err();
            assert_eq!(failure.exit.code(), 1);
            assert!(failure.to_string().contains(part), "{failure}");
        }
    }

    #[test]
    fn an_empty_request_id_is_refused_wherever_it_stands() {
        let args = SpecArgs {
            request_id: Some(String::new()),
            ..with_command()
        };
        let in_file = "command = ['true']\nrequest_id = ''\n";
        for failure in [
            from_file("request_id = 'r1'", args).unwrap_err(),
            from_file(in_file, SpecArgs::default()).unwrap_err(),
        ] {
            assert_eq!((failure.code.as_str(), failure.exit.code()), ("usage", 1));
        }
        let args = SpecArgs {
            request_id: Some("r2".into()),
            ..with_command()
        };
        let wanted = from_file(in_file, args).unwrap();
        assert_eq!(wanted.request_id.as_deref(), Some("r2"));
    }

    fn with_command() -> SpecArgs {
        SpecArgs {
            command: command(&["true"]),
            ..SpecArgs::default()
        }
    }

    #[test]
    fn a_variable_without_a_value_is_the_callers_own() {
        let args = SpecArgs {
            env: command(&["HOME"]),
            ..with_command()
        };
        let own = |name: &str| (name == "HOME").then(|| "/h".to_owned());
        let spec = assemble(args, SpecFile::default(), None, own).unwrap().spec;
        assert_eq!(spec.env["HOME"], "/h");
    }

    #[test]
    fn the_namespace_is_the_flag_then_the_file_then_the_context() {
        let at = |flag: Option<&str>, file: Option<&str>, context: Option<&str>| {
            let args = SpecArgs {
                namespace: flag.map(str::to_owned),
                ..with_command()
            };
            let file = SpecFile {
                namespace: file.map(str::to_owned),
                ..SpecFile::default()
            };
            let wanted = assemble(args, file, context.map(str::to_owned), |_| None).unwrap();
            wanted.spec.namespace.to_string()
        };
        assert_eq!(at(Some("a"), Some("b"), Some("c")), "a");
        assert_eq!(at(None, Some("b"), Some("c")), "b");
        assert_eq!(at(Some(""), None, Some("c")), "c");
        assert_eq!(at(None, None, None), "default");
    }
}
