//! Join tokens and enrolments.

use model::{JoinTokenId, Millis, Role, Standing, Timestamp};

use super::{Malformed, labels_in, labels_out};
use crate::v1;

/// What a certificate lets its holder be, by its name.
pub fn role_in(name: &str) -> Result<Role, Malformed> {
    match name {
        "controller" => Ok(Role::Controller),
        "agent" => Ok(Role::Agent),
        "client" => Ok(Role::Client),
        other => Err(Malformed(format!("`{other}` is not a role"))),
    }
}

pub fn role_out(role: Role) -> &'static str {
    match role {
        Role::Controller => "controller",
        Role::Agent => "agent",
        Role::Client => "client",
    }
}

fn hash_in(bytes: &[u8]) -> Result<[u8; 32], Malformed> {
    <[u8; 32]>::try_from(bytes).map_err(|_| Malformed("a hash has 32 bytes".into()))
}

impl TryFrom<v1::CreateJoinTokenRequest> for model::Command {
    type Error = Malformed;

    fn try_from(request: v1::CreateJoinTokenRequest) -> Result<model::Command, Malformed> {
        Ok(model::Command::CreateJoinToken(model::NewJoinToken {
            id: JoinTokenId::new(&request.id)?,
            secret: hash_in(&request.secret_hash)?,
            role: role_in(&request.role)?,
            name: Some(request.name).filter(|name| !name.is_empty()),
            uses: request.uses,
            ttl: Millis(request.ttl_ms),
            validity: Millis(request.validity_ms),
            labels: labels_in(request.labels)?,
        }))
    }
}

/// What a controller asks the leader to let in; the leader adds what it alone knows.
pub fn enrolment_in(request: &v1::AdmitRequest) -> Result<model::Enrolment, Malformed> {
    Ok(model::Enrolment {
        token: JoinTokenId::new(&request.token)?,
        role: role_in(&request.role)?,
        key: model::KeyHash(hash_in(&request.key_hash)?),
        name: request.name.clone(),
        last_controller: model::ControllerId(0),
    })
}

/// A token as it is at this state time.
pub fn join_token_out(token: &model::JoinToken, now: Timestamp) -> v1::JoinToken {
    let state = match token.standing(now) {
        Standing::Good => "good",
        Standing::UsedUp => "used_up",
        Standing::Expired => "expired",
        Standing::Revoked => "revoked",
    };
    let asked = &token.asked;
    v1::JoinToken {
        id: asked.id.to_string(),
        role: role_out(asked.role).into(),
        name: asked.name.clone().unwrap_or_default(),
        uses: asked.uses,
        uses_left: token.uses_left(),
        expires_at: token.expires_wall.0,
        validity_ms: asked.validity.0,
        labels: labels_out(&asked.labels),
        created_by: token.by.clone(),
        state: state.into(),
        admitted: token.admitted.iter().map(|one| one.name.clone()).collect(),
    }
}
