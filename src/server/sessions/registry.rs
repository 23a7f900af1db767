//! The open sessions of this controller, by number and by agent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dispatch::SessionId;
use model::AgentId;
use tokio::sync::watch;

use super::session::Session;

#[derive(Debug, Default)]
struct Tables {
    by_id: HashMap<SessionId, Arc<Session>>,
    by_agent: HashMap<AgentId, Arc<Session>>,
}

/// Finds sessions, and tells who waits for one that a new one is there.
#[derive(Debug)]
pub struct Registry {
    tables: RwLock<Tables>,
    last: AtomicU64,
    opened: watch::Sender<u64>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry {
            tables: RwLock::default(),
            last: AtomicU64::new(0),
            opened: watch::Sender::new(0),
        }
    }
}

impl Registry {
    pub(super) fn next_id(&self) -> SessionId {
        SessionId(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Adds a session. An older one of the same agent is closed: the agent left it, or it would
    /// not have opened another.
    pub(super) fn add(&self, session: &Arc<Session>) {
        let replaced = {
            let mut tables = self.write();
            tables.by_id.insert(session.id, Arc::clone(session));
            tables
                .by_agent
                .insert(session.agent.clone(), Arc::clone(session))
        };
        if let Some(old) = replaced {
            old.close("its agent opened another session");
        }
        self.opened.send_modify(|count| *count += 1);
    }

    pub(super) fn remove(&self, session: &Session) {
        let mut tables = self.write();
        tables.by_id.remove(&session.id);
        if tables
            .by_agent
            .get(&session.agent)
            .is_some_and(|current| current.id == session.id)
        {
            tables.by_agent.remove(&session.agent);
        }
    }

    pub fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        self.read().by_id.get(&id).cloned()
    }

    pub fn of(&self, agent: &AgentId) -> Option<Arc<Session>> {
        self.read().by_agent.get(agent).cloned()
    }

    pub fn len(&self) -> usize {
        self.read().by_id.len()
    }

    /// All of them, for what everybody is to be told.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.read().by_id.values().cloned().collect()
    }

    /// Changes whenever a session was opened.
    pub fn opened(&self) -> watch::Receiver<u64> {
        self.opened.subscribe()
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn a_second_session_of_an_agent_closes_the_first_and_outlives_its_end() {
        let registry = Registry::default();
        let agent = AgentId::new("a1").unwrap();
        let open = || {
            let (frames, _) = mpsc::channel(1);
            let session = Arc::new(Session::new(registry.next_id(), agent.clone(), frames));
            registry.add(&session);
            session
        };
        let first = open();
        let second = open();
        assert!(first.reason().is_some() && second.reason().is_none());
        registry.remove(&first);
        assert_eq!(registry.of(&agent).unwrap().id, second.id);
        assert!(registry.get(first.id).is_none());
        assert_eq!(registry.len(), 1);
    }
}
