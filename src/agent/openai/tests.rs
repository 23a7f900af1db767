//! The executor against a small server that speaks just enough HTTP: what it says byte by byte, and how it breaks, is each
//! test's to decide.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Endpoint, Epoch, Fence, Generation, Inference, Millis, Namespace, TaskId, TaskSpec, Usage,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::OpenAi;
use crate::config::BackendConfig;
use crate::executor::{Attempt, Executor, Exit, Hands, Urgency};
use crate::output::{AttemptLog, Captured, Writer};

const PATIENCE: Duration = Duration::from_secs(20);

const MODELS: &str = r#"{"object":"list","data":[{"id":"tiny"},{"id":"also"}]}"#;

/// A request as the server saw it.
#[derive(Debug)]
struct Seen {
    line: String,
    head: String,
    body: String,
    /// Answers, or closes the connection.
    connection: TcpStream,
}

impl Seen {
    async fn answer(mut self, status: &str, kind: &str, body: &str) {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        self.connection.write_all(head.as_bytes()).await.unwrap();
        self.connection.write_all(body.as_bytes()).await.unwrap();
    }

    /// The begin of a stream; what follows is written to what this returns.
    async fn stream(mut self) -> TcpStream {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        self.connection.write_all(head.as_bytes()).await.unwrap();
        self.connection
    }
}

fn piece(text: &str) -> String {
    let piece = serde_json::json!({ "choices": [{ "index": 0, "delta": { "content": text } }] });
    format!("data: {piece}\n\n")
}

/// Answers what it offers, and passes all other requests on.
async fn server() -> (String, mpsc::Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, requests) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let asked = asked.clone();
            tokio::spawn(async move {
                let Some(seen) = request(connection).await else {
                    return;
                };
                match seen.line.starts_with("GET /v1/models ") {
                    true => seen.answer("200 OK", "application/json", MODELS).await,
                    false => drop(asked.send(seen).await),
                }
            });
        }
    });
    (url, requests)
}

async fn request(mut connection: TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let (head, rest) = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break (bytes[..end].to_vec(), bytes[end + 4..].to_vec());
        }
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.eq_ignore_ascii_case("content-length");
        is_it.then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = rest;
    while body.len() < length.unwrap_or(0) {
        connection.read_buf(&mut body).await.unwrap();
    }
    Some(Seen {
        line: head.lines().next().unwrap().to_owned(),
        body: String::from_utf8(body).unwrap(),
        head,
        connection,
    })
}

struct Bench {
    executor: OpenAi,
    dir: tempfile::TempDir,
    writer: Writer,
}

struct Run {
    stop: watch::Sender<Urgency>,
    log: Arc<AttemptLog>,
    exit: tokio::task::JoinHandle<Exit>,
}

impl Run {
    async fn end(self) -> (Exit, Captured) {
        let exit = tokio::time::timeout(PATIENCE, self.exit);
        (exit.await.expect("it ends").unwrap(), self.log.end())
    }
}

impl Bench {
    /// With a back end that is known to offer its models, unless it is not there.
    async fn new(url: &str) -> Bench {
        let config = BackendConfig {
            url: url.to_owned(),
            ..BackendConfig::default()
        };
        Bench::with(&[config]).await
    }

    async fn with(configs: &[BackendConfig]) -> Bench {
        let executor = OpenAi::new(configs).unwrap();
        tokio::spawn(executor.watch());
        let mut offered = executor.offered();
        let all = offered.wait_for(|all| all.iter().all(|it| it.trouble != "not asked yet"));
        tokio::time::timeout(PATIENCE, all).await.unwrap().unwrap();
        Bench {
            executor,
            dir: tempfile::tempdir().unwrap(),
            writer: Writer::start().unwrap(),
        }
    }

    fn ask(&self, endpoint: Endpoint, request: &str, timeout: Option<u64>) -> Run {
        let inference = Inference {
            model: "tiny".to_owned(),
            endpoint,
            request: request.to_owned(),
        };
        let namespace = Namespace::new("default").unwrap();
        let mut spec = TaskSpec::inference(namespace, inference);
        spec.timeout = timeout.map(Millis);
        let fence = Fence {
            task: TaskId(1),
            generation: Generation(1),
            epoch: Epoch(1),
        };
        let log = self.dir.path().join("log");
        let log = Arc::new(AttemptLog::new(log, 1 << 20, self.writer.clone()));
        let (stop, stopped) = watch::channel(Urgency::None);
        let attempt = Attempt {
            files: None,
            fence,
            number: 1,
            gpus: model::Gpus::new(),
            spec: Arc::new(spec),
        };
        let hands = Hands {
            output: Arc::clone(&log),
            started: Box::new(|process| assert_eq!(process, None)),
            stop: stopped,
        };
        let exit = tokio::spawn(self.executor.run(attempt, hands));
        Run { stop, log, exit }
    }

    fn chat(&self) -> Run {
        let request = r#"{"messages":[{"role":"user","content":"hi"}],"stream":false}"#;
        self.ask(Endpoint::ChatCompletions, request, None)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_piece_by_piece_with_what_it_cost() {
    let (url, mut requests) = server().await;
    let bench = Bench::new(&url).await;
    let offered = bench.executor.offered().borrow().clone();
    assert_eq!(offered[0].models, ["also", "tiny"]);
    let run = bench.chat();
    let seen = requests.recv().await.unwrap();
    assert!(
        seen.line.starts_with("POST /v1/chat/completions "),
        "{}",
        seen.line
    );
    let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(
        (&body["model"], &body["stream"]),
        (&"tiny".into(), &true.into())
    );
    assert_eq!(body["messages"][0]["content"], "hi");
    assert_eq!(body["stream_options"]["include_usage"], true);
    let mut answer = seen.stream().await;
    // Cut in the middle of a character, and of an event.
    let bytes = format!("{}{}", piece("Grüß"), piece(" Gott"));
    let (one, other) = bytes.as_bytes().split_at(bytes.find('ü').unwrap() + 1);
    answer.write_all(one).await.unwrap();
    answer.flush().await.unwrap();
    tokio::task::yield_now().await;
    answer.write_all(other).await.unwrap();
    let rest = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
    answer.write_all(rest.as_bytes()).await.unwrap();
    let (exit, captured) = run.end().await;
    let usage = Usage {
        prompt_tokens: 3,
        completion_tokens: 2,
    };
    assert_eq!(exit, Exit::Answered(Some(usage)));
    assert_eq!(captured.tails[0], "Grüß Gott".as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_a_failure_and_never_the_whole() {
    let (url, mut requests) = server().await;
    let bench = Bench::new(&url).await;
    let error = "data: {\"error\":{\"message\":\"out of memory\"}}\n\n".to_owned();
    for (last, why) in [
        (String::new(), "in the middle"),
        ("data: {\"choi".to_owned(), "in the middle"),
        ("data: nonsense\n\n".to_owned(), "not JSON"),
        (error, "out of memory"),
    ] {
        let run = bench.chat();
        let mut answer = requests.recv().await.unwrap().stream().await;
        let bytes = format!("{}{last}", piece("Once upon"));
        answer.write_all(bytes.as_bytes()).await.unwrap();
        drop(answer);
        let (exit, captured) = run.end().await;
        assert!(
            matches!(&exit, Exit::Failed(text) if text.contains(why)),
            "{exit:?}"
        );
        assert_eq!(captured.tails[0], b"Once upon");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_done_is_told_from_what_may_pass() {
    let (url, mut requests) = server().await;
    let bench = Bench::new(&url).await;
    let body = r#"{"error":{"message":"the prompt is too long"}}"#;
    for status in [
        "400 Bad Request",
        "413 Payload Too Large",
        "422 Unprocessable",
    ] {
        let run = bench.chat();
        let seen = requests.recv().await.unwrap();
        seen.answer(status, "application/json", body).await;
        let (exit, _) = run.end().await;
        assert!(
            matches!(&exit, Exit::Impossible(text) if text.contains("too long")),
            "{exit:?}"
        );
    }
    for status in [
        "401 Unauthorized",
        "404 Not Found",
        "429 Too Many Requests",
        "500 Oh",
        "503 Service Unavailable",
    ] {
        let run = bench.chat();
        let seen = requests.recv().await.unwrap();
        seen.answer(status, "text/plain", "later").await;
        let (exit, _) = run.end().await;
        assert!(
            matches!(&exit, Exit::Failed(text) if text.contains("later")),
            "{exit:?}"
        );
    }
    let (exit, _) = bench.ask(Endpoint::Completions, "[1]", None).end().await;
    assert!(
        matches!(&exit, Exit::Impossible(text) if text.contains("JSON object")),
        "{exit:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_are_the_output_as_they_come() {
    let (url, mut requests) = server().await;
    let bench = Bench::new(&url).await;
    let run = bench.ask(Endpoint::Embeddings, r#"{"input":"hi"}"#, None);
    let seen = requests.recv().await.unwrap();
    assert!(seen.line.starts_with("POST /v1/embeddings "));
    assert!(!seen.body.contains("stream"), "{}", seen.body);
    let body = r#"{"data":[{"embedding":[0.5]}],"usage":{"prompt_tokens":1}}"#;
    seen.answer("200 OK", "application/json", body).await;
    let (exit, captured) = run.end().await;
    assert!(matches!(
        exit,
        Exit::Answered(Some(Usage {
            prompt_tokens: 1,
            ..
        }))
    ));
    assert_eq!(captured.tails[0], body.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_server_that_does_not_stream_is_taken_as_it_comes() {
    let (url, mut requests) = server().await;
    let bench = Bench::new(&url).await;
    let run = bench.chat();
    let body = r#"{"choices":[{"message":{"content":"whole"}}],"usage":{"prompt_tokens":1}}"#;
    let seen = requests.recv().await.unwrap();
    seen.answer("200 OK", "application/json", body).await;
    let (exit, captured) = run.end().await;
    assert!(matches!(exit, Exit::Answered(Some(_))), "{exit:?}");
    assert_eq!(captured.tails[0], b"whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_lost_of_an_answer_is_not_asked_for() {
    let (url, _requests) = server().await;
    let bench = Bench::new(&url).await;
    for request in [r#"{"messages":[],"n":2}"#, r#"{"messages":[],"tools":[]}"#] {
        let run = bench.ask(Endpoint::ChatCompletions, request, None);
        let (exit, _) = run.end().await;
        assert!(
            matches!(&exit, Exit::Impossible(text) if text.contains("not supported")),
            "{exit:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_too_much_is_not_kept_in_memory() {
    let (url, mut requests) = server().await;
    let bench = Bench::new(&url).await;
    let run = bench.chat();
    let mut answer = requests.recv().await.unwrap().stream().await;
    let line = vec![b'x'; 1 << 20];
    answer.write_all(b"data: ").await.unwrap();
    // It hangs up in the middle of this.
    while answer.write_all(&line).await.is_ok() {}
    let (exit, _) = run.end().await;
    assert!(
        matches!(&exit, Exit::Failed(text) if text.contains("more than")),
        "{exit:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_answer_no_more_hangs_up() {
    let (url, mut requests) = server().await;
    let bench = Bench::new(&url).await;
    for ending in ["stopped", "timed out"] {
        let timeout = (ending == "timed out").then_some(300);
        let request = r#"{"messages":[]}"#;
        let run = bench.ask(Endpoint::ChatCompletions, request, timeout);
        let mut answer = requests.recv().await.unwrap().stream().await;
        answer.write_all(piece("Once").as_bytes()).await.unwrap();
        if timeout.is_none() {
            run.stop.send_replace(Urgency::Gently);
        }
        let (exit, _) = run.end().await;
        let wanted = match timeout {
            None => Exit::Stopped,
            Some(_) => Exit::TimedOut,
        };
        assert_eq!(exit, wanted);
        let hung_up = tokio::time::timeout(PATIENCE, answer.read(&mut [0])).await;
        assert!(matches!(hung_up.unwrap(), Ok(0) | Err(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_back_end_that_dies_is_in_trouble_at_once_and_comes_back_by_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let bench = Bench::new(&format!("http://{address}")).await;
    let mut offered = bench.executor.offered();
    assert!(
        offered.borrow()[0].trouble.contains("refused"),
        "{offered:?}"
    );
    let (exit, _) = bench.chat().end().await;
    assert_eq!(exit, Exit::Prevented, "nothing was asked");
    let listener = TcpListener::bind(address).await.unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            if let Some(seen) = request(connection).await {
                seen.answer("200 OK", "application/json", MODELS).await;
            }
        }
    });
    let usable = offered.wait_for(|all| !all[0].models.is_empty());
    tokio::time::timeout(PATIENCE, usable)
        .await
        .unwrap()
        .unwrap();
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    // The request that fails makes it look before its time.
    let (exit, _) = bench.chat().end().await;
    assert!(matches!(&exit, Exit::Failed(_)), "{exit:?}");
    let gone = offered.wait_for(|all| all[0].models.is_empty());
    tokio::time::timeout(Duration::from_secs(5), gone)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_with_each_request_and_never_into_what_is_shown() {
    let (url, mut requests) = server().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "s3cret\n").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let config = BackendConfig {
        url,
        name: Some("mine".to_owned()),
        key_file: Some(path.clone()),
    };
    let bench = Bench::with(std::slice::from_ref(&config)).await;
    let run = bench.chat();
    let seen = requests.recv().await.unwrap();
    assert!(
        seen.head
            .to_lowercase()
            .contains("authorization: bearer s3cret"),
        "{}",
        seen.head
    );
    seen.answer("401 Unauthorized", "text/plain", "no").await;
    let (exit, _) = run.end().await;
    let shown = format!("{exit:?} {:?}", bench.executor.offered().borrow());
    assert!(
        shown.contains("mine") && !shown.contains("s3cret"),
        "{shown}"
    );
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let error = OpenAi::new(&[config]).err().unwrap();
    assert!(error.to_string().contains("0644"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_the_limit_waits_for_its_turn_and_its_time_does_not_run_meanwhile() {
    let (url, mut requests) = server().await;
    let bench = Bench::new(&url).await;
    let name = bench.executor.offered().borrow()[0].name.clone();
    let limited = |limit| {
        let settings = model::BackendSettings {
            limit,
            ..model::BackendSettings::default()
        };
        std::collections::BTreeMap::from([(name.clone(), settings)])
    };
    bench.executor.set(&limited(1));
    let first = bench.chat();
    let seen = requests.recv().await.unwrap();
    let request = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
    let second = bench.ask(Endpoint::ChatCompletions, request, Some(200));
    let asked = tokio::time::timeout(Duration::from_millis(600), requests.recv()).await;
    assert!(asked.is_err(), "asked beyond the limit: {asked:?}");
    // One that waits ends when it is told to, and one more may go at once when the limit rises.
    let third = bench.chat();
    third.stop.send_replace(Urgency::Gently);
    assert_eq!(third.end().await.0, Exit::Prevented);
    bench.executor.set(&limited(2));
    let text = r#"{"choices":[{"message":{"content":"ho"}}]}"#;
    let other = requests.recv().await.unwrap();
    other.answer("200 OK", "application/json", text).await;
    assert_eq!(second.end().await.0, Exit::Answered(None));
    seen.answer("200 OK", "application/json", text).await;
    assert_eq!(first.end().await.0, Exit::Answered(None));
}
