//! The back ends of this agent: what each offers, and how many requests it answers now.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::Backend;
use tokio::sync::{Notify, watch};

use super::api::Api;
use crate::config::{BackendConfig, Invalid};

pub(super) struct Backends {
    all: Vec<Arc<Known>>,
    offered: watch::Sender<Vec<Backend>>,
}

/// One of them.
pub(super) struct Known {
    pub api: Api,
    name: String,
    offers: Mutex<Offers>,
    /// Requests under way.
    busy: AtomicUsize,
    /// It failed: what it offers is looked at before its time.
    pub doubted: Notify,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Offers {
    /// In order.
    pub models: Vec<String>,
    pub trouble: String,
}

/// A back end that answers a request; counted until it is dropped.
pub(super) struct Chosen(Arc<Known>);

impl Drop for Chosen {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::ops::Deref for Chosen {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.0
    }
}

impl Backends {
    pub fn new(configs: &[BackendConfig]) -> Result<Backends, Invalid> {
        let mut all: Vec<Arc<Known>> = Vec::new();
        for config in configs {
            let api = Api::new(config)?;
            let name = match &config.name {
                Some(name) => name.clone(),
                None => host(&api),
            };
            if all.iter().any(|other| other.name == name) {
                let why = format!("two back ends are named {name}: give one another name");
                return Err(Invalid::new("backends", &config.url, why));
            }
            all.push(Arc::new(Known {
                api,
                name,
                offers: Mutex::new(Offers {
                    models: Vec::new(),
                    trouble: "not asked yet".to_owned(),
                }),
                busy: AtomicUsize::new(0),
                doubted: Notify::new(),
            }));
        }
        let told = all.iter().map(|known| known.told()).collect();
        Ok(Backends {
            all,
            offered: watch::Sender::new(told),
        })
    }

    pub fn all(&self) -> &[Arc<Known>] {
        &self.all
    }

    pub fn offered(&self) -> watch::Receiver<Vec<Backend>> {
        self.offered.subscribe()
    }

    /// What one of them offers now.
    pub fn learn(&self, known: &Known, offers: Offers) {
        *known.offers() = offers;
        let told: Vec<Backend> = self.all.iter().map(|known| known.told()).collect();
        self.offered.send_if_modified(|before| {
            let differs = *before != told;
            *before = told;
            differs
        });
    }

    /// The one with the model that answers the fewest requests; the first of several.
    pub fn choose(&self, model: &str) -> Option<Chosen> {
        let fitting = self.all.iter().filter(|known| {
            let offers = known.offers();
            offers.models.iter().any(|offered| offered == model)
        });
        let chosen = fitting.min_by_key(|known| known.busy.load(Ordering::Relaxed))?;
        chosen.busy.fetch_add(1, Ordering::Relaxed);
        Some(Chosen(Arc::clone(chosen)))
    }
}

impl Known {
    fn offers(&self) -> std::sync::MutexGuard<'_, Offers> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it answers a request now.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    fn told(&self) -> Backend {
        let Offers { models, trouble } = self.offers().clone();
        Backend {
            name: self.name.clone(),
            url: self.api.shown().to_owned(),
            models,
            trouble,
        }
    }
}

/// Host and port, where nobody named it.
fn host(api: &Api) -> String {
    let shown = api.shown();
    let bare = shown.split_once("://").map_or(shown, |(_, rest)| rest);
    bare.to_owned()
}
