//! One request and its answer.

use std::sync::Arc;

use eventsource_stream::{EventStreamError, Eventsource};
use futures::StreamExt;
use model::{Endpoint, Inference, Usage};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use super::api::{Trouble, broken_off, said, whole};
use super::backends::Known;
use crate::executor::Exit;
use crate::output::{AttemptLog, Stream};

/// What ends a stream that came whole.
const DONE: &str = "[DONE]";

/// Bytes of an answer that comes in one piece.
const ANSWER_BYTES: usize = 64 << 20;

/// Bytes of one piece of an answer.
const EVENT_BYTES: usize = 4 << 20;

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
        // Some servers do not stream, whatever they are asked.
        Endpoint::ChatCompletions | Endpoint::Completions if is_json(&response) => {
            in_one_piece(response, output).await
        }
        Endpoint::ChatCompletions | Endpoint::Completions => streamed(response, output).await,
        Endpoint::Embeddings => as_it_is(response, output).await,
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
    // The output is one text.
    let several = request.get("n").is_some_and(|n| *n != json!(1));
    let tools = ["tools", "functions"]
        .into_iter()
        .find(|name| request.contains_key(*name));
    match (several, tools) {
        (true, _) => return Err("`n` other than 1 is not supported yet".to_owned()),
        (false, Some(name)) => return Err(format!("`{name}` are not supported yet")),
        (false, None) => {}
    }
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

fn is_json(response: &reqwest::Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    kind.and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/json"))
}

/// The answer's own bytes are the output.
async fn as_it_is(
    response: reqwest::Response,
    output: &Arc<AttemptLog>,
) -> Result<Option<Usage>, String> {
    let (bytes, answer) = read(response).await?;
    output.write(Stream::Stdout, &bytes).await;
    Ok(usage_of(&answer))
}

/// Its text is the output.
async fn in_one_piece(
    response: reqwest::Response,
    output: &Arc<AttemptLog>,
) -> Result<Option<Usage>, String> {
    let (_, answer) = read(response).await?;
    let choice = answer.get("choices").and_then(|choices| choices.get(0));
    let text = choice.and_then(text_of);
    let text = text.ok_or_else(|| "its answer has no text".to_owned())?;
    output.write(Stream::Stdout, text.as_bytes()).await;
    Ok(usage_of(&answer))
}

async fn read(response: reqwest::Response) -> Result<(Vec<u8>, Value), String> {
    let bytes = whole(response, ANSWER_BYTES).await;
    let bytes = bytes.map_err(|trouble| trouble.to_string())?;
    let answer = serde_json::from_slice(&bytes)
        .map_err(|error| format!("its answer is not JSON: {error}"))?;
    Ok((bytes, answer))
}

/// An answer that comes as server-sent events.
async fn streamed(
    response: reqwest::Response,
    output: &Arc<AttemptLog>,
) -> Result<Option<Usage>, String> {
    let mut open = 0;
    let bytes = response.bytes_stream().map(|chunk| {
        let chunk = chunk.map_err(broken_off)?;
        // An event is kept until it is whole.
        open = match chunk.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => chunk.len() - end,
            None => open + chunk.len(),
        };
        match open > EVENT_BYTES {
            true => Err(format!(
                "a piece of its answer has more than {EVENT_BYTES} bytes"
            )),
            false => Ok(chunk),
        }
    });
    let mut events = bytes.eventsource();
    let (mut usage, mut finished) = (None, false);
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| match error {
            EventStreamError::Transport(error) => error,
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

/// Of a chat, in pieces or whole, or of a completion.
fn text_of(choice: &Value) -> Option<&str> {
    let content = |name| choice.get(name).and_then(|it: &Value| it.get("content"));
    let text = content("delta").or_else(|| content("message"));
    text.or_else(|| choice.get("text"))?.as_str()
}

fn usage_of(answer: &Value) -> Option<Usage> {
    let usage = answer.get("usage")?;
    let count = |name| usage.get(name).and_then(Value::as_u64);
    Some(Usage {
        prompt_tokens: count("prompt_tokens")?,
        completion_tokens: count("completion_tokens").unwrap_or(0),
    })
}
