//! A process that writes until it is ended by force, and what it said before that.
//!
//! It is the test that starts it, called again: it finds its [`Life`], which tells it where to write, and
//! acknowledges on its standard output what it would promise to others.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const DIR: &str = "QUORATE_CRASH_DIR";
const NUMBER: &str = "QUORATE_CRASH_LIFE";
const ACKNOWLEDGED: &str = "ack ";

/// How long a writer may take for one acknowledgement, on a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// About as long as a writer takes for a few of them, so that its end comes anywhere between two.
const MOMENT: Duration = Duration::from_millis(20);
/// Several times as long as what is synced in one go takes.
const REST: Duration = Duration::from_millis(20);

/// In the writer: what it was started for.
#[derive(Clone, Debug)]
pub struct Life {
    pub dir: PathBuf,
    /// From 0, one more each time that it is started on the same directory.
    pub number: u64,
}

impl Life {
    /// `None` where nobody started this process as a writer.
    pub fn current() -> Option<Self> {
        let dir = PathBuf::from(std::env::var_os(DIR)?);
        // The runner has begun a line.
        writeln!(io::stdout()).ok()?;
        let number = crate::count(NUMBER, 0);
        Some(Self { dir, number })
    }

    /// Says that `what` is promised from now on. An error: nobody listens any more.
    pub fn acknowledge(&self, what: impl Display) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{ACKNOWLEDGED}{what}")?;
        out.flush()
    }

    /// Quiet for a moment, in every other life: who writes on at once syncs on the way what was
    /// acknowledged too early, since a journal is written out as a whole.
    pub fn rest(&self) {
        if !self.number.is_multiple_of(2) {
            thread::sleep(REST);
        }
    }
}

/// A writing process, from outside.
pub struct Writer {
    child: Child,
    listener: Option<JoinHandle<Heard>>,
    each: Receiver<()>,
    /// How many acknowledgements there were until now.
    acknowledged: Arc<AtomicUsize>,
}

impl Writer {
    /// Calls the test of this name, in this binary.
    pub fn start(test: &str, dir: &Path, number: u64) -> Self {
        let number = number.to_string();
        let mut child = Command::new(std::env::current_exe().expect("a program has a path"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .envs([(DIR, dir.as_os_str()), (NUMBER, OsStr::new(&number))])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this program can be started again");
        let out = BufReader::new(child.stdout.take().expect("it was asked for"));
        let (heard, each) = channel();
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&acknowledged);
        let listener = thread::spawn(move || listen(out, &heard, &count));
        Self {
            child,
            listener: Some(listener),
            each,
            acknowledged,
        }
    }

    /// Lets it write until it acknowledged something a random number of times, at most `most`, and a moment
    /// longer.
    pub fn run(&mut self, most: usize) {
        let times = rand::random_range(1..=most);
        let heard = (0..times).try_for_each(|_| self.each.recv_timeout(PATIENCE));
        thread::sleep(MOMENT.mul_f64(rand::random()));
        let ended = self.child.try_wait().expect("it is our child").is_some();
        if ended || heard.is_err() {
            let last = self.end().last;
            panic!("INVALID: the writer does not write; it said last: {last}");
        }
    }

    pub fn acknowledged_until_now(&self) -> usize {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Kills it. Returns all that it acknowledged, in order.
    pub fn kill(mut self) -> Vec<String> {
        self.end().acknowledged
    }

    fn end(&mut self) -> Heard {
        // It may have ended by itself, when its disk was gone.
        self.child.kill().ok();
        self.child.wait().ok();
        let listener = self.listener.take();
        listener.map_or_else(Heard::default, |listener| {
            listener.join().expect("listening does not fail")
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Default)]
struct Heard {
    acknowledged: Vec<String>,
    /// The last line of another sort.
    last: String,
}

fn listen(out: impl BufRead, any: &Sender<()>, count: &AtomicUsize) -> Heard {
    let mut heard = Heard::default();
    for line in out.lines().map_while(Result::ok) {
        match line.strip_prefix(ACKNOWLEDGED) {
            Some(what) => {
                heard.acknowledged.push(what.to_owned());
                count.store(heard.acknowledged.len(), Ordering::Release);
                any.send(()).ok();
            }
            None if line.is_empty() => {}
            None => heard.last = line,
        }
    }
    heard
}
