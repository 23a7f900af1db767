//! openraft's storage suite on both engines. The state machine is the real one.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft_rt_tokio::TokioRuntime;
use tempfile::TempDir;

use crate::archive::Archive;
use crate::blobs::Blobs;
use crate::blocking::Blocking;
use crate::consensus::Types;
use crate::fatal::FatalSignal;
use crate::machine::{Machine, Published, Storage};
use crate::member::LogIdentity;
use crate::snapshot::Shelf;
use crate::store::directory;
use crate::store::log::LogStore;
use crate::store::memory::MemoryEngine;

type C = Types<TokioRuntime>;
type Built = (TempDir, LogStore<TokioRuntime>, Machine<TokioRuntime>);

fn machine(dir: &TempDir) -> Machine<TokioRuntime> {
    let storage = Storage {
        shelf: Arc::new(Shelf::open(dir.path()).unwrap()),
        archive: Archive::open_inline(dir.path()).unwrap(),
        blobs: Blobs::open(dir.path()).unwrap(),
    };
    // Nobody reads the events here, and none are sent before `go_live`.
    let (published, _) = Published::new();
    Machine::new(
        published,
        storage,
        FatalSignal::default(),
        Blocking::OwnThread,
        model::Versions::OF_THIS_RELEASE,
    )
}

struct OnSled;

impl StoreBuilder<C, LogStore<TokioRuntime>, Machine<TokioRuntime>, TempDir> for OnSled {
    async fn build(&self) -> Result<Built, StorageError<C>> {
        let dir = tempfile::tempdir().unwrap();
        let log = directory::open(dir.path(), FatalSignal::default()).unwrap();
        let machine = machine(&dir);
        Ok((dir, log, machine))
    }
}

struct InMemory;

impl StoreBuilder<C, LogStore<TokioRuntime>, Machine<TokioRuntime>, TempDir> for InMemory {
    async fn build(&self) -> Result<Built, StorageError<C>> {
        let dir = tempfile::tempdir().unwrap();
        let engine = Arc::new(MemoryEngine::default());
        let log = directory::open_on(engine, LogIdentity::random(), FatalSignal::default());
        let machine = machine(&dir);
        Ok((dir, log.unwrap(), machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_suite_passes_on_sled() {
    Suite::test_all(OnSled).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_suite_passes_in_memory() {
    Suite::test_all(InMemory).await.unwrap();
}
