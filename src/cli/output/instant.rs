//! Times and spans, for programs (RFC 3339 in UTC with milliseconds) and for people.

use jiff::Timestamp;

/// Milliseconds since the Unix epoch as `2026-01-31T12:00:00.000Z`. Nothing for a time that no
/// calendar has.
pub fn rfc3339(millis: u64) -> Option<String> {
    let instant = Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()?;
    Some(format!("{instant:.3}"))
}

/// How long ago, in one unit: `12s`, `5m`, `3h`, `9d`.
pub fn ago(millis: u64, now: u64) -> String {
    span(now.saturating_sub(millis))
}

/// A span in milliseconds, in one unit.
pub fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::{ago, rfc3339};

    #[test]
    fn times_are_utc_with_milliseconds() {
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(
            rfc3339(1_767_225_600_120).as_deref(),
            Some("2026-01-01T00:00:00.120Z")
        );
        assert_eq!(rfc3339(u64::MAX), None);
    }

    #[test]
    fn ages_have_one_unit() {
        assert_eq!(ago(1_000, 13_999), "12s");
        assert_eq!(ago(0, 300_000), "5m");
        assert_eq!(ago(0, 3 * 3_600_000), "3h");
        assert_eq!(ago(0, 9 * 86_400_000), "9d");
        assert_eq!(ago(5_000, 0), "0s", "a clock that is behind");
    }
}
