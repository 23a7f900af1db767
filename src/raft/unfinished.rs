//! A change of the membership that its leader did not live to finish: the next one finishes it.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::LocalCore;

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Until consensus has stopped.
pub async fn watch(core: Arc<LocalCore>) {
    let mut leadership = core.leadership.clone();
    loop {
        if leadership.get().ready
            && let Err(error) = core.members.finish().await
        {
            tracing::info!(%error, "a change of membership that was cut short is not finished yet");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}
