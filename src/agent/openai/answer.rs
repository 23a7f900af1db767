//! One request and its answer.

use std::sync::Arc;

use eventsource_stream::{EventStreamError, Eventsource};
use futures::StreamExt;
use model::{Endpoint, Inference, Usage};
use serde_json::{Map, Value, json};

use super::api::{Trouble, said, with_causes};
use super::backends::Known;
use crate::executor::Exit;
use crate::output::{AttemptLog, Stream};

/// What ends a stream that came whole.
const DONE: &str = "[DONE]";

/// Asks, and writes the answer to stdout as it comes.
pub(super) async fn ask(known: &Known, inference: &Inference, output: &Arc<AttemptLog>) -> Exit {
    let body = match body(inference) {
        Ok(body) => body,
        Err(why) => return Exit::Impossible(why),
    };
    let response = match known.api.post(inference.endpoint.path(), body).await {
        Ok(response) => response,
        Err(Trouble::Refused(why)) => return Exit::Impossible(why),
        Err(trouble @ (Trouble::Unreachable(_) | Trouble::Busy(_))) => {
            known.doubted.notify_one();
            return Exit::Failed(trouble.to_string());
        }
    };
    let answered = match inference.endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => streamed(response, output).await,
        Endpoint::Embeddings => whole(response, output).await,
    };
    match answered {
        Ok(usage) => Exit::Answered(usage),
        Err(why) => {
            known.doubted.notify_one();
            Exit::Failed(why)
        }
    }
}

/// The request, with what is the agent's to say.
fn body(inference: &Inference) -> Result<String, String> {
    let request = serde_json::from_str::<Map<String, Value>>(&inference.request);
    let mut request =
        request.map_err(|error| format!("its request is not a JSON object: {error}"))?;
    request.insert("model".to_owned(), json!(inference.model));
    match inference.endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => {
            request.insert("stream".to_owned(), json!(true));
            let usage = json!({ "include_usage": true });
            request.insert("stream_options".to_owned(), usage);
        }
        Endpoint::Embeddings => {}
    }
    Ok(Value::Object(request).to_string())
}

/// An answer in one piece; it is the output as it is.
async fn whole(
    response: reqwest::Response,
    output: &Arc<AttemptLog>,
) -> Result<Option<Usage>, String> {
    let bytes = response.bytes().await;
    let bytes = bytes.map_err(broken_off)?;
    output.write(Stream::Stdout, &bytes).await;
    let answer: Value = serde_json::from_slice(&bytes)
        .map_err(|error| format!("its answer is not JSON: {error}"))?;
    Ok(usage_of(&answer))
}

/// An answer that comes as server-sent events.
async fn streamed(
    response: reqwest::Response,
    output: &Arc<AttemptLog>,
) -> Result<Option<Usage>, String> {
    let mut events = response.bytes_stream().eventsource();
    let (mut usage, mut finished) = (None, false);
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| match error {
            EventStreamError::Transport(error) => broken_off(error),
            unreadable @ (EventStreamError::Utf8(_) | EventStreamError::Parser(_)) => {
                format!("its answer can't be read: {unreadable}")
            }
        })?;
        if event.data.trim() == DONE {
            return Ok(usage);
        }
        let piece: Value = serde_json::from_str(&event.data)
            .map_err(|error| format!("a piece of its answer is not JSON: {error}"))?;
        if piece.get("error").is_some_and(|error| !error.is_null()) {
            return Err(format!("it broke off: {}", said(&event.data)));
        }
        usage = usage_of(&piece).or(usage);
        let choice = piece.get("choices").and_then(|choices| choices.get(0));
        if let Some(choice) = choice {
            if let Some(text) = text_of(choice) {
                output.write(Stream::Stdout, text.as_bytes()).await;
            }
            finished |= choice.get("finish_reason").is_some_and(Value::is_string);
        }
    }
    match finished {
        // Some servers leave the last word out.
        true => Ok(usage),
        false => Err("it ended the answer in the middle".to_owned()),
    }
}

/// Of a chat, or of a completion.
fn text_of(choice: &Value) -> Option<&str> {
    let delta = choice.get("delta").and_then(|delta| delta.get("content"));
    delta.or_else(|| choice.get("text"))?.as_str()
}

fn usage_of(answer: &Value) -> Option<Usage> {
    let usage = answer.get("usage")?;
    let count = |name| usage.get(name).and_then(Value::as_u64);
    Some(Usage {
        prompt_tokens: count("prompt_tokens")?,
        completion_tokens: count("completion_tokens").unwrap_or(0),
    })
}

fn broken_off(error: reqwest::Error) -> String {
    format!(
        "the answer broke off: {}",
        with_causes(&error.without_url())
    )
}
