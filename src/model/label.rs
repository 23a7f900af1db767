//! What a task requires of an agent: of its labels `key=value`, `key!=value`, `key in (a,b)` and `key` (it
//! exists), of its back ends `offers MODEL`.
//!
//! They are parsed once, where they enter; what travels in the log is the parsed form.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::agent::AgentProfile;

/// A condition on an agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Expression {
    Equals(String, String),
    /// Holds, too, where the key is missing.
    Differs(String, String),
    In(String, BTreeSet<String>),
    Exists(String),
    /// Not of labels: it holds where one of the agent's back ends offers this model.
    Offers(String),
}

/// Where an expression stopped making sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label expression `{text}`: {what} at character {at}")]
pub struct ParseError {
    pub text: String,
    pub what: &'static str,
    /// Counted from 1.
    pub at: usize,
}

impl Expression {
    pub fn matches(&self, agent: &AgentProfile) -> bool {
        let labels = &agent.labels;
        match self {
            Expression::Equals(key, value) => labels.get(key) == Some(value),
            Expression::Differs(key, value) => labels.get(key) != Some(value),
            Expression::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Expression::Exists(key) => labels.contains_key(key),
            Expression::Offers(model) => agent.offers(model),
        }
    }

    /// About how many bytes it takes in the log.
    pub fn size(&self) -> usize {
        match self {
            Expression::Equals(key, value) | Expression::Differs(key, value) => {
                key.len() + value.len() + 12
            }
            Expression::In(key, values) => {
                key.len() + 12 + values.iter().map(|value| value.len() + 5).sum::<usize>()
            }
            Expression::Exists(key) => key.len() + 8,
            Expression::Offers(model) => model.len() + 8,
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expression::Equals(key, value) => write!(f, "{key}={value}"),
            Expression::Differs(key, value) => write!(f, "{key}!={value}"),
            Expression::In(key, values) => {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                write!(f, "{key} in ({})", values.join(","))
            }
            Expression::Exists(key) => f.write_str(key),
            Expression::Offers(model) => write!(f, "offers {model}"),
        }
    }
}

impl FromStr for Expression {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Expression, ParseError> {
        let fail = |what, byte: usize| ParseError {
            text: text.to_owned(),
            what,
            at: text
                .get(..byte)
                .map_or(1, |before| before.chars().count() + 1),
        };
        let start = text.len() - text.trim_start().len();
        let key_len = text[start..]
            .find(|c: char| !is_key_char(c))
            .unwrap_or(text.len() - start);
        let key = text[start..start + key_len].to_owned();
        if key.is_empty() {
            return Err(fail("a key is missing", start));
        }
        let rest = text[start + key_len..].trim();
        let at = text.len() - text[start + key_len..].trim_start().len();
        let value = |text, at| value_of(text, at).map_err(|(what, byte)| fail(what, byte));
        if rest.is_empty() {
            Ok(Expression::Exists(key))
        } else if key == "offers" && !rest.starts_with(['=', '!']) {
            match rest.find(char::is_whitespace) {
                Some(space) => Err(fail("a model's name has no white space", at + space)),
                None => Ok(Expression::Offers(rest.to_owned())),
            }
        } else if let Some(other) = rest.strip_prefix("!=") {
            Ok(Expression::Differs(key, value(other, at + 2)?))
        } else if let Some(same) = rest.strip_prefix('=') {
            Ok(Expression::Equals(key, value(same, at + 1)?))
        } else if let Some(list) = rest.strip_prefix("in")
            && !list.starts_with(is_key_char)
        {
            let values = list_of(list, at + 2).map_err(|(what, byte)| fail(what, byte))?;
            Ok(Expression::In(key, values))
        } else {
            Err(fail("`=`, `!=` or `in (a,b)` is expected", at))
        }
    }
}

/// What is wrong, and at which byte.
type Wrong = (&'static str, usize);

/// Values in parentheses; the text begins at byte `at`.
fn list_of(text: &str, at: usize) -> Result<BTreeSet<String>, Wrong> {
    let at = at + text.len() - text.trim_start().len();
    let text = text.trim();
    let inner = text.strip_prefix('(').ok_or(("`(` is expected", at))?;
    let end = inner.find(')');
    let end = end.ok_or(("`)` is missing", at + text.len()))?;
    let behind = &inner[end + 1..];
    if !behind.is_empty() {
        let skipped = behind.len() - behind.trim_start().len();
        return Err(("nothing is expected behind `)`", at + end + 2 + skipped));
    }
    let mut from = at + 1;
    let values = inner[..end].split(',').map(|value| {
        let begins = from;
        from += value.len() + 1;
        value_of(value, begins)
    });
    values.collect()
}

/// A value: anything without white space, comma, parenthesis or `=`, and not empty. The text begins at byte `at`.
fn value_of(text: &str, at: usize) -> Result<String, Wrong> {
    let begins = at + text.len() - text.trim_start().len();
    let value = text.trim();
    let bad = |c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')' | '=');
    match value.find(bad) {
        _ if value.is_empty() => Err(("a value is missing", begins)),
        Some(found) => Err(("a value has no such character", begins + found)),
        None => Ok(value.to_owned()),
    }
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/')
}

/// Whether a label may have this key.
pub fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_key_char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_pointed_at() {
        let wrong = [
            ("", 1, "a key is missing"),
            ("  =a", 3, "a key is missing"),
            ("zöne=a", 2, "`=`, `!=` or `in (a,b)` is expected"),
            ("zone=", 6, "a value is missing"),
            ("zone = ", 7, "a value is missing"),
            ("zone=a b", 7, "a value has no such character"),
            ("zone=ä,b", 7, "a value has no such character"),
            ("zone!= a=b", 9, "a value has no such character"),
            ("zone==a", 6, "a value has no such character"),
            ("zone in", 8, "`(` is expected"),
            ("zone in a", 9, "`(` is expected"),
            ("zone in (a,b", 13, "`)` is missing"),
            ("zone in ( a, b c)", 15, "a value has no such character"),
            ("zone in (a,,b)", 12, "a value is missing"),
            ("zone in ()", 10, "a value is missing"),
            ("zone in (a) b", 13, "nothing is expected behind `)`"),
            ("gpu inside", 5, "`=`, `!=` or `in (a,b)` is expected"),
            ("gpu > 2", 5, "`=`, `!=` or `in (a,b)` is expected"),
            ("offers llama 3", 13, "a model's name has no white space"),
        ];
        for (text, at, what) in wrong {
            let error = text.parse::<Expression>().unwrap_err();
            assert_eq!((error.at, error.what), (at, what), "{text}");
            let told = format!("label expression `{text}`: {what} at character {at}");
            assert_eq!(error.to_string(), told);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let right = [
            ("zone=a", "zone=a"),
            (" zone != a ", "zone!=a"),
            ("zone in ( b ,a)", "zone in (a,b)"),
            ("zone in(a)", "zone in (a)"),
            ("inside", "inside"),
            ("offers llama3:8b", "offers llama3:8b"),
            ("offers=yes", "offers=yes"),
        ];
        for (text, told) in right {
            let read: Expression = text.parse().unwrap();
            assert_eq!(read.to_string(), told);
            assert_eq!(told.parse::<Expression>().unwrap(), read);
        }
    }
}
