//! What the controllers take: memory from `/proc`, bytes on disk from the file system.

use cluster_tests::Error;
use cluster_tests::cluster::{Cluster, bytes_below};
use cluster_tests::faults::process::Process;

/// Bytes of entries that a controller has written to its log since it started.
const WRITTEN: &str = "quorate_store_bytes_total";

/// The largest of each over all controllers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Footprint {
    pub resident: u64,
    pub on_disk: u64,
    /// What the cluster was told: bytes of entries, once.
    pub logical: u64,
}

impl Footprint {
    pub async fn of(cluster: &Cluster) -> Result<Footprint, Error> {
        let mut found = Footprint::default();
        for controller in cluster.layout()?.controllers {
            let pid = controller.pid.unwrap_or_default();
            let resident = Process::resident_bytes(pid).unwrap_or_default();
            found.resident = found.resident.max(resident);
            let on_disk = bytes_below(&controller.data_dir);
            found.on_disk = found.on_disk.max(on_disk);
            let metrics = cluster.metrics(&controller.id).await?;
            let written = metrics.get(WRITTEN).unwrap_or_default();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a counter of bytes, far below 2^53"
            )]
            let written = written as u64;
            found.logical = found.logical.max(written);
        }
        Ok(found)
    }
}
