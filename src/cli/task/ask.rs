//! What a task asks a model: flags, or the same in a spec file.

use std::path::Path;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::spec::invalid;
use super::spec_file::{Bound, bounded};
use crate::failure::{Failure, Result};

/// What may be asked in one request.
const REQUEST: Bound = Bound {
    bytes: model::BLOB_MAX_BYTES,
    next: "a request has at most 64 MiB; ask for less at once",
};

/// The kinds of tasks that can be told apart by a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    Process,
    Inference,
}

/// The flags of an inference.
#[derive(Debug, Default, Args)]
pub struct AskArgs {
    /// What the other flags say anyway: `--model` makes an inference, a command a process
    #[arg(long, value_name = "KIND")]
    pub kind: Option<KindArg>,
    /// Ask this model; an agent whose back end offers it answers
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// What to ask it
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    pub prompt: Option<String>,
    /// What to ask it, from a file (`-`: stdin): the prompt, or, where it is a JSON object, the whole request as
    /// the OpenAI API has it
    #[arg(long, value_name = "FILE|-")]
    pub input: Option<String>,
}

/// The same in a spec file.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AskFile {
    pub model: Option<String>,
    pub prompt: Option<String>,
    pub request: Option<Map<String, Value>>,
}

/// What is asked, before it is known of whom.
enum Question {
    Prompt(String),
    Request(Map<String, Value>),
}

impl AskArgs {
    /// Nothing where a process is wanted. `command`: whether there is one.
    pub fn wanted(self, file: AskFile, command: Given) -> Result<Option<model::Inference>> {
        let question = match (self.prompt, self.input) {
            (Some(prompt), _) => Some(Question::Prompt(prompt)),
            (None, Some(input)) => Some(read(&input)?),
            (None, None) => match (file.request, file.prompt) {
                (Some(_), Some(_)) => {
                    return Err(invalid(
                        "the file has a prompt and a request: leave one out",
                    ));
                }
                (Some(request), None) => Some(Question::Request(request)),
                (None, prompt) => prompt.map(Question::Prompt),
            },
        };
        let named = question.as_ref().and_then(Question::model);
        let model = self.model.or(file.model).or(named);
        let about_a_model = model.is_some() || question.is_some();
        match (self.kind, command, about_a_model) {
            (_, Given::Yes, true) => Err(Failure::usage(
                "a command and a model: a task is a process or an inference",
                "leave the command out, or --model, --prompt and --input",
            )),
            (Some(KindArg::Process), _, true) => Err(Failure::usage(
                "--kind process, and a model",
                "leave --model, --prompt and --input out, and give a command after `--`",
            )),
            (Some(KindArg::Inference), Given::Yes, false) => Err(Failure::usage(
                "--kind inference, and a command",
                "say --model and --prompt instead of the command",
            )),
            (Some(KindArg::Inference), Given::No, false) | (_, Given::No, true) => {
                inference(model, question).map(Some)
            }
            (None | Some(KindArg::Process), _, false) => Ok(None),
        }
    }
}

/// Whether something was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    Yes,
    No,
}

fn inference(model: Option<String>, question: Option<Question>) -> Result<model::Inference> {
    let model = model.ok_or_else(|| {
        let next = "say which one: --model MODEL; `quorate backend list` shows what is offered";
        Failure::usage("no model to ask", next)
    })?;
    let question = question.ok_or_else(|| {
        Failure::usage(
            format!("nothing to ask {model}"),
            "say what: --prompt TEXT, or --input FILE",
        )
    })?;
    let (endpoint, request) = question.into_request()?;
    Ok(model::Inference {
        model,
        endpoint,
        request: Value::Object(request).to_string(),
    })
}

impl Question {
    /// A request may name its model.
    fn model(&self) -> Option<String> {
        match self {
            Question::Prompt(_) => None,
            Question::Request(request) => {
                let model = request.get("model").and_then(Value::as_str);
                model.map(str::to_owned)
            }
        }
    }

    /// By what it has in it, for each of the API's requests has something of its own.
    fn into_request(self) -> Result<(model::Endpoint, Map<String, Value>)> {
        let request = match self {
            Question::Prompt(prompt) if prompt.trim().is_empty() => {
                return Err(invalid("the prompt is empty"));
            }
            Question::Prompt(prompt) => {
                let message = json!({ "role": "user", "content": prompt });
                let messages = json!([message]);
                Map::from_iter([("messages".to_owned(), messages)])
            }
            Question::Request(request) => request,
        };
        let endpoint = ["messages", "prompt", "input"]
            .into_iter()
            .zip([
                model::Endpoint::ChatCompletions,
                model::Endpoint::Completions,
                model::Endpoint::Embeddings,
            ])
            .find(|(key, _)| request.contains_key(*key));
        match endpoint {
            Some((_, endpoint)) => Ok((endpoint, request)),
            None => Err(invalid(
                "the request asks nothing: it has no `messages` (chat), `prompt` (completion) or `input` (embeddings)",
            )),
        }
    }
}

fn read(input: &str) -> Result<Question> {
    let path = Path::new(input);
    let text = match input {
        "-" => bounded(std::io::stdin().lock(), Path::new("stdin"), REQUEST)?,
        _ => {
            let file = std::fs::File::open(path);
            let file = file.map_err(|error| Failure::file("read", path, &error))?;
            bounded(file, path, REQUEST)?
        }
    };
    if !text.trim_start().starts_with('{') {
        return Ok(Question::Prompt(text));
    }
    let request = serde_json::from_str(&text);
    let request = request.map_err(|error| invalid(format!("{input}: {error}")))?;
    Ok(Question::Request(request))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(model: &str, prompt: &str) -> AskArgs {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        AskArgs {
            model: given(model),
            prompt: given(prompt),
            ..AskArgs::default()
        }
    }

    #[test]
    fn a_prompt_is_a_chat_of_one_message() {
        let wanted = args("m", "why?").wanted(AskFile::default(), Given::No);
        let wanted = wanted.unwrap().unwrap();
        assert_eq!(wanted.endpoint, model::Endpoint::ChatCompletions);
        let request: Value = serde_json::from_str(&wanted.request).unwrap();
        let message = json!({ "role": "user", "content": "why?" });
        assert_eq!(request, json!({ "messages": [message] }));
        assert_eq!(wanted.model, "m");
    }

    #[test]
    fn a_request_in_a_file_says_what_it_is_by_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("request.json");
        for (body, endpoint) in [
            (
                r#"{"model": "m", "messages": []}"#,
                model::Endpoint::ChatCompletions,
            ),
            (
                r#"{"model": "m", "prompt": "a"}"#,
                model::Endpoint::Completions,
            ),
            (
                r#"{"model": "m", "input": "a"}"#,
                model::Endpoint::Embeddings,
            ),
        ] {
            std::fs::write(&path, body).unwrap();
            let given = AskArgs {
                input: Some(path.to_string_lossy().into_owned()),
                ..AskArgs::default()
            };
            let wanted = given.wanted(AskFile::default(), Given::No);
            let wanted = wanted.unwrap().unwrap();
            assert_eq!((&*wanted.model, wanted.endpoint), ("m", endpoint), "{body}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let kind = |kind, asked: AskArgs| AskArgs {
            kind: Some(kind),
            ..asked
        };
        for (given, command, part) in [
            (args("m", "p"), Given::Yes, "a command and a model"),
            (args("m", ""), Given::No, "nothing to ask m"),
            (args("", "p"), Given::No, "no model to ask"),
            (args("m", "  "), Given::No, "prompt is empty"),
            (
                kind(KindArg::Inference, args("", "")),
                Given::No,
                "no model",
            ),
            (
                kind(KindArg::Inference, args("", "")),
                Given::Yes,
                "a command",
            ),
            (kind(KindArg::Process, args("m", "p")), Given::No, "a model"),
        ] {
            let failure = given.wanted(AskFile::default(), command).unwrap_err();
            assert!(failure.to_string().contains(part), "{failure}");
        }
        let process = kind(KindArg::Process, args("", ""));
        assert_eq!(
            process.wanted(AskFile::default(), Given::Yes).unwrap(),
            None
        );
    }
}
