//! Text as a person can paste it into a shell.

/// One word, quoted where a shell would read it as something else.
pub fn word(text: &str) -> String {
    let bare = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(bare) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn a_word_stays_one_word_in_a_shell() {
        for (text, shown) in [
            ("/tmp/q-1", "/tmp/q-1"),
            ("", "''"),
            ("my cluster", "'my cluster'"),
            ("it's $HOME", r"'it'\''s $HOME'"),
        ] {
            assert_eq!(word(text), shown);
        }
    }
}
