//! Inference: what is asked of a model, the back ends that answer, and what an answer cost.

use serde::{Deserialize, Serialize};

use crate::limit;
use crate::rejected::Rejected;

/// A request to an OpenAI-compatible back end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inference {
    pub model: String,
    pub endpoint: Endpoint,
    /// The request's body: a JSON object, as the OpenAI API has it; empty where it is a blob. Which model answers, and
    /// that the answer streams, is said by the agent.
    pub request: String,
}

/// What of the OpenAI API is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Endpoint {
    ChatCompletions,
    Completions,
    Embeddings,
}

impl Endpoint {
    /// Behind the API's root.
    pub fn path(self) -> &'static str {
        match self {
            Endpoint::ChatCompletions => "chat/completions",
            Endpoint::Completions => "completions",
            Endpoint::Embeddings => "embeddings",
        }
    }
}

impl Inference {
    pub fn validate(&self) -> Result<(), Rejected> {
        validate_model(&self.model)
    }

    /// About how many bytes it takes in the log.
    pub fn size(&self) -> usize {
        24 + self.model.len() + self.request.len()
    }
}

/// What is wrong with a model's name.
pub fn validate_model(name: &str) -> Result<(), Rejected> {
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let text = format!("`{}` can't be a model's name", name.escape_debug());
        return Err(Rejected::Invalid(text));
    }
    if name.len() > limit::MODEL_MAX_BYTES {
        return Err(Rejected::over(
            "a model's name",
            limit::MODEL_MAX_BYTES,
            "bytes",
        ));
    }
    Ok(())
}

/// Tokens, as the back end counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

/// A model server that an agent reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Unique on its agent.
    pub name: String,
    pub url: String,
    /// What it offers, in order; none where it can't be reached.
    pub models: Vec<String>,
    /// Why it can't be used now; empty where it can.
    pub trouble: String,
}

impl Backend {
    fn validate(&self) -> Result<(), Rejected> {
        let texts = [
            ("a back end's name", &self.name, limit::LABEL_MAX_BYTES),
            ("a back end's URL", &self.url, limit::REASON_MAX_BYTES),
            (
                "a back end's trouble",
                &self.trouble,
                limit::REASON_MAX_BYTES,
            ),
        ];
        if let Some((what, _, most)) = texts.iter().find(|(_, text, most)| text.len() > *most) {
            return Err(Rejected::over(what, *most, "bytes"));
        }
        if self.name.is_empty() {
            return Err(Rejected::Invalid("a back end without a name".into()));
        }
        if self.models.len() > limit::MODELS_MAX {
            return Err(Rejected::over(
                "the models of a back end",
                limit::MODELS_MAX,
                "models",
            ));
        }
        self.models.iter().try_for_each(|name| validate_model(name))
    }

    fn size(&self) -> usize {
        let models = self.models.iter().map(|name| name.len() + 5);
        20 + self.name.len() + self.url.len() + self.trouble.len() + models.sum::<usize>()
    }
}

/// The limits on an agent's back ends.
pub fn validate_backends(backends: &[Backend]) -> Result<(), Rejected> {
    if backends.len() > limit::BACKENDS_MAX {
        return Err(Rejected::over(
            "the back ends of an agent",
            limit::BACKENDS_MAX,
            "back ends",
        ));
    }
    if size_of_backends(backends) > limit::BACKENDS_MAX_BYTES {
        return Err(Rejected::over(
            "the back ends of an agent with their models",
            limit::BACKENDS_MAX_BYTES,
            "bytes",
        ));
    }
    let named = |(at, backend): (usize, &Backend)| {
        backends[..at]
            .iter()
            .any(|other| other.name == backend.name)
    };
    if let Some(twice) = backends.iter().enumerate().find(|it| named(*it)) {
        let text = format!("two back ends are named `{}`", twice.1.name);
        return Err(Rejected::Invalid(text));
    }
    backends.iter().try_for_each(Backend::validate)
}

pub(crate) fn size_of_backends(backends: &[Backend]) -> usize {
    backends.iter().map(Backend::size).sum()
}
