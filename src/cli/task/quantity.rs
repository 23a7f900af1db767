//! Amounts as people write them: times, sizes, processors; on the command line and in files alike.

use std::time::Duration;

use serde::Deserialize;

/// `"5m"` or `300`, as on the command line.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Quantity {
    Number(u64),
    Decimal(f64),
    Text(String),
}

impl Quantity {
    pub fn text(&self) -> String {
        match self {
            Quantity::Number(number) => number.to_string(),
            Quantity::Decimal(number) => number.to_string(),
            Quantity::Text(text) => text.clone(),
        }
    }
}

/// `30s`, `1h 5m`, or a bare number of seconds.
pub fn time(text: &str) -> Result<Duration, String> {
    let span = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text)
            .map_err(|_| format!("`{text}` is not a time such as 30s, 5m or 1h30m"))?,
    };
    // Milliseconds are what travels: 1 ns would silently become no limit at all.
    if !span.is_zero() && span < Duration::from_millis(1) {
        return Err(format!("`{text}` is less than a millisecond"));
    }
    Ok(span)
}

pub fn millis(span: Duration) -> model::Millis {
    model::Millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// `512`, `512MiB`, `2GiB`; binary units, whatever the spelling.
pub fn mebibytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size such as 512MiB or 2GiB");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let factor = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "m" | "mi" | "mb" | "mib" => 1,
        "g" | "gi" | "gb" | "gib" => 1024,
        "t" | "ti" | "tb" | "tib" => 1024 * 1024,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

/// `2`, `0.5` or `500m`, in thousandths of a processor; nothing finer, and not none at all.
pub fn processors(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is no number of processors such as 2, 0.5 or 500m");
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let milli = match text.strip_suffix('m') {
        Some(milli) if digits(milli) => milli.parse().ok(),
        Some(_) => None,
        None => {
            let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
            let is_number = digits(whole) && digits(part) && part.len() <= 3;
            let whole: Option<u32> = whole.parse().ok().filter(|_| is_number);
            let part: Option<u32> = format!("{part:0<3}").parse().ok();
            whole
                .zip(part)
                .and_then(|(whole, part)| whole.checked_mul(1_000)?.checked_add(part))
        }
    };
    match milli {
        Some(0) => Err("no processor at all: leave it out to ask for none".to_owned()),
        Some(milli) if milli > model::CPU_MILLI_MAX => Err(format!(
            "`{text}` is more than {} processors",
            model::CPU_MILLI_MAX / 1_000
        )),
        Some(milli) => Ok(milli),
        None => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_written_as_a_number_or_in_thousandths() {
        let read = [
            ("2", 2_000),
            ("0.5", 500),
            ("1.25", 1_250),
            ("250m", 250),
            ("1.005", 1_005),
        ];
        for (text, milli) in read {
            assert_eq!(processors(text), Ok(milli), "{text}");
        }
        for text in [
            "",
            "0",
            "0m",
            "m",
            "-1",
            "+1",
            "1.2345",
            ".",
            "2x",
            "1e3",
            "NaN",
            "5000",
            "99999999999",
        ] {
            assert!(processors(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_and_times_are_read_with_and_without_units() {
        for (text, size) in [("512", 512), ("512MiB", 512), ("2GiB", 2048), ("1 g", 1024)] {
            assert_eq!(mebibytes(text), Ok(size));
        }
        for text in ["", "MiB", "5KiB", "-1", "1.5GiB", "99999999999999999TiB"] {
            assert!(mebibytes(text).is_err(), "{text}");
        }
        assert_eq!(time("90"), Ok(Duration::from_secs(90)));
        assert_eq!(time("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(time("soon").is_err() && time("1ns").is_err());
    }
}
