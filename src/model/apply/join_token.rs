//! Who may join, and who did. A token is used up by compare-and-set: whoever's entry comes first has it,
//! and the same key has it again.

use crate::apply::{Outcome, Step};
use crate::command::Reply;
use crate::id::{AgentId, ControllerId, JoinTokenId};
use crate::join_token::{
    Admitted, Enrolled, Enrolment, JoinToken, NewJoinToken, Standing, controller_number,
};
use crate::limit;
use crate::principal::{Principal, Role};
use crate::rejected::Rejected;
use crate::state::State;
use crate::time::{Millis, Timestamp};

/// How long a token that expired is shown.
const SHOWN_AFTER_EXPIRY: Millis = Millis(24 * 60 * 60 * 1000);

impl State {
    /// The same request again changes nothing: its answer may have been lost.
    pub(super) fn create_join_token(
        &mut self,
        principal: &Principal,
        asked: &NewJoinToken,
        step: &mut Step<'_>,
    ) -> Outcome {
        if let Some(known) = self.joining.tokens.get(&asked.id) {
            if known.asked == *asked {
                return Ok(Reply::Done);
            }
            let why = format!("there is a join token {} already", asked.id);
            return Err(Rejected::Invalid(why));
        }
        self.forget_old_tokens(step.now);
        if self.joining.tokens.len() >= limit::JOIN_TOKENS_MAX {
            let what = "the number of join tokens";
            return Err(Rejected::over(what, limit::JOIN_TOKENS_MAX, "tokens"));
        }
        let token = JoinToken {
            asked: asked.clone(),
            by: principal.name.clone(),
            expires: step.now.plus(asked.ttl),
            expires_wall: step.wall.plus(asked.ttl),
            revoked: None,
            admitted: Vec::new(),
        };
        self.joining.tokens.put(asked.id.clone(), token);
        Ok(Reply::Done)
    }

    pub(super) fn revoke_join_token(&mut self, id: &JoinTokenId, step: &Step<'_>) -> Outcome {
        let token = self.joining.tokens.get(id);
        let token = token.ok_or_else(|| Rejected::NoSuchJoinToken(id.clone()))?;
        if token.revoked.is_none() {
            let mut token = token.clone();
            token.revoked = Some(step.wall);
            self.joining.tokens.put(id.clone(), token);
        }
        Ok(Reply::Done)
    }

    /// A machine gets a name, and the token a use less.
    pub(super) fn enrol(&mut self, asked: &Enrolment, step: &Step<'_>) -> Outcome {
        let refused = |why: &str| Rejected::JoinTokenRefused {
            token: asked.token.clone(),
            why: why.to_owned(),
        };
        let token = self.joining.tokens.get(&asked.token);
        let token = token.ok_or_else(|| refused("is not known"))?;
        if token.asked.role != asked.role {
            return Err(refused("is for another role"));
        }
        let standing = token.standing(step.now);
        match standing {
            Standing::Revoked => return Err(refused("was revoked")),
            Standing::Expired => return Err(refused("has expired")),
            Standing::Good | Standing::UsedUp => {}
        }
        if let Some(known) = self.admitted_before(token, asked) {
            return Ok(Reply::Enrolled(answer(token, known.name.clone())));
        }
        if standing == Standing::UsedUp {
            return Err(refused("is used up"));
        }
        if self.joining.holders.len() >= limit::HOLDERS_MAX {
            return Err(Rejected::over(
                "the number of names",
                limit::HOLDERS_MAX,
                "names",
            ));
        }
        let name = match asked.role {
            Role::Agent => self.name_of_agent(token, asked)?,
            Role::Controller => self.name_of_controller(token, asked)?,
            Role::Client => return Err(refused("is for another role")),
        };
        let mut token = token.clone();
        token.admitted.push(Admitted {
            key: asked.key,
            name: name.clone(),
        });
        let reply = Reply::Enrolled(answer(&token, name.clone()));
        self.joining.tokens.put(asked.token.clone(), token);
        self.joining.holders.put((asked.role, name), asked.key);
        Ok(reply)
    }

    /// Only for as long as the name is still this key's: it may have been removed and given to another.
    fn admitted_before<'a>(&self, token: &'a JoinToken, asked: &Enrolment) -> Option<&'a Admitted> {
        let mut known = token.admitted.iter().filter(|known| known.key == asked.key);
        known.find(|known| {
            let holder = (asked.role, known.name.clone());
            self.joining.holders.get(&holder) == Some(&asked.key)
        })
    }

    /// The token's name, else what the machine asks for. A name that was given away and never used is the
    /// administrator's to give again, by a token for it; one that an agent registered under is not.
    fn name_of_agent(&self, token: &JoinToken, asked: &Enrolment) -> Result<String, Rejected> {
        let given = token.asked.name.as_ref();
        let name = given.unwrap_or(&asked.name).clone();
        let id = AgentId::new(&name).map_err(|error| Rejected::Invalid(error.to_string()))?;
        let holder = self.joining.holders.get(&(Role::Agent, name.clone()));
        let taken = |why: &str| {
            let (name, why) = (name.clone(), why.to_owned());
            Err(Rejected::NameTaken { name, why })
        };
        match holder {
            Some(key) if *key == asked.key => Ok(name),
            _ if self.agents.get(&id).is_some() => {
                taken("an agent with another key has it; give another one, or remove that agent")
            }
            Some(_) if given.is_none() => {
                taken("it was given to another key; give another one, or a token with that id")
            }
            Some(_) | None => Ok(name),
        }
    }

    /// The next number, or the token's or the machine's own where it is higher: a number that was given
    /// once is never given again, whatever became of its holder.
    fn name_of_controller(&self, token: &JoinToken, asked: &Enrolment) -> Result<String, Rejected> {
        let wanted = token.asked.name.as_deref().unwrap_or(&asked.name);
        let holder = (Role::Controller, wanted.to_owned());
        if self.joining.holders.get(&holder) == Some(&asked.key) {
            return Ok(wanted.to_owned());
        }
        let last = self.joining.last_controller().max(asked.last_controller);
        let Some(next) = last.0.checked_add(1).map(ControllerId) else {
            let why = "there is no higher number".to_owned();
            return Err(Rejected::NameTaken {
                name: last.to_string(),
                why,
            });
        };
        if wanted.is_empty() {
            return Ok(next.to_string());
        }
        let id = controller_number(wanted)?;
        if id < next {
            let why = format!("controllers' ids are never used again, and the next one is {next}");
            let name = wanted.to_owned();
            return Err(Rejected::NameTaken { name, why });
        }
        let highest = ControllerId(next.0.saturating_add(limit::CONTROLLER_ID_LEAP));
        if id > highest {
            let why = format!("ids go up step by step, and {highest} is the highest now");
            let name = wanted.to_owned();
            return Err(Rejected::NameTaken { name, why });
        }
        Ok(id.to_string())
    }

    fn forget_old_tokens(&mut self, now: Timestamp) {
        let tokens = self.joining.tokens.iter();
        let old = tokens.filter(|(_, token)| token.expires.plus(SHOWN_AFTER_EXPIRY) < now);
        let old: Vec<JoinTokenId> = old.map(|(id, _)| id.clone()).collect();
        for id in old {
            self.joining.tokens.remove(&id);
        }
    }

    pub fn join_token(&self, id: &JoinTokenId) -> Option<&JoinToken> {
        self.joining.tokens.get(id)
    }

    /// By id.
    pub fn join_tokens(&self) -> impl Iterator<Item = &JoinToken> {
        self.joining.tokens.iter().map(|(_, token)| token)
    }
}

fn answer(token: &JoinToken, name: String) -> Enrolled {
    Enrolled {
        name,
        validity: token.asked.validity,
        labels: token.asked.labels.clone(),
    }
}
