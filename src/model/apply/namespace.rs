//! What administrators set for a namespace.

use crate::apply::{Outcome, Step};
use crate::command::Reply;
use crate::event::Event;
use crate::limit;
use crate::namespace::{NamespaceSettings, SetNamespace};
use crate::rejected::Rejected;
use crate::state::State;

impl State {
    pub(super) fn set_namespace(&mut self, asked: &SetNamespace, step: &mut Step<'_>) -> Outcome {
        let name = &asked.namespace;
        let default = NamespaceSettings::default();
        let known = self.namespaces.get(name);
        let settings = asked.over(known.unwrap_or(&default));
        if settings.users.len() > limit::NAMESPACE_USERS_MAX {
            let most = limit::NAMESPACE_USERS_MAX;
            return Err(Rejected::over("a namespace", most, "users with a weight"));
        }
        self.fits_what_is_there(asked)?;
        if settings == default {
            self.namespaces.remove(name);
        } else {
            if known.is_none() && self.namespaces.len() >= limit::NAMESPACES_MAX {
                let most = limit::NAMESPACES_MAX;
                return Err(Rejected::over(
                    "the number of namespaces with settings",
                    most,
                    "namespaces",
                ));
            }
            self.namespaces.put(name.clone(), settings);
        }
        step.events.push(Event::NamespaceSet {
            namespace: name.clone(),
        });
        Ok(Reply::Done)
    }

    /// That quota is never exceeded, so none is set that is exceeded already. (Of tasks that wait there may be more: the
    /// quota holds for submits.)
    fn fits_what_is_there(&self, asked: &SetNamespace) -> Result<(), Rejected> {
        let (_, running) = self.load(&asked.namespace);
        match asked.max_running {
            Some(most) if most > 0 && running > most => Err(Rejected::QuotaTooLow {
                namespace: asked.namespace.clone(),
                why: format!("{running} of its tasks run now, and {most} is fewer"),
            }),
            Some(_) | None => Ok(()),
        }
    }
}
