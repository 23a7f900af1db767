//! Files that go with a task: named by their digests, and put on the controllers before the submit.

use std::fs::File;
use std::io::{self, Cursor};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::{Attachment, BlobHasher, BlobRef};

use super::spec::invalid;
use crate::client::Connection;
use crate::failure::{Failure, Result};
use crate::output::Transfer;

/// Something to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// As people know it.
    pub name: String,
    pub blob: BlobRef,
    pub from: Origin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    /// Made by us, or read from stdin.
    Memory(Bytes),
}

/// A file of this machine, as the task will find it. An empty one needs no upload.
pub fn attach(path: &Path) -> Result<(Attachment, Option<Upload>)> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| {
        let path = path.display();
        invalid(format!("--attach {path}: its name is not text in UTF-8"))
    })?;
    let unreadable = |error: io::Error| Failure::file("read", path, &error);
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(Failure::refused(
            "invalid",
            format!("{} is not a file", path.display()),
            "pack a directory first: tar -czf work.tar.gz DIR",
        ));
    }
    if about.len() > model::BLOB_MAX_BYTES {
        let text = format!(
            "{} has {} bytes, and a file may have {} (64 MiB)",
            path.display(),
            about.len(),
            model::BLOB_MAX_BYTES
        );
        let next = "put large data where the agents can read it, and name it in the command";
        return Err(Failure::refused("over_limit", text, next));
    }
    let mut hasher = BlobHasher::default();
    io::copy(
        &mut io::BufReader::with_capacity(1 << 20, file),
        &mut hasher,
    )
    .map_err(unreadable)?;
    let blob = hasher.finish();
    let attachment = Attachment {
        name: name.to_owned(),
        blob,
        executable: about.permissions().mode() & 0o111 != 0,
    };
    let upload = Upload {
        name: path.display().to_string(),
        blob,
        from: Origin::File(path.to_owned()),
    };
    Ok((attachment, Some(upload).filter(|_| blob.size > 0)))
}

/// Before the submit: what is interrupted here goes on where it stopped, if it is begun again soon.
pub async fn upload_first(cluster: &Connection, uploads: &[Upload]) -> Result<()> {
    tokio::select! {
        done = upload(cluster, uploads) => done,
        () = crate::client::interrupted() => Err(Failure::interrupted(
            "interrupted while files were uploaded; nothing was submitted",
            "the same command goes on where it stopped",
        )),
    }
}

/// Until a majority has all of them. What is there already is not sent again.
pub async fn upload(cluster: &Connection, uploads: &[Upload]) -> Result<()> {
    let all = uploads.iter().map(|upload| upload.blob.size).sum();
    let shown = Transfer::start(all);
    let mut before = 0;
    for upload in uploads {
        shown.say(&format!("uploading {}", upload.name));
        let told = |offset| shown.at(before + offset);
        match &upload.from {
            Origin::File(path) => {
                let file = tokio::fs::File::open(path).await;
                let mut file = file.map_err(|error| Failure::file("read", path, &error))?;
                let put = cluster.put_blob(upload.blob, &mut file, told).await;
                put.map_err(|failure| changed(failure, path))?;
            }
            Origin::Memory(bytes) => {
                let mut bytes = Cursor::new(bytes.clone());
                cluster.put_blob(upload.blob, &mut bytes, told).await?;
            }
        }
        before += upload.blob.size;
    }
    Ok(())
}

/// What came was not what the digest was made of.
fn changed(failure: Failure, path: &Path) -> Failure {
    match failure.code.as_str() {
        "invalid" => {
            let path = path.display();
            Failure {
                message: format!(
                    "{path} was changed while it was uploaded ({})",
                    failure.message
                ),
                hint: "submit again, once nothing writes to it".to_owned(),
                ..failure
            }
        }
        _ => failure,
    }
}
