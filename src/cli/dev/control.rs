//! The socket in a `dev` directory, through which other terminals speak to the foreground: one line of
//! JSON each way. Whoever may write to the directory may use it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::exit::Exit;
use crate::failure::{Failure, Result};

const SOCKET: &str = "control.sock";
/// Bytes of a request: a verb and an id.
const REQUEST_MAX_BYTES: u64 = 1024;
/// How long the foreground may take to answer: an orderly stop, or a start until it is ready.
const ANSWER: Duration = Duration::from_secs(60);
/// Between two tries to take a connection, where that failed: there may be no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Start,
    Stop,
    Kill,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub verb: Verb,
    pub id: String,
}

/// It was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub message: String,
    /// Where it runs now.
    pub pid: Option<u32>,
}

/// What travels back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Done(Reply),
    Failed {
        not_found: bool,
        code: String,
        message: String,
        hint: String,
    },
}

/// A request on its way to the foreground.
#[derive(Debug)]
pub struct Asked {
    pub request: Request,
    pub answer: oneshot::Sender<Result<Reply>>,
}

/// Asks the foreground of `dir`.
pub fn ask(dir: &Path, request: &Request) -> Result<Reply> {
    ask_within(ANSWER, dir, request)
}

fn ask_within(limit: Duration, dir: &Path, request: &Request) -> Result<Reply> {
    let nobody = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::unhealthy(
            format!("no `quorate dev` runs on {}", dir.display()),
            format!(
                "start it: `quorate dev --dir {}`, or name another --dir",
                dir.display()
            ),
        ),
        _ => Failure::file("connect to", &dir.join(SOCKET), error),
    };
    let (_held, path) = short_path(dir).map_err(|error| nobody(&error))?;
    let mut stream = UnixStream::connect(path).map_err(|error| nobody(&error))?;
    let broken = |error: io::Error| unanswered(limit, &error);
    stream.set_read_timeout(Some(limit)).map_err(broken)?;
    let text = serde_json::to_string(request).map_err(|error| broken(error.into()))?;
    stream
        .write_all(format!("{text}\n").as_bytes())
        .map_err(broken)?;
    let mut line = String::new();
    let read = BufReader::new(stream).read_line(&mut line);
    if read.map_err(broken)? == 0 {
        return Err(broken(io::ErrorKind::UnexpectedEof.into()));
    }
    match serde_json::from_str(&line).map_err(|error| broken(error.into()))? {
        Line::Done(reply) => Ok(reply),
        Line::Failed {
            not_found: true,
            message,
            hint,
            ..
        } => Err(Failure::not_found(message, hint)),
        Line::Failed {
            code,
            message,
            hint,
            ..
        } => Err(Failure::refused(&code, message, hint)),
    }
}

/// It was asked, and nobody knows what it did.
fn unanswered(limit: Duration, error: &io::Error) -> Failure {
    let message = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            let limit = humantime::format_duration(limit);
            format!("`quorate dev` did not answer within {limit}")
        }
        io::ErrorKind::UnexpectedEof => "`quorate dev` ended before it answered".to_owned(),
        _ => format!("no answer from `quorate dev`: {error}"),
    };
    let hint = "it may still happen: the terminal in which `quorate dev` runs says what it does";
    Failure::unknown("timeout", message, hint)
}

/// The foreground's end. The socket is gone when this is dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Control {
    /// Begins to listen. The directory's lock is held, so a socket that is there is nobody's.
    pub fn listen(dir: &Path, asked: mpsc::UnboundedSender<Asked>) -> Result<Control> {
        let path = dir.join(SOCKET);
        crate::files::remove(&path)?;
        let failed = |error| Failure::file("listen on", &path, &error);
        let (_held, short) = short_path(dir).map_err(failed)?;
        let listener = UnixListener::bind(short).map_err(failed)?;
        let task = tokio::spawn(accept(listener, asked));
        Ok(Control { path, task })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _gone = fs::remove_file(&self.path);
    }
}

/// A socket's path has room for 107 bytes, a directory's does not end there. The descriptor must be
/// held as long as the path is used.
fn short_path(dir: &Path) -> io::Result<(File, PathBuf)> {
    let held = File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())).join(SOCKET);
    Ok((held, path))
}

async fn accept(listener: UnixListener, asked: mpsc::UnboundedSender<Asked>) {
    let mut last_error = None;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                last_error = None;
                // It answers and ends, or its caller goes away; either way nobody waits for it.
                tokio::spawn(serve(stream, asked.clone()));
            }
            Err(error) => {
                // Once, and not with each try.
                if last_error != Some(error.kind()) {
                    crate::output::note(&format!("cannot take `quorate dev` commands: {error}"));
                }
                last_error = Some(error.kind());
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn serve(
    stream: tokio::net::UnixStream,
    asked: mpsc::UnboundedSender<Asked>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    tokio::io::BufReader::new(read.take(REQUEST_MAX_BYTES))
        .read_line(&mut line)
        .await?;
    let answered = match serde_json::from_str(&line) {
        Ok(request) => {
            let (answer, answered) = oneshot::channel();
            let sent = asked.send(Asked { request, answer });
            let gone = || Failure::refused("stopping", "`quorate dev` is stopping", "");
            match sent {
                Ok(()) => answered.await.unwrap_or_else(|_| Err(gone())),
                Err(_) => Err(gone()),
            }
        }
        Err(error) => Err(Failure::refused(
            "protocol",
            error,
            "use the same version of quorate",
        )),
    };
    let line = match answered {
        Ok(reply) => Line::Done(reply),
        Err(failure) => Line::Failed {
            not_found: failure.exit == Exit::NotFound,
            code: failure.code,
            message: failure.message,
            hint: failure.hint,
        },
    };
    let text = serde_json::to_string(&line)?;
    write.write_all(format!("{text}\n").as_bytes()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_request_reaches_the_foreground_and_its_answer_comes_back() {
        let home = tempfile::tempdir().unwrap();
        // Longer than a socket's path may be.
        let dir = home.path().join("x".repeat(120));
        fs::create_dir(&dir).unwrap();
        let (asked, mut requests) = mpsc::unbounded_channel();
        let control = Control::listen(&dir, asked).unwrap();
        let answering = tokio::spawn(async move {
            let first: Asked = requests.recv().await.unwrap();
            let reply = Reply {
                message: "c1 was killed".into(),
                pid: None,
            };
            first.answer.send(Ok(reply)).unwrap();
            let second: Asked = requests.recv().await.unwrap();
            second
                .answer
                .send(Err(Failure::not_found("there is no c9", "there is: c1")))
                .unwrap();
        });
        let asking = |verb, id: &str| {
            let (dir, request) = (
                dir.clone(),
                Request {
                    verb,
                    id: id.into(),
                },
            );
            tokio::task::spawn_blocking(move || ask(&dir, &request))
        };
        assert_eq!(
            asking(Verb::Kill, "c1").await.unwrap().unwrap().message,
            "c1 was killed"
        );
        let failure = asking(Verb::Start, "c9").await.unwrap().unwrap_err();
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (Exit::NotFound, "there is no c9")
        );
        answering.await.unwrap();
        drop(control);
        let nobody = ask(
            &dir,
            &Request {
                verb: Verb::Stop,
                id: "c1".into(),
            },
        )
        .unwrap_err();
        assert!(nobody.message.contains("no `quorate dev` runs"), "{nobody}");
    }

    #[test]
    fn a_foreground_that_does_not_answer_is_said_to_in_words() {
        let home = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(home.path().join(SOCKET)).unwrap();
        let request = Request {
            verb: Verb::Stop,
            id: "c1".into(),
        };
        let late = ask_within(Duration::from_millis(50), home.path(), &request).unwrap_err();
        let words = "`quorate dev` did not answer within 50ms";
        assert_eq!((late.exit, late.message.as_str()), (Exit::Unknown, words));
        let hanging_up = std::thread::spawn(move || {
            for _ in 0..2 {
                let mut line = String::new();
                let (stream, _) = listener.accept().unwrap();
                BufReader::new(stream).read_line(&mut line).unwrap();
            }
        });
        let gone = ask_within(Duration::from_secs(20), home.path(), &request).unwrap_err();
        assert_eq!(gone.message, "`quorate dev` ended before it answered");
        hanging_up.join().unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_could_not_be_taken_is_not_the_end_of_listening() {
        use std::os::fd::OwnedFd;
        use std::os::unix::net::UnixDatagram;
        let home = tempfile::tempdir().unwrap();
        // It is readable, and takes no connections: each accept fails.
        let socket = UnixDatagram::bind(home.path().join(SOCKET)).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"x", home.path().join(SOCKET)).unwrap();
        let listener = std::os::unix::net::UnixListener::from(OwnedFd::from(socket));
        listener.set_nonblocking(true).unwrap();
        let listener = UnixListener::from_std(listener).unwrap();
        let (asked, _requests) = mpsc::unbounded_channel();
        let listening = tokio::time::timeout(Duration::from_millis(200), accept(listener, asked));
        assert!(listening.await.is_err(), "it goes on");
    }
}
