//! Blobs, and what of a spec becomes one.

use bytes::Bytes;
use model::{Attachment, BlobDigest, BlobRef, Bulk, TaskSpec};
use prost::Message;

use super::Malformed;
use crate::v1;

impl From<BlobRef> for v1::BlobRef {
    fn from(blob: BlobRef) -> v1::BlobRef {
        v1::BlobRef {
            digest: Bytes::copy_from_slice(&blob.digest.0),
            size: blob.size,
        }
    }
}

impl TryFrom<v1::BlobRef> for BlobRef {
    type Error = Malformed;

    fn try_from(blob: v1::BlobRef) -> Result<BlobRef, Malformed> {
        let digest = <[u8; 32]>::try_from(&*blob.digest)
            .map_err(|_| Malformed("a blob's digest has 32 bytes".into()))?;
        Ok(BlobRef {
            digest: BlobDigest(digest),
            size: blob.size,
        })
    }
}

impl From<&Attachment> for v1::Attachment {
    fn from(attachment: &Attachment) -> v1::Attachment {
        v1::Attachment {
            name: attachment.name.clone(),
            blob: Some(attachment.blob.into()),
            executable: attachment.executable,
        }
    }
}

impl TryFrom<v1::Attachment> for Attachment {
    type Error = Malformed;

    fn try_from(attachment: v1::Attachment) -> Result<Attachment, Malformed> {
        let blob = attachment.blob;
        let blob = blob.ok_or_else(|| Malformed::missing("the blob of an attached file"))?;
        Ok(Attachment {
            name: attachment.name,
            blob: blob.try_into()?,
            executable: attachment.executable,
        })
    }
}

/// A spec whose payload is small enough for the log, and what was taken out of it.
pub fn shorten(mut spec: TaskSpec) -> (TaskSpec, Option<Bytes>) {
    if payload_bytes(&spec) <= model::INLINE_MAX_BYTES || spec.blobs.bulk.is_some() {
        return (spec, None);
    }
    let whole = spec.identity();
    let bytes = match &mut spec.inference {
        Some(inference) => Bytes::from(std::mem::take(&mut inference.request)),
        None => {
            let program = spec.command.first().cloned();
            let bulk = v1::ProcessBulk {
                command: std::mem::take(&mut spec.command),
                env: std::mem::take(&mut spec.env),
            };
            // What people see of it, and what makes the spec one of a process.
            spec.command = program.into_iter().collect();
            bulk.encode_to_vec().into()
        }
    };
    let blob = BlobRef::of(&bytes);
    spec.blobs.bulk = Some(Box::new(Bulk { blob, whole }));
    (spec, Some(bytes))
}

/// The spec as it was asked for.
pub fn restore(spec: &TaskSpec, bulk: &Bytes) -> Result<TaskSpec, Malformed> {
    let mut spec = spec.clone();
    spec.blobs.bulk = None;
    match &mut spec.inference {
        Some(inference) => {
            let request = String::from_utf8(bulk.to_vec());
            inference.request =
                request.map_err(|_| Malformed("the request is not UTF-8 text".into()))?;
        }
        None => {
            let read = v1::ProcessBulk::decode(bulk.clone())
                .map_err(|error| Malformed(format!("a command can't be read: {error}")))?;
            spec.command = read.command;
            spec.env = read.env;
        }
    }
    Ok(spec)
}

fn payload_bytes(spec: &TaskSpec) -> usize {
    let request = spec.inference.as_ref().map_or(0, |it| it.request.len());
    let command = spec.command.iter().map(String::len);
    let env = spec.env.iter().map(|(key, value)| key.len() + value.len());
    request + command.chain(env).sum::<usize>()
}
