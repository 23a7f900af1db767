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
    let broken = |error: io::Error| {
        Failure::unknown(
            "timeout",
            format!("no answer from `quorate dev`: {error}"),
            "look there",
        )
    };
    stream.set_read_timeout(Some(ANSWER)).map_err(broken)?;
    let text = serde_json::to_string(request).map_err(|error| broken(error.into()))?;
    stream
        .write_all(format!("{text}\n").as_bytes())
        .map_err(broken)?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .map_err(broken)?;
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
    while let Ok((stream, _)) = listener.accept().await {
        // It answers and ends, or its caller goes away; either way nobody waits for it.
        tokio::spawn(serve(stream, asked.clone()));
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
}
