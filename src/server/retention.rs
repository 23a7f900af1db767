//! How much is kept is in the state, so that all controllers do the same at the same entry. It comes from the
//! leader's settings: a controller that begins to lead and was told something else says so in an entry.

use std::sync::Arc;

use model::{Op, SystemCommand};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::controller::Controller;
use crate::dispatcher::wall_now;
use crate::{limit, quorum};

/// Until the controller stops.
pub async fn keep(
    controller: Arc<Controller>,
    wanted: model::Retention,
    stopping: CancellationToken,
) {
    stopping
        .run_until_cancelled(follow(&controller, &wanted))
        .await;
}

async fn follow(controller: &Controller, wanted: &model::Retention) {
    let mut leadership = controller.cluster.leadership();
    loop {
        // Consensus has ended; others say why.
        if leadership
            .wait_for(|now| now.is_me && now.ready)
            .await
            .is_err()
        {
            return;
        }
        let state = controller.cluster.view();
        // Before the cluster is founded there is nobody to keep anything for.
        let founded = !state.cluster_id().is_empty();
        if founded && state.retention() != wanted {
            let op = Op::System(SystemCommand::Retain(wanted.clone()));
            match quorum::propose(&controller.cluster, vec![op], wall_now()).await {
                Ok(_) => info!(?wanted, "set what the archive keeps"),
                Err(error) => warn!(%error, "what the archive keeps was not set"),
            }
        }
        if founded && controller.cluster.view().retention() == wanted {
            let stays = leadership.wait_for(|now| !(now.is_me && now.ready)).await;
            if stays.is_err() {
                return;
            }
        } else {
            tokio::time::sleep(limit::RETRY_PAUSE).await;
        }
    }
}
