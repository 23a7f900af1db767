//! What a person asks for: the task's spec, its kind and class.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thin_vec::ThinVec;

use crate::blob::SpecBlobs;
use crate::class::Class;
use crate::id::Namespace;
use crate::inference::Inference;
use crate::label::Expression;
use crate::limit;
use crate::mix::Sort;
use crate::rejected::Rejected;
use crate::resource::{Demand, Hardware, Need};
use crate::share::Price;
use crate::time::Millis;
use crate::trailing::positional;

/// What sort of work it is, and so which executor runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    Process,
    Inference,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Process, Kind::Inference];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Process => "process",
            Kind::Inference => "inference",
        }
    }

    /// Retries where the submitter did not say.
    pub fn default_retries(self) -> u32 {
        match self {
            Kind::Process => 0,
            // A second answer does no harm.
            Kind::Inference => 2,
        }
    }

    pub fn default_class(self) -> Class {
        match self {
            Kind::Process => Class::Standard,
            // Somebody waits for it.
            Kind::Inference => Class::Interactive,
        }
    }
}

/// What is no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of task: there are {names}", names = Kind::ALL.map(Kind::as_str).join(", "))]
pub struct NoSuchKind(pub String);

impl FromStr for Kind {
    type Err = NoSuchKind;

    fn from_str(text: &str) -> Result<Kind, NoSuchKind> {
        let found = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| NoSuchKind(text.to_owned()))
    }
}

/// What is to run on one agent: a process, or an inference.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// For people; empty where none was given.
    pub name: String,
    pub namespace: Namespace,
    /// Program and arguments; the program is looked up in `PATH` on the agent.
    pub command: Vec<String>,
    /// Beside what the agent sets itself.
    pub env: BTreeMap<String, String>,
    /// Empty: the attempt's own scratch directory.
    pub cwd: String,
    pub labels: BTreeMap<String, String>,
    /// Each must hold for an agent's labels.
    pub require: Vec<Expression>,
    /// How long an attempt may run.
    pub timeout: Option<Millis>,
    /// How long after the submit it must have been assigned for the first time; else it fails.
    pub deadline: Option<Millis>,
    /// Attempts after a failed one.
    pub retries: u32,
    /// Never assigned again once assigned.
    pub at_most_once: bool,
    /// What an attempt may use at most, and what an agent has to have for it.
    pub memory_mib: Option<u64>,
    /// Of an inference; then there is no command, environment, directory or memory limit.
    #[serde(default)]
    pub inference: Option<Box<Inference>>,
    /// What stands beside the log.
    #[serde(default)]
    pub blobs: SpecBlobs,
    /// Where it is not the kind's own.
    #[serde(default)]
    pub class: Option<Class>,
    /// What else an agent has to have for it.
    #[serde(default)]
    pub hardware: Hardware,
    /// Agents of which more of these hold are taken first, as long as one of them has a free slot.
    #[serde(default)]
    pub prefer: ThinVec<Expression>,
    /// A task of a higher class may take its place: it is ended then, and goes back to the queue.
    #[serde(default)]
    pub preemptible: bool,
}

// With the counts of its `Arc` well within 320 bytes, a size of the allocator's.
const _: () = assert!(size_of::<TaskSpec>() <= 264);

positional!(TaskSpec {
    name, namespace, command, env, cwd, labels, require, timeout, deadline, retries, at_most_once, memory_mib,
    inference
} later { blobs, class, hardware, prefer, preemptible });

impl TaskSpec {
    /// A spec with nothing but a command.
    pub fn process(namespace: Namespace, command: Vec<String>) -> TaskSpec {
        TaskSpec {
            name: String::new(),
            namespace,
            inference: None,
            command,
            env: BTreeMap::new(),
            cwd: String::new(),
            labels: BTreeMap::new(),
            require: Vec::new(),
            timeout: None,
            deadline: None,
            retries: Kind::Process.default_retries(),
            at_most_once: false,
            memory_mib: None,
            blobs: SpecBlobs::default(),
            class: None,
            hardware: Hardware::default(),
            prefer: ThinVec::new(),
            preemptible: false,
        }
    }

    /// A spec with nothing but a request to a model, which the agent has to offer.
    pub fn inference(namespace: Namespace, inference: Inference) -> TaskSpec {
        TaskSpec {
            require: vec![Expression::Offers(inference.model.clone())],
            retries: Kind::Inference.default_retries(),
            inference: Some(Box::new(inference)),
            ..TaskSpec::process(namespace, Vec::new())
        }
    }

    pub fn kind(&self) -> Kind {
        match self.inference {
            Some(_) => Kind::Inference,
            None => Kind::Process,
        }
    }

    /// What strategies and rules tell it apart by.
    pub fn sort(&self) -> Sort {
        (self.namespace.clone(), self.kind())
    }

    pub fn class(&self) -> Class {
        self.class.unwrap_or_else(|| self.kind().default_class())
    }

    /// What an attempt takes of its agent.
    pub fn demand(&self) -> Demand {
        let Hardware {
            cpu_milli,
            gpus,
            vram_mib,
        } = self.hardware;
        Demand {
            cpu_milli,
            // More than any agent has, however much it is: the first release has no limit.
            memory_mib: self.memory_mib.unwrap_or(0).min(limit::MEMORY_MIB_MAX + 1),
            gpus,
            vram_mib,
        }
    }

    /// What it costs while it runs.
    pub fn price(&self) -> Price {
        Price::of(&self.demand())
    }

    /// What it asks of an agent.
    pub fn need(&self) -> Need<'_> {
        Need {
            require: &self.require,
            demand: self.demand(),
        }
    }

    /// Everything that `apply` would refuse, so that an edge can say it early.
    pub fn validate(&self) -> Result<(), Rejected> {
        self.validate_texts()?;
        self.validate_labels()?;
        self.blobs.validate()?;
        if self.retries > limit::RETRIES_MAX {
            return Err(Rejected::over(
                "retries",
                limit::RETRIES_MAX as usize,
                "retries",
            ));
        }
        if self.at_most_once && self.retries > 0 {
            return Err(Rejected::Invalid(
                "at-most-once and retries exclude each other: a task that may run only once \
                 cannot be tried again"
                    .into(),
            ));
        }
        if self.at_most_once && self.preemptible {
            return Err(Rejected::Invalid(
                "at-most-once and preemptible exclude each other: a task that may run only once \
                 could not go on after it was preempted"
                    .into(),
            ));
        }
        if self.timeout == Some(Millis(0)) || self.deadline == Some(Millis(0)) {
            return Err(Rejected::Invalid(
                "a timeout or deadline of 0 could never be met".into(),
            ));
        }
        if self.memory_mib == Some(0) {
            return Err(Rejected::Invalid(
                "a memory limit of 0 leaves nothing to run in".into(),
            ));
        }
        self.hardware.validate()?;
        if self.size() > limit::SPEC_MAX_BYTES {
            return Err(Rejected::over("spec", limit::SPEC_MAX_BYTES, "bytes"));
        }
        Ok(())
    }

    fn validate_texts(&self) -> Result<(), Rejected> {
        if !self.namespace.is_valid() {
            return Err(Rejected::Invalid(format!(
                "bad namespace `{}`",
                self.namespace
            )));
        }
        match &self.inference {
            Some(inference) => self.validate_inference(inference)?,
            None if self.command.first().is_none_or(String::is_empty) => {
                return Err(Rejected::Invalid(
                    "no command: say what to run after `--`".into(),
                ));
            }
            None => {}
        }
        if self.name.len() > limit::NAME_MAX_BYTES {
            return Err(Rejected::over("name", limit::NAME_MAX_BYTES, "bytes"));
        }
        let bad_key = |key: &String| key.is_empty() || key.contains('=') || key.contains('\0');
        if let Some(key) = self.env.keys().find(|key| bad_key(key)) {
            return Err(Rejected::Invalid(format!(
                "`{key}` can't name an environment variable"
            )));
        }
        let mut texts = self
            .command
            .iter()
            .chain(self.env.values())
            .chain([&self.cwd]);
        if texts.any(|text| text.contains('\0')) {
            return Err(Rejected::Invalid(
                "a command, environment or directory can't contain a NUL byte".into(),
            ));
        }
        Ok(())
    }

    fn validate_inference(&self, inference: &Inference) -> Result<(), Rejected> {
        inference.validate()?;
        match (inference.request.is_empty(), &self.blobs.bulk) {
            (true, None) => return Err(Rejected::Invalid("an inference asks nothing".into())),
            (false, Some(_)) => {
                let text = "a request stands in the spec or beside it, not both";
                return Err(Rejected::Invalid(text.into()));
            }
            (true, Some(_)) | (false, None) => {}
        }
        let of_a_process = [
            ("a command", !self.command.is_empty()),
            ("an environment", !self.env.is_empty()),
            ("a directory", !self.cwd.is_empty()),
            ("a memory limit", self.memory_mib.is_some()),
            ("processors", self.hardware.cpu_milli > 0),
            (
                "GPUs, which are its back end's",
                self.hardware.gpus > 0 || self.hardware.vram_mib > 0,
            ),
            ("attached files", !self.blobs.attachments.is_empty()),
        ];
        if let Some((what, _)) = of_a_process.iter().find(|(_, given)| *given) {
            return Err(Rejected::Invalid(format!("an inference has not {what}")));
        }
        let offered = Expression::Offers(inference.model.clone());
        match self.require.contains(&offered) {
            true => Ok(()),
            false => Err(Rejected::Invalid(format!(
                "an inference has to require that its model is offered: `{offered}`"
            ))),
        }
    }

    fn validate_labels(&self) -> Result<(), Rejected> {
        validate_labels(&self.labels)?;
        validate_expressions("require", &self.require)?;
        validate_expressions("prefer", &self.prefer)
    }

    /// About how many bytes it takes in the log: the texts, and a little for each field.
    pub fn size(&self) -> usize {
        let pairs = self.env.iter().chain(&self.labels);
        let inference = self.inference.as_ref().map_or(0, |it| it.size());
        64 + inference
            + self.blobs.size()
            + self.name.len()
            + self.cwd.len()
            + self
                .command
                .iter()
                .map(|text| text.len() + 5)
                .sum::<usize>()
            + pairs
                .map(|(key, value)| key.len() + value.len() + 10)
                .sum::<usize>()
            + self.require.iter().map(Expression::size).sum::<usize>()
            + self.prefer.iter().map(Expression::size).sum::<usize>()
    }
}

/// The limit on expressions, which tasks and rules share.
pub(crate) fn validate_expressions(what: &str, given: &[Expression]) -> Result<(), Rejected> {
    match given.len() {
        0..=limit::LABELS_MAX => Ok(()),
        _ => Err(Rejected::over(what, limit::LABELS_MAX, "expressions")),
    }
}

/// The limits on labels, which tasks and agents share.
pub fn validate_labels(labels: &BTreeMap<String, String>) -> Result<(), Rejected> {
    if labels.len() > limit::LABELS_MAX {
        return Err(Rejected::over("labels", limit::LABELS_MAX, "labels"));
    }
    let long = |text: &String| text.len() > limit::LABEL_MAX_BYTES;
    if labels.iter().any(|(key, value)| long(key) || long(value)) {
        return Err(Rejected::over("label", limit::LABEL_MAX_BYTES, "bytes"));
    }
    match labels.keys().find(|key| !crate::label::is_key(key)) {
        Some(key) => Err(Rejected::Invalid(format!("`{key}` can't be a label's key"))),
        None => Ok(()),
    }
}
