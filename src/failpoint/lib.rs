//! Places at which a test build can be told to die, to hang or to wait.
//!
//! ```text
//!   QUORATE_FAILPOINTS='fsync-after=20%return;reply-before=sleep(300)' quorate controller run …
//! ```
//!
//! The words behind a name are those of the crate `fail`: how often, and what: `return` ends the process on the spot, as
//! SIGKILL would but at that very place; `return(stop)` stops it there, as SIGSTOP would, until somebody continues it; `sleep(MS)`, `delay(MS)`, `yield`, `print` are as there. `QUORATE_FAILPOINTS=list`
//! prints all names and does nothing else. Without the feature `failpoints` there are no such places, [`at`] is empty, and a
//! build without assertions, such as a release, can't have the feature.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("failpoints are for tests: a release is built without the feature `failpoints`");

use strum::{EnumMessage, IntoStaticStr, VariantArray};

/// A place in the product.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, EnumMessage, IntoStaticStr, VariantArray,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Point {
    /// A group of writes to the log is about to be written.
    AppendBefore,
    /// It is in the file, and not synced.
    FsyncBefore,
    /// It is synced, and the log does not know yet.
    FsyncAfter,
    /// Entries are durable, and nobody was told.
    AppendAfter,
    /// A vote is about to be written.
    VoteBefore,
    /// A vote is durable, and the candidate was not told.
    VoteAfter,
    /// A committed entry is about to be applied.
    ApplyBefore,
    /// Entries are applied, and nobody was answered.
    ApplyAfter,
    /// A snapshot is about to be written.
    SnapshotWriteBefore,
    /// A snapshot is written, and does not count yet.
    SnapshotWriteAfter,
    /// Its directory is about to get its name.
    SnapshotRenameBefore,
    /// It has its name, and is not the current one yet.
    SnapshotRenameAfter,
    /// Entries behind a snapshot are about to be purged.
    PurgeBefore,
    /// They are purged as far as the log has it on disk.
    PurgeAfter,
    /// A submit is committed, and its client was not answered.
    ReplyBefore,
    /// The end of a lease is about to be proposed.
    LeaseExpiryBefore,
    /// The end of a lease is committed, and the leader has not acted on it.
    LeaseExpiryAfter,
    /// A join token is about to be used.
    TokenUseBefore,
    /// A join token is used, and its certificate was not handed out.
    TokenUseAfter,
    /// An agent has an attempt in its journal, and has not started it.
    StartBefore,
    /// An agent has looked whether it may start a process for the last time, and has not started it.
    SpawnBefore,
    /// An agent has a verdict in its journal, and has not reported it.
    ReportBefore,
}

impl Point {
    pub const ALL: &[Point] = Point::VARIANTS;

    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Where it is, in words.
    pub fn says(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }
}

/// Here it may be told to die.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn at(_: Point) {}

/// What `QUORATE_FAILPOINTS` asks of this process.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn asked() -> Option<&'static str> {
    None
}

/// Prints all names, if `QUORATE_FAILPOINTS` is `list`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn listed() -> bool {
    false
}

#[cfg(feature = "failpoints")]
pub use armed::{asked, at, listed};

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::OnceLock;

    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;

    const VARIABLE: &str = "QUORATE_FAILPOINTS";
    const LIST: &str = "list";
    const STOP: &str = "stop";

    static ASKED: OnceLock<Option<String>> = OnceLock::new();

    /// Here it may be told to die.
    pub fn at(point: Point) {
        if asked().is_some() {
            fail::fail_point!(point.name(), |how| halt(point, how.as_deref()));
        }
    }

    fn halt(point: Point, how: Option<&str>) {
        let name = point.name();
        if how != Some(STOP) {
            eprintln!("failpoint {name}: the process dies here");
            std::process::abort();
        }
        eprintln!("failpoint {name}: the process stops here");
        kill_process(getpid(), Signal::STOP).expect("a process may stop itself");
    }

    /// What `QUORATE_FAILPOINTS` asks of this process.
    pub fn asked() -> Option<&'static str> {
        let asked = ASKED.get_or_init(|| {
            let text = std::env::var(VARIABLE).ok().filter(|text| text != LIST)?;
            arm(&text).unwrap_or_else(|error| panic!("{VARIABLE}: {error}"));
            Some(text)
        });
        asked.as_deref()
    }

    /// Each `name=words`, apart by semicolons.
    pub(crate) fn arm(text: &str) -> Result<(), String> {
        for one in text.split(';').filter(|one| !one.trim().is_empty()) {
            let (name, words) = one.trim().split_once('=').ok_or("give name=words")?;
            if !Point::ALL.iter().any(|point| point.name() == name) {
                return Err(format!(
                    "there is no failpoint {name}; see {VARIABLE}={LIST}"
                ));
            }
            fail::cfg(name, words)?;
        }
        Ok(())
    }

    /// Prints all names, if `QUORATE_FAILPOINTS` is `list`.
    pub fn listed() -> bool {
        let is_asked = std::env::var_os(VARIABLE).is_some_and(|text| text == LIST);
        if is_asked {
            for point in Point::ALL {
                eprintln!("{:<24} {}", point.name(), point.says().trim());
            }
        }
        is_asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_is_named_once_and_says_where_it_is() {
        let names: Vec<&str> = Point::ALL.iter().map(|point| point.name()).collect();
        let mut different = names.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(names.len(), different.len(), "{names:?}");
        assert!(
            Point::ALL
                .iter()
                .all(|point| point.says().trim().ends_with('.'))
        );
    }

    #[cfg(feature = "failpoints")]
    #[test]
    fn what_is_no_failpoint_is_refused() {
        assert_eq!(
            armed::arm("fsync-after=off; reply-before=1%sleep(1)"),
            Ok(())
        );
        for text in ["fsync-after", "nowhere=return", "fsync-after=explode"] {
            assert!(armed::arm(text).is_err(), "{text}");
        }
        fail::remove("reply-before");
    }
}
