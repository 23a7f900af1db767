//! A segment as it comes from another controller: written beside the others, and refused where it is not what was needed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::Arc;

use durable::at;
use model::Record;

use super::catalog::{Shared, coming, fetched};
use super::files::{Contents, create};
use super::frame;
use super::need::Need;

/// Writes a segment that comes from another controller.
pub struct Incoming {
    need: Need,
    shared: Arc<Shared>,
    file: File,
    came: Contents,
    end: u64,
}

impl Incoming {
    pub fn new(shared: &Arc<Shared>, need: &Need) -> io::Result<Self> {
        Ok(Self {
            need: need.clone(),
            shared: shared.clone(),
            file: create(&coming(&shared.dir, need.first), need.first)?,
            came: Contents::default(),
            end: frame::BEGIN,
        })
    }

    /// The records that follow.
    pub fn put(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            let offset = self.end + bytes.len() as u64;
            let wanted = self.need.range().contains(&record.key.index);
            if !wanted || !self.came.add(record, offset) {
                return Err(self.refused());
            }
            frame::write(&mut bytes, record)?;
        }
        if self.came.content.bytes > self.need.bytes {
            return Err(self.refused());
        }
        self.end += bytes.len() as u64;
        self.file.write_all(&bytes)
    }

    /// What came is what was needed, or an error.
    pub fn finish(mut self) -> io::Result<()> {
        if self.came.content != self.need.content() {
            return Err(self.refused());
        }
        if self.need.closed {
            let tail = self.came.index.encode(self.end, &self.came.content);
            self.file.write_all(&tail)?;
        }
        self.file.sync_all()?;
        let path = fetched(&self.shared.dir, self.need.first);
        fs::rename(coming(&self.shared.dir, self.need.first), &path).map_err(at(&path))?;
        durable::sync_dir(&self.shared.dir)
    }

    fn refused(&self) -> io::Error {
        let text = format!(
            "segment {} came with other records than its digest stands for",
            self.need.first
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}
