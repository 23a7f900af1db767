//! Join tokens in golden scripts and in random entries, and what no script shows: who may ask.

use std::collections::BTreeMap;
use std::error::Error;

use proptest::prelude::*;

use super::golden::{Args, word};
use super::world::{World, agent_principal, client};
use crate::join_token::KeyHash;
use crate::{
    Command, ControllerId, Enrolment, JoinTokenId, Millis, NewJoinToken, Op, Principal, Rejected,
    Reply, Role, State,
};

const VALIDITY: Millis = Millis(86_400_000);

fn token_id(name: &str) -> JoinTokenId {
    JoinTokenId::new(name).expect("tests use good names")
}

fn key(name: &str) -> KeyHash {
    let mut key = [0; 32];
    let bytes = name.as_bytes();
    key[..bytes.len().min(32)].copy_from_slice(&bytes[..bytes.len().min(32)]);
    KeyHash(key)
}

fn role(name: &str) -> Result<Role, Box<dyn Error>> {
    Ok(match name {
        "agent" => Role::Agent,
        "controller" => Role::Controller,
        "client" => Role::Client,
        other => return Err(format!("no role {other}").into()),
    })
}

fn controller(name: &str) -> Principal {
    Principal {
        name: name.into(),
        role: Role::Controller,
        fingerprint: [3; 32],
    }
}

fn by(principal: Principal, command: Command) -> Op {
    Op::Client {
        principal,
        command,
        placement: None,
        held: None,
    }
}

fn new_token(id: &str) -> NewJoinToken {
    NewJoinToken {
        id: token_id(id),
        secret: [7; 32],
        role: Role::Agent,
        name: None,
        uses: 1,
        ttl: Millis(60_000),
        validity: VALIDITY,
        labels: BTreeMap::new(),
    }
}

fn enrolment(token: &str, machine: &str, name: &str) -> Enrolment {
    Enrolment {
        token: token_id(token),
        role: Role::Agent,
        key: key(machine),
        name: name.to_owned(),
        last_controller: ControllerId(3),
    }
}

/// What the golden scripts call `token`, `revoke` and `enrol`.
pub fn op(verb: &str, args: &mut Args<'_>) -> Result<Op, Box<dyn Error>> {
    let role = args.take_key("role").map_or(Ok(Role::Agent), role)?;
    Ok(match verb {
        "token" => {
            let uses = args.take_key("uses").map_or(Ok(1), str::parse)?;
            let ttl = args.take_key("ttl").map_or(Ok(60_000), str::parse)?;
            let name = args.take_key("name").map(str::to_owned);
            let token = NewJoinToken {
                role,
                uses,
                name,
                ttl: Millis(ttl),
                ..new_token(word(args)?)
            };
            by(client("ann"), Command::CreateJoinToken(token))
        }
        "revoke" => by(
            client("ann"),
            Command::RevokeJoinToken {
                token: token_id(word(args)?),
            },
        ),
        _ => {
            let last = args.take_key("last").unwrap_or("c3").parse()?;
            let (token, machine) = (word(args)?, word(args)?);
            let asked = Enrolment {
                role,
                last_controller: last,
                ..enrolment(token, machine, args.next_pos().unwrap_or_default())
            };
            by(controller("c1"), Command::Enrol(asked))
        }
    })
}

/// What the golden scripts call `tokens`.
pub fn tokens(state: &State) -> String {
    let tokens = state.join_tokens().map(|token| {
        let names: Vec<_> = token.admitted.iter().map(|one| one.name.as_str()).collect();
        let standing = token.standing(state.time());
        format!(
            "{}: {standing:?}, {} of {} uses left, let in {names:?}",
            token.asked.id,
            token.uses_left(),
            token.asked.uses
        )
    });
    tokens.collect::<Vec<_>>().join("\n")
}

/// Few tokens, machines and names, so that they meet.
pub fn random() -> impl Strategy<Value = Op> {
    let few = |names: &'static [&'static str]| prop::sample::select(names);
    let token = few(&["one", "two"]);
    prop_oneof![
        2 => (token.clone(), few(&["", "a1", "c5"]), 1..3u32, 0..3u64).prop_map(
            |(id, name, uses, minutes)| {
                let name = (!name.is_empty()).then(|| name.to_owned());
                let role = if name.as_deref() == Some("c5") { Role::Controller } else { Role::Agent };
                let ttl = Millis(minutes * 60_000);
                let token = NewJoinToken { uses, role, name, ttl, ..new_token(id) };
                by(client("ann"), Command::CreateJoinToken(token))
            }
        ),
        1 => token.clone().prop_map(|id| {
            by(client("ann"), Command::RevokeJoinToken { token: token_id(id) })
        }),
        4 => (token, few(&["k1", "k2", "k3"]), few(&["", "a1", "a2"]), any::<bool>()).prop_map(
            |(token, machine, name, controls)| {
                let role = if controls { Role::Controller } else { Role::Agent };
                let asked = Enrolment { role, ..enrolment(token, machine, name) };
                by(controller("c1"), Command::Enrol(asked))
            }
        ),
    ]
}

#[test]
fn only_an_administrator_makes_tokens_and_only_a_controller_vouches() {
    let mut world = World::new();
    let makes = Command::CreateJoinToken(new_token("one"));
    for stranger in [agent_principal("a1"), controller("c1")] {
        let refused = world.one(by(stranger, makes.clone())).unwrap_err();
        assert!(matches!(refused, Rejected::Forbidden { .. }), "{refused}");
    }
    world.one(by(client("ann"), makes)).unwrap();
    let vouches = Command::Enrol(enrolment("one", "k1", "a1"));
    for stranger in [agent_principal("a1"), client("ann")] {
        let refused = world.one(by(stranger, vouches.clone())).unwrap_err();
        assert!(matches!(refused, Rejected::Forbidden { .. }), "{refused}");
    }
    assert!(world.one(by(controller("c1"), vouches)).is_ok());
}

#[test]
fn fifty_keys_in_one_entry_get_one_certificate() {
    let mut world = World::new();
    world
        .one(by(
            client("ann"),
            Command::CreateJoinToken(new_token("one")),
        ))
        .unwrap();
    let keys = (0..50).map(|n| format!("k{n}"));
    let ops = keys.map(|key| {
        let asked = enrolment("one", &key, &format!("a-{key}"));
        by(controller("c1"), Command::Enrol(asked))
    });
    let replies = world.apply(ops.collect()).replies;
    let admitted = replies
        .iter()
        .filter(|reply| matches!(reply, Ok(Reply::Enrolled(_))));
    assert_eq!(admitted.count(), 1);
}

#[test]
fn a_token_that_makes_no_sense_is_refused() {
    let wrong = [
        NewJoinToken {
            uses: 0,
            ..new_token("one")
        },
        NewJoinToken {
            uses: 1_001,
            ..new_token("one")
        },
        NewJoinToken {
            ttl: Millis(0),
            ..new_token("one")
        },
        NewJoinToken {
            ttl: Millis(u64::MAX),
            ..new_token("one")
        },
        NewJoinToken {
            validity: Millis(1),
            ..new_token("one")
        },
        NewJoinToken {
            role: Role::Client,
            ..new_token("one")
        },
        NewJoinToken {
            name: Some("A".into()),
            ..new_token("one")
        },
        NewJoinToken {
            name: Some("a1".into()),
            uses: 2,
            ..new_token("one")
        },
        NewJoinToken {
            name: Some("c04".into()),
            role: Role::Controller,
            ..new_token("one")
        },
        NewJoinToken {
            id: token_id("a.b"),
            ..new_token("one")
        },
    ];
    for token in wrong {
        let refused = Command::CreateJoinToken(token.clone()).validate();
        assert!(refused.is_err(), "{token:?}");
    }
    assert_eq!(
        Command::CreateJoinToken(new_token("one")).validate(),
        Ok(())
    );
}
