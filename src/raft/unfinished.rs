//! A change of the membership that its leader did not live to finish: the next one finishes it.

use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime;

use crate::core::Core;
use crate::peers::Peers;

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Until consensus has stopped.
pub async fn watch<R: AsyncRuntime, P: Peers>(core: Arc<Core<R, P>>) {
    let mut leadership = core.leadership.clone();
    loop {
        if leadership.get().ready
            && let Err(error) = core.members.finish().await
        {
            tracing::info!(%error, "a change of membership that was cut short is not finished yet");
            R::sleep(PAUSE).await;
            continue;
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}
