//! A model server that says what a test wants, when it wants it: one word for each that is let go, or the end of the
//! connection in the middle.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::stream;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Ends when it is dropped.
#[derive(Debug)]
pub struct ModelServer {
    pub url: String,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    model: String,
    words: Vec<String>,
    /// Words that may be said.
    gate: Semaphore,
    /// After how many words the next answers break off.
    breaks: Mutex<VecDeque<usize>>,
    /// Prompts, as they came.
    asked: Mutex<Vec<String>>,
    /// Answers that are not done, and the most that there ever were at once.
    at_once: Mutex<(usize, usize)>,
}

/// Counted as an answer that is not done.
struct Answering(Arc<Shared>);

impl Answering {
    fn begin(shared: Arc<Shared>) -> Answering {
        let mut at_once = lock(&shared.at_once);
        at_once.0 += 1;
        at_once.1 = at_once.1.max(at_once.0);
        drop(at_once);
        Answering(shared)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        lock(&self.0.at_once).0 -= 1;
    }
}

impl ModelServer {
    pub async fn start(model: &str, words: usize) -> io::Result<ModelServer> {
        let shared = Arc::new(Shared {
            model: model.to_owned(),
            words: (1..=words).map(|n| format!("word{n} ")).collect(),
            gate: Semaphore::new(0),
            breaks: Mutex::default(),
            asked: Mutex::default(),
            at_once: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = Router::new()
            .route("/v1/models", get(models))
            .route("/v1/chat/completions", post(chat))
            .with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            // It never ends by itself.
            axum::serve(listener, router).await.ok();
        });
        Ok(ModelServer {
            url,
            shared,
            serving,
        })
    }

    /// Lets so many words go, to whoever waits for them first.
    pub fn say(&self, words: usize) {
        self.shared.gate.add_permits(words);
    }

    /// Lets no more words go than were said.
    pub fn hush(&self) {
        self.shared.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// The next answer that is not spoken for breaks off after so many words.
    pub fn break_after(&self, words: usize) {
        lock(&self.shared.breaks).push_back(words);
    }

    /// The whole answer.
    pub fn answer(&self) -> String {
        self.shared.words.concat()
    }

    /// The most answers that it ever gave at once.
    pub fn most_at_once(&self) -> usize {
        lock(&self.shared.at_once).1
    }

    pub fn asked(&self) -> Vec<String> {
        lock(&self.shared.asked).clone()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn models(State(shared): State<Arc<Shared>>) -> Response {
    let list = serde_json::json!({ "object": "list", "data": [{ "id": shared.model }] });
    ([(CONTENT_TYPE, "application/json")], list.to_string()).into_response()
}

async fn chat(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let request: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let prompt = request["messages"][0]["content"].as_str();
    lock(&shared.asked).push(prompt.unwrap_or_default().to_owned());
    let breaks = lock(&shared.breaks).pop_front();
    let answering = Answering::begin(shared);
    let words = stream::unfold((answering, 0), move |(answering, said)| async move {
        let next = next(&answering.0, said, breaks).await?;
        Some((next, (answering, said + 1)))
    });
    let body = Body::from_stream(words);
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// What comes after so many words.
async fn next(shared: &Shared, said: usize, breaks: Option<usize>) -> Option<io::Result<Bytes>> {
    if breaks == Some(said) {
        return Some(Err(io::Error::other("it breaks off")));
    }
    let total = shared.words.len();
    let text = match said {
        _ if said < total => {
            shared.gate.acquire().await.ok()?.forget();
            let delta = serde_json::json!({ "content": shared.words[said] });
            event(&serde_json::json!({ "choices": [{ "delta": delta }] }))
        }
        _ if said == total => {
            let usage = serde_json::json!({ "prompt_tokens": 7, "completion_tokens": total });
            event(&serde_json::json!({ "choices": [], "usage": usage }))
        }
        _ if said == total + 1 => "data: [DONE]\n\n".to_owned(),
        _ => return None,
    };
    Some(Ok(Bytes::from(text)))
}

fn event(value: &serde_json::Value) -> String {
    format!("data: {value}\n\n")
}
