//! Blobs: what is too large for the log. Each is named by its digest and kept beside the log; entries carry the name.
//!
//! The controllers put a blob on a majority before they propose the entry that names it ([`Held`]). `State`
//! counts who refers to it: records in memory, and the newest segment of the archive. What nobody refers to any more is
//! gone from `State`, and a controller may delete it.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thin_vec::ThinVec;

use crate::limit;
use crate::outcome::Outcome;
use crate::rejected::Rejected;
use crate::spec::TaskSpec;
use crate::trailing::Unset;

/// SHA-256 of a blob's bytes: its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlobDigest(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 hexadecimal digits")]
pub struct NoDigest;

impl FromStr for BlobDigest {
    type Err = NoDigest;

    /// The form that `Display` writes; no other, for it is a file's name.
    fn from_str(text: &str) -> Result<BlobDigest, NoDigest> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NoDigest)?;
        match text.bytes().any(|digit| digit.is_ascii_uppercase()) {
            true => Err(NoDigest),
            false => Ok(BlobDigest(bytes)),
        }
    }
}

/// A blob, and how many bytes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    pub digest: BlobDigest,
    pub size: u64,
}

impl BlobRef {
    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> BlobRef {
        let mut hasher = BlobHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    pub fn validate(&self) -> Result<(), Rejected> {
        match self.size {
            0 => Err(Rejected::Invalid("an empty blob needs no name".into())),
            size if size > limit::BLOB_MAX_BYTES => Err(Rejected::over(
                "a file, or what a task is given or answers",
                usize::try_from(limit::BLOB_MAX_BYTES).unwrap_or(usize::MAX),
                "bytes",
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.digest, self.size)
    }
}

/// Names bytes that come piece by piece: written to it, or copied into it.
#[derive(Debug, Clone, Default)]
pub struct BlobHasher {
    hasher: Sha256,
    size: u64,
}

impl BlobHasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    pub fn finish(self) -> BlobRef {
        BlobRef {
            digest: BlobDigest(self.hasher.finalize().into()),
            size: self.size,
        }
    }
}

impl io::Write for BlobHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that a task finds in its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// A file's name, without a directory.
    pub name: String,
    pub blob: BlobRef,
    pub executable: bool,
}

impl Attachment {
    pub fn validate(&self) -> Result<(), Rejected> {
        if self.blob.size > 0 {
            self.blob.validate()?;
        }
        let name = self.name.as_str();
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            let name = name.escape_debug();
            let text = format!("`{name}` can't be the name of an attached file");
            return Err(Rejected::Invalid(text));
        }
        match name.len() {
            0..=limit::LABEL_MAX_BYTES => Ok(()),
            _ => Err(Rejected::over(
                "the name of an attached file",
                limit::LABEL_MAX_BYTES,
                "bytes",
            )),
        }
    }
}

/// What was too large to stand in a spec itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bulk {
    /// Of a process its arguments and environment (`ProcessBulk` of the protocol), of an inference the body of its request.
    pub blob: BlobRef,
    /// Digest of the spec as it was asked for: what a request id stands for.
    #[serde(with = "serde_bytes")]
    pub whole: [u8; 16],
}

/// The blobs of a spec.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecBlobs {
    pub bulk: Option<Box<Bulk>>,
    pub attachments: ThinVec<Attachment>,
}

impl Unset for SpecBlobs {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl SpecBlobs {
    pub fn is_empty(&self) -> bool {
        self.bulk.is_none() && self.attachments.is_empty()
    }

    /// An empty file needs no blob.
    pub fn refs(&self) -> impl Iterator<Item = BlobRef> {
        let bulk = self.bulk.as_ref().map(|bulk| bulk.blob);
        let files = self.attachments.iter().map(|attachment| attachment.blob);
        bulk.into_iter().chain(files).filter(|blob| blob.size > 0)
    }

    pub(crate) fn validate(&self) -> Result<(), Rejected> {
        if let Some(bulk) = &self.bulk {
            bulk.blob.validate()?;
        }
        if self.attachments.len() > limit::ATTACHMENTS_MAX {
            return Err(Rejected::over(
                "attach",
                limit::ATTACHMENTS_MAX,
                "files of one task",
            ));
        }
        let mut names = std::collections::BTreeSet::new();
        for attachment in &self.attachments {
            attachment.validate()?;
            if !names.insert(&attachment.name) {
                let name = &attachment.name;
                let text = format!("two attached files are named `{name}`");
                return Err(Rejected::Invalid(text));
            }
        }
        Ok(())
    }

    /// About how many bytes they take in the log.
    pub(crate) fn size(&self) -> usize {
        let files = self.attachments.iter();
        self.bulk.as_ref().map_or(0, |_| 64) + files.map(|file| 48 + file.name.len()).sum::<usize>()
    }
}

/// The blobs of a report: the kept output, where it is too large to stand in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeBlobs {
    pub stdout: Option<BlobRef>,
    pub stderr: Option<BlobRef>,
}

impl Unset for Box<OutcomeBlobs> {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl OutcomeBlobs {
    pub fn is_empty(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    pub fn refs(&self) -> impl Iterator<Item = BlobRef> {
        self.stdout.into_iter().chain(self.stderr)
    }
}

/// Who refers to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    pub size: u64,
    /// Specs and results in memory, each time that they name it.
    pub held: u64,
    /// The newest segment of the archive with a record that names it.
    pub segment: Option<u64>,
}

/// That a majority of the voters has the blobs of an operation on disk, and which voters these are: those of the last
/// membership entry of the log before this index, itself included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Held(pub u64);

impl TaskSpec {
    /// The blobs that it names.
    pub fn blob_refs(&self) -> impl Iterator<Item = BlobRef> {
        self.blobs.refs()
    }

    /// A spec whose payload whoever asks has put beside the log.
    pub fn with_bulk(mut self, blob: BlobRef) -> TaskSpec {
        let whole = [0; 16];
        self.blobs.bulk = Some(Box::new(Bulk { blob, whole }));
        let whole = self.digest();
        self.blobs.bulk = Some(Box::new(Bulk { blob, whole }));
        self
    }
}

impl Outcome {
    /// The blobs that it names.
    pub fn blob_refs(&self) -> impl Iterator<Item = BlobRef> {
        self.blobs.refs()
    }
}
