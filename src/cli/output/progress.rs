//! A sign of life for whatever takes longer than a second: on stderr, and only on a terminal.

use std::future::Future;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is over sooner needs no sign of life.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two frames of the spinner.
const FRAME: Duration = Duration::from_millis(120);

/// A spinner with a text behind it, drawn only where a person watches.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub fn start(text: &str) -> Progress {
        let target = if super::watched() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(FRAME);
        Progress { bar }
    }

    pub fn say(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// How far a transfer has come, of which it is known how much there is.
pub struct Transfer {
    bar: ProgressBar,
    since: Instant,
}

impl Transfer {
    pub fn start(bytes: u64) -> Transfer {
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template(
            "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Transfer {
            bar,
            since: Instant::now(),
        }
    }

    pub fn say(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }

    /// Drawn once it takes longer than a second, and a person watches.
    pub fn at(&self, bytes: u64) {
        self.bar.set_position(bytes);
        if self.bar.is_hidden() && self.since.elapsed() >= PATIENCE && super::watched() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Waits for `work`, and shows `text` once it takes longer than a second.
pub async fn waiting<T>(text: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
        return done;
    }
    let _shown = Progress::start(text);
    work.await
}
