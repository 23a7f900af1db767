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
        if rest.is_empty() {
            Ok(Expression::Exists(key))
        } else if key == "offers" && !rest.starts_with(['=', '!']) {
            match rest.contains(char::is_whitespace) {
                true => Err(fail("a model's name has no white space", at)),
                false => Ok(Expression::Offers(rest.to_owned())),
            }
        } else if let Some(value) = rest.strip_prefix("!=") {
            Ok(Expression::Differs(
                key,
                value_of(value).ok_or_else(|| fail(VALUE, at + 2))?,
            ))
        } else if let Some(value) = rest.strip_prefix('=') {
            Ok(Expression::Equals(
                key,
                value_of(value).ok_or_else(|| fail(VALUE, at + 1))?,
            ))
        } else if let Some(list) = rest.strip_prefix("in").map(str::trim) {
            let inner = list
                .strip_prefix('(')
                .and_then(|list| list.strip_suffix(')'));
            let inner = inner.ok_or_else(|| fail("`(a,b)` is missing", at + 2))?;
            let values: Option<BTreeSet<String>> = inner.split(',').map(value_of).collect();
            Ok(Expression::In(
                key,
                values.ok_or_else(|| fail(VALUE, at + 2))?,
            ))
        } else {
            Err(fail("`=`, `!=` or `in` is expected", at))
        }
    }
}

const VALUE: &str = "a value is missing, or has a character that isn't allowed";

/// A value: anything without white space, comma, parenthesis or `=`, and not empty.
fn value_of(text: &str) -> Option<String> {
    let text = text.trim();
    let bad = |c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')' | '=');
    (!text.is_empty() && !text.contains(bad)).then(|| text.to_owned())
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/')
}

/// Whether a label may have this key.
pub fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_key_char)
}
