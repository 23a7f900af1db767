//! The back ends of this agent: what each offers, and which of them answers next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Backend, BackendSettings};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::api::Api;
use super::balance::{Balance, Pick, Role, Told};
use crate::config::{BackendConfig, Invalid};

pub(super) struct Backends {
    all: Vec<Arc<Known>>,
    offered: watch::Sender<Vec<Backend>>,
    balance: Arc<Shared>,
}

/// Whose turn it is, for all who ask.
struct Shared {
    balance: Mutex<Balance>,
    /// Something has changed for those that wait.
    changed: Notify,
}

/// One of them.
pub(super) struct Known {
    pub api: Api,
    name: String,
    offers: Mutex<Offers>,
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
pub(super) struct Chosen {
    known: Arc<Known>,
    balance: Arc<Shared>,
    at: usize,
    role: Role,
    told: Told,
}

impl Chosen {
    /// How it ended.
    pub fn tell(&mut self, told: Told) {
        self.told = told;
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        let now = Instant::now();
        self.balance
            .lock()
            .ended(self.at, self.role, self.told, now);
        self.balance.changed.notify_waiters();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Balance> {
        self.balance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::ops::Deref for Chosen {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.known
    }
}

impl Backends {
    pub fn are_here(&self) -> bool {
        self.all.iter().any(|known| known.api.is_here())
    }

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
                doubted: Notify::new(),
            }));
        }
        let told = all.iter().map(|known| known.told()).collect();
        let balance = Shared {
            balance: Mutex::new(Balance::new(all.len())),
            changed: Notify::new(),
        };
        Ok(Backends {
            all,
            offered: watch::Sender::new(told),
            balance: Arc::new(balance),
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
        self.balance.changed.notify_waiters();
    }

    /// What was set for them, by name; one that is not there is as it always was.
    pub fn set(&self, settings: &BTreeMap<String, BackendSettings>) {
        let (mut balance, now) = (self.balance.lock(), Instant::now());
        for (at, known) in self.all.iter().enumerate() {
            let own = settings.get(&known.name).copied();
            balance.set(at, own.unwrap_or_default(), now);
        }
        drop(balance);
        self.balance.changed.notify_waiters();
    }

    /// Whether it answers a request now.
    pub fn is_busy(&self, known: &Known) -> bool {
        let at = self.all.iter().position(|other| other.name == known.name);
        at.is_some_and(|at| self.balance.lock().is_busy(at))
    }

    /// One with the model, as soon as one may be asked; none where none has it. What waits here holds a slot, which is
    /// rare: the cluster gives an agent no more than its back ends' limits allow.
    pub async fn choose(&self, model: &str) -> Option<Chosen> {
        loop {
            let mut changed = std::pin::pin!(self.balance.changed.notified());
            changed.as_mut().enable();
            let until = match self.pick(model)? {
                Ok(chosen) => return Some(chosen),
                Err(until) => until,
            };
            let later = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = later => {}
            }
        }
    }

    /// The one to ask now, or until when there is none.
    fn pick(&self, model: &str) -> Option<Result<Chosen, Option<Instant>>> {
        let fitting: Vec<usize> = self
            .all
            .iter()
            .enumerate()
            .filter(|(_, known)| known.offers().models.iter().any(|other| other == model))
            .map(|(at, _)| at)
            .collect();
        if fitting.is_empty() {
            return None;
        }
        let pick = self.balance.lock().pick(&fitting, Instant::now());
        Some(match pick {
            Pick::Ask { at, role } => Ok(Chosen {
                known: Arc::clone(&self.all[at]),
                balance: Arc::clone(&self.balance),
                at,
                role,
                told: Told::Nothing,
            }),
            Pick::Wait { until } => Err(until),
        })
    }
}

impl Known {
    fn offers(&self) -> MutexGuard<'_, Offers> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
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
