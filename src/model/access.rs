//! Who may do what. Checked at the edge to refuse early; the check that counts is this one, in
//! `apply`, at that index.

use crate::command::Command;
use crate::principal::{Principal, Role};
use crate::rejected::Rejected;

/// Whether `principal` may ask for `command`. Clients of the cluster's CA administer it; an agent
/// speaks for itself only.
pub fn allows(principal: &Principal, command: &Command) -> Result<(), Rejected> {
    let need = |need: &str| {
        Err(Rejected::Forbidden {
            principal: principal.name.clone(),
            need: need.to_owned(),
        })
    };
    match command {
        Command::SubmitTask(_)
        | Command::CancelTask { .. }
        | Command::CordonAgent { .. }
        | Command::UncordonAgent { .. }
        | Command::DrainAgent(_)
        | Command::RemoveAgent { .. }
        | Command::CreateJoinToken(_)
        | Command::SetBackend(_)
        | Command::SetNamespace(_)
        | Command::SetPolicy(_)
        | Command::AddRule(_)
        | Command::RemoveRule { .. }
        | Command::RevokeJoinToken { .. } => match principal.role {
            Role::Client => Ok(()),
            Role::Agent | Role::Controller => need("it needs a client's certificate"),
        },
        Command::RegisterAgent(profile) => match principal.role {
            Role::Agent if profile.id.as_str() == principal.name => Ok(()),
            Role::Agent | Role::Client | Role::Controller => {
                need("only an agent may register, and only under its own name")
            }
        },
        Command::FinishAttempt(_) => match principal.role {
            Role::Agent => Ok(()),
            Role::Client | Role::Controller => need("only an agent reports attempts"),
        },
        Command::Enrol(_) => match principal.role {
            Role::Controller => Ok(()),
            Role::Agent | Role::Client => {
                need("only a controller vouches for a machine that joins")
            }
        },
    }
}
