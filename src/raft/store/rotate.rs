//! Keeps the log database from growing without end.
//!
//! sled reclaims space slowly: a log that is purged from its tail stays at about five times its live
//! bytes. When a database has grown past its limit, what it holds is copied into a fresh one, on the
//! mover's thread, and `CURRENT` is pointed at it. A crash at any moment leaves one complete database that
//! `CURRENT` names, and perhaps another that the next start removes.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use durable::at;

use super::engine::{Batch, LogEngine};
use super::sled::SledEngine;
use super::stats::StatsRecorder;
use crate::consensus::NodeId;

/// Below this nobody minds the space.
pub const FLOOR_BYTES: u64 = 256 << 20;

/// sled needs about 5x for a log; twice that is growth that does not come back.
const FACTOR: u64 = 10;

/// Bytes that one batch of the copy carries.
const COPY_BYTES: usize = 4 << 20;

/// Members in a row whose limits differ. All have logs of the same size, and while one is copied its writer has
/// no more than one write-ahead file: were it done everywhere at once, no quorum would acknowledge anything.
const STAGGERED: u64 = 8;

/// How large a database may get before it is replaced.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    pub floor: u64,
    /// Size over live bytes, above the floor.
    pub factor: u64,
    /// Each member's limit is up to 7/16 above the least.
    pub member: NodeId,
}

impl Growth {
    pub fn of(member: NodeId) -> Self {
        Self {
            floor: FLOOR_BYTES,
            factor: FACTOR,
            member,
        }
    }

    fn limit(self, live_bytes: u64) -> u64 {
        let least = self.floor.max(live_bytes.saturating_mul(self.factor));
        let step = least / (2 * STAGGERED);
        least.saturating_add(step * (self.member % STAGGERED))
    }
}

pub struct Rotation {
    /// `<data>/log`.
    dir: PathBuf,
    /// Number of the database in use.
    number: u64,
    growth: Growth,
    stats: Arc<StatsRecorder>,
    /// The database before the last rotation; removed when its readers are gone.
    retired: Option<PathBuf>,
}

impl Rotation {
    pub fn new(dir: &Path, number: u64, growth: Growth, stats: Arc<StatsRecorder>) -> Self {
        Self {
            dir: dir.to_owned(),
            number,
            growth,
            stats,
            retired: None,
        }
    }

    /// Gives the fresh database if the old one was replaced. Nobody writes to it meanwhile.
    pub fn run_if_due(&mut self, old: &SledEngine) -> io::Result<Option<SledEngine>> {
        self.remove_retired();
        let size = old.size_on_disk()?;
        self.stats.record_size(size);
        let live_bytes = self.stats.live_bytes();
        if size <= self.growth.limit(live_bytes) {
            return Ok(None);
        }
        let fresh = self.rotate(old)?;
        tracing::info!(
            from_bytes = size,
            live_bytes,
            number = self.number,
            "rotated the log"
        );
        self.stats.record_rotation();
        Ok(Some(fresh))
    }

    fn rotate(&mut self, old: &SledEngine) -> io::Result<SledEngine> {
        let number = self.number + 1;
        let path = database_path(&self.dir, number);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
        let fresh = SledEngine::create(&path)?;
        copy(old, &fresh)?;
        point_at(&self.dir, number)?;
        self.retired = Some(database_path(&self.dir, self.number));
        self.number = number;
        Ok(fresh)
    }

    /// Readers may still hold the old engine for a moment; by the next look they are done. What a
    /// failure leaves is removed at the next start.
    fn remove_retired(&mut self) {
        if let Some(path) = self.retired.take()
            && let Err(error) = fs::remove_dir_all(&path)
        {
            tracing::warn!(%error, path = %path.display(), "can't remove the old log database");
        }
    }
}

pub fn database_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(number.to_string())
}

/// Makes a database the one in use.
pub fn point_at(dir: &Path, number: u64) -> io::Result<()> {
    durable::replace(&dir.join("CURRENT"), format!("{number}\n").as_bytes())
}

fn copy(old: &SledEngine, fresh: &SledEngine) -> io::Result<()> {
    let mut batch = Batch::new();
    let mut bytes = 0;
    let mut outcome = Ok(());
    old.scan(Vec::new()..vec![u8::MAX], &mut |key, value| {
        bytes += value.len();
        batch.insert(key.to_vec(), Some(value.to_vec()));
        if bytes >= COPY_BYTES {
            bytes = 0;
            outcome = fresh.commit(std::mem::take(&mut batch));
        }
        match outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    outcome?;
    fresh.commit(batch)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn neighbours_replace_their_databases_at_different_sizes() {
        let limits: BTreeSet<_> = (1..=7).map(|id| Growth::of(id).limit(0)).collect();
        assert_eq!(limits.len(), 7);
        assert!(
            limits
                .iter()
                .all(|limit| (FLOOR_BYTES..2 * FLOOR_BYTES).contains(limit))
        );
        assert!(Growth::of(1).limit(1 << 30) < Growth::of(2).limit(1 << 30));
    }
}
