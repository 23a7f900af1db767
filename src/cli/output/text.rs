//! Bytes of a task in JSON: as text where they are text, in base64 where they are not.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

/// The most bytes that cutting can leave of a UTF-8 character at the front.
const CUT_CHARACTER_MAX: usize = 3;

/// Inserts `name`, and where the bytes are not UTF-8 `null` there and `name_base64` behind it.
/// Of `truncated` bytes the rest of a character that was cut in two does not count.
pub fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8], truncated: bool) {
    if let Some(text) = as_text(bytes, truncated) {
        object.insert(name.to_owned(), Value::from(text));
    } else {
        object.insert(name.to_owned(), Value::Null);
        object.insert(
            format!("{name}_base64"),
            Value::from(BASE64_STANDARD.encode(bytes)),
        );
    }
}

/// The bytes as a person can read them.
pub fn lossy(bytes: &[u8], truncated: bool) -> String {
    let kept = if truncated {
        whole_characters(bytes)
    } else {
        bytes
    };
    plain(&String::from_utf8_lossy(kept))
}

/// A text for a screen: it has lines and tabs, and nothing else that a terminal would obey.
pub fn plain(text: &str) -> String {
    let kept = |c: char| !c.is_control() || c == '\n' || c == '\t';
    text.chars()
        .map(|c| if kept(c) { c } else { '\u{fffd}' })
        .collect()
}

fn as_text(bytes: &[u8], truncated: bool) -> Option<&str> {
    let kept = if truncated {
        whole_characters(bytes)
    } else {
        bytes
    };
    std::str::from_utf8(kept).ok()
}

fn whole_characters(bytes: &[u8]) -> &[u8] {
    let continuation = |byte: &&u8| (**byte & 0b1100_0000) == 0b1000_0000;
    let cut = bytes
        .iter()
        .take(CUT_CHARACTER_MAX)
        .take_while(continuation)
        .count();
    &bytes[cut..]
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::{insert_bytes, lossy};

    fn json(bytes: &[u8], truncated: bool) -> String {
        let mut object = Map::new();
        insert_bytes(&mut object, "stdout", bytes, truncated);
        Value::Object(object).to_string()
    }

    #[test]
    fn text_stays_text_and_other_bytes_are_base64() {
        assert_eq!(
            json("h\u{e9}\n".as_bytes(), false),
            "{\"stdout\":\"h\u{e9}\\n\"}"
        );
        assert_eq!(
            json(b"\xff\x00", false),
            r#"{"stdout":null,"stdout_base64":"/wA="}"#
        );
    }

    #[test]
    fn a_character_cut_at_the_front_of_a_tail_does_not_make_it_binary() {
        let cut = &"\u{20ac}uro".as_bytes()[1..];
        assert_eq!(json(cut, true), r#"{"stdout":"uro"}"#);
        assert!(json(cut, false).contains("base64"));
    }

    #[test]
    fn what_a_person_reads_moves_no_cursor() {
        assert_eq!(lossy(b"a\x1b[2J\nb", false), "a\u{fffd}[2J\nb");
    }
}
