//! What the back ends offer, asked again and again.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde::Deserialize;

use super::api::{Trouble, whole};
use super::backends::{Backends, Known, Offers};

/// How often a back end is asked what it offers.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The same, where it could not be used.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a back end may take to say what it offers: one that computes may be slow.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a list of models.
const LIST_BYTES: usize = 4 << 20;

/// Looks that a back end which is busy answering may miss before it counts as gone.
const MISSED_MAX: u32 = 3;

/// Characters of its trouble that the cluster is told.
const SHOWN: usize = 200;

/// Of `/v1/models`, as much as is needed.
#[derive(Debug, Deserialize)]
struct List {
    data: Vec<Model>,
}

#[derive(Debug, Deserialize)]
struct Model {
    id: String,
}

/// Never ends.
pub(super) async fn watch_all(backends: Arc<Backends>) {
    let all = backends.all().to_vec();
    let each = all.into_iter().map(|known| {
        let backends = Arc::clone(&backends);
        async move { watch(&backends, &known).await }
    });
    join_all(each).await;
}

async fn watch(backends: &Backends, known: &Known) {
    let (mut told, mut missed) = (None, 0);
    loop {
        let offers = look(known).await;
        missed = match offers.trouble.is_empty() {
            true => 0,
            false => missed + 1,
        };
        // One that computes may be slow to say what it offers, and offers it all the same.
        if backends.is_busy(known) && (1..=MISSED_MAX).contains(&missed) {
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        }
        if told.as_ref() != Some(&offers) {
            let (name, models) = (known.api.shown(), &offers.models);
            match offers.trouble.is_empty() {
                true => tracing::info!(backend = %name, ?models, "a back end offers models"),
                false => {
                    tracing::warn!(backend = %name, trouble = %offers.trouble, "no use of a back end");
                }
            }
            told = Some(offers.clone());
        }
        let pause = match offers.trouble.is_empty() {
            true => LOOK_EVERY,
            false => LOOK_AGAIN,
        };
        backends.learn(known, offers);
        // Sooner where a request to it failed.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = known.doubted.notified() => {}
        }
    }
}

async fn look(known: &Known) -> Offers {
    match list(known).await {
        Ok(models) if models.is_empty() => in_trouble("it offers no model".to_owned()),
        Ok(models) => Offers {
            models,
            trouble: String::new(),
        },
        Err(trouble) => in_trouble(trouble.to_string()),
    }
}

fn in_trouble(trouble: String) -> Offers {
    Offers {
        models: Vec::new(),
        trouble: trouble.chars().take(SHOWN).collect(),
    }
}

async fn list(known: &Known) -> Result<Vec<String>, Trouble> {
    let response = known.api.get("models", PATIENCE).await?;
    let body = whole(response, LIST_BYTES).await?;
    let list: List = serde_json::from_slice(&body).map_err(|error| {
        let text = format!("its list of models can't be read: {error}");
        Trouble::Refused(text)
    })?;
    let ids = list.data.into_iter().map(|model| model.id);
    // What the cluster takes for a model's name.
    let usable = |id: &String| model::validate_model(id).is_ok();
    let mut models: Vec<String> = ids.filter(usable).collect();
    models.sort_unstable();
    models.dedup();
    models.truncate(model::MODELS_MAX);
    Ok(models)
}
