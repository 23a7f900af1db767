//! The two clocks of an agent. Only the shell reads them: what decides, the worker and the lease, is
//! given the time.
//!
//! Leases are counted on `CLOCK_BOOTTIME`: unlike the monotonic clock it goes on while the machine
//! is suspended, and unlike the wall clock nobody can set it.

use std::time::{SystemTime, UNIX_EPOCH};

use model::{Millis, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// Time since the machine booted, suspended or not.
pub(crate) fn since_boot() -> Millis {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Millis(seconds * 1000 + nanos / 1_000_000)
}

/// Wall time, for display only.
pub(crate) fn wall() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const THIS: &str = "clock::tests::a_lease_goes_on_to_run_while_the_machine_is_suspended";
    /// Set in the process that only says what its clock shows.
    const ASKED: &str = "QUORATE_CLOCK_IS_ASKED";
    const SAYS: &str = "the clock shows ";
    /// A suspend of weeks: longer than any machine was up that would make the difference by chance.
    const SUSPENDED_S: u64 = 10_000_000;

    #[test]
    fn boot_time_goes_forward_and_is_shorter_than_wall_time() {
        let first = since_boot();
        assert!(first.0 > 0);
        assert!(since_boot() >= first);
        assert!(wall().0 > first.0);
    }

    /// What this test says, called again where the boot clock alone is ahead: there the monotonic clock shows what it
    /// shows here, as after a suspend.
    fn shown_after_a_suspend() -> Result<Millis, String> {
        let exe = std::env::current_exe().expect("a program has a path");
        let output = Command::new("unshare")
            .args(["--time", "--fork", "--boottime", &SUSPENDED_S.to_string()])
            .arg(exe)
            .args(["--exact", THIS, "--nocapture", "--test-threads=1"])
            .env(ASKED, "1")
            .output()
            .map_err(|error| format!("unshare: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let shown = said.lines().find_map(|line| line.strip_prefix(SAYS));
        match shown.and_then(|millis| millis.parse().ok()) {
            Some(millis) => Ok(Millis(millis)),
            None => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    #[test]
    fn a_lease_goes_on_to_run_while_the_machine_is_suspended() {
        if std::env::var_os(ASKED).is_some() {
            // The runner has begun a line.
            println!("\n{SAYS}{}", since_boot().0);
            return;
        }
        let probe = ["--time", "--fork", "--boottime", "1", "true"];
        if let Err(why) = crash::tool("unshare", &probe) {
            return crash::skip("a clock as after a suspend", &why);
        }
        let before = since_boot();
        let shown = shown_after_a_suspend().unwrap();
        let after = since_boot();
        let ahead = |now: Millis| now.0 + SUSPENDED_S * 1_000;
        assert!(
            (ahead(before)..=ahead(after)).contains(&shown.0),
            "{shown:?} is not {SUSPENDED_S} s ahead of {before:?} to {after:?}"
        );
    }
}
