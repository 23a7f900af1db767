//! Where a mistake is in a TOML text that somebody wrote: its file and line, and what is wrong there.

use std::fmt::Display;

/// `origin` is the file, as it was named.
pub fn in_toml(origin: impl Display, text: &str, error: &toml::de::Error) -> String {
    // A mistake without a place is of the whole text.
    let line = error
        .span()
        .map_or(1, |at| text[..at.start].matches('\n').count() + 1);
    format!("{origin}:{line}: {}", error.message())
}

#[cfg(test)]
mod tests {
    use super::in_toml;

    #[test]
    fn a_mistake_is_named_with_its_file_and_line() {
        let text = "a = 1\n\nb = = 2\n";
        let error = toml::from_str::<toml::Table>(text).unwrap_err();
        let named = in_toml("x.toml", text, &error);
        assert!(named.starts_with("x.toml:3: "), "{named}");
    }
}
