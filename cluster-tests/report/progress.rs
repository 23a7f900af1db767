//! What a test says while it runs.
//!
//! Test output is captured and shown only where a test fails; how many kills there were and how long
//! recovery took should be seen in any case. So this goes around the capture, straight to stderr.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The voice of one test.
#[derive(Debug)]
pub struct Progress {
    name: &'static str,
    begun: Instant,
    has_spoken: AtomicBool,
}

impl Progress {
    pub fn new(name: &'static str) -> Progress {
        Progress {
            name,
            begun: Instant::now(),
            has_spoken: AtomicBool::new(false),
        }
    }

    pub fn say(&self, text: impl AsRef<str>) {
        let seconds = self.begun.elapsed().as_secs_f64();
        self.write(&format!(
            "  {} [{seconds:5.1} s] {}\n",
            self.name,
            text.as_ref()
        ));
    }

    /// A test that can't run here. It fails instead where everything is required.
    pub fn skip(&self, reason: &str) {
        self.write(&format!("SKIPPED {}: {reason}\n", self.name));
        assert!(
            std::env::var_os("QUORATE_REQUIRE_ALL").is_none_or(|value| value == "0"),
            "{} was skipped ({reason}), and QUORATE_REQUIRE_ALL is set",
            self.name
        );
    }

    fn write(&self, line: &str) {
        // The test runner's own line is not ended yet.
        let first = if self.has_spoken.swap(true, Ordering::Relaxed) {
            ""
        } else {
            "\n"
        };
        // Nothing is lost for the verdict where stderr is closed.
        let _written = std::io::stderr().write_all(format!("{first}{line}").as_bytes());
    }
}
