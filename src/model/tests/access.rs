//! Who may ask for what, by the check in `apply`: the one at the edge only refuses earlier.

use super::world::World;
use super::{exemplars, exemplars_2};
use crate::{Command, Op, Principal, Rejected, Reply, Role};

/// Every command, each as somebody asks for it.
fn commands() -> Vec<(Principal, Command)> {
    let entries = [exemplars::commands(), exemplars_2::since_2()].concat();
    let ops = entries.into_iter().flat_map(|(_, entry)| entry.ops);
    let asked = ops.filter_map(|op| match op {
        Op::Client {
            principal, command, ..
        } => Some((principal, command)),
        Op::System(_) => None,
    });
    asked.collect()
}

fn meant_for(command: &Command) -> Role {
    match command {
        Command::RegisterAgent(_) | Command::FinishAttempt(_) => Role::Agent,
        Command::Enrol(_) => Role::Controller,
        Command::SubmitTask(_)
        | Command::CancelTask { .. }
        | Command::CordonAgent { .. }
        | Command::UncordonAgent { .. }
        | Command::DrainAgent(_)
        | Command::RemoveAgent { .. }
        | Command::CreateJoinToken(_)
        | Command::RevokeJoinToken { .. }
        | Command::SetBackend(_)
        | Command::SetNamespace(_)
        | Command::SetPolicy(_)
        | Command::AddRule(_)
        | Command::RemoveRule { .. } => Role::Client,
    }
}

fn answer(principal: Principal, command: &Command) -> Result<Reply, Rejected> {
    World::today().one(Op::Client {
        principal,
        command: command.clone(),
        placement: None,
        held: None,
    })
}

fn is_forbidden(answer: &Result<Reply, Rejected>) -> bool {
    matches!(answer, Err(Rejected::Forbidden { .. }))
}

#[test]
fn each_command_is_refused_when_it_is_applied_to_whoever_has_another_role() {
    for (principal, command) in commands() {
        for role in [Role::Controller, Role::Agent, Role::Client] {
            let asks = Principal {
                role,
                ..principal.clone()
            };
            let told = answer(asks, &command);
            let refused = role != meant_for(&command);
            assert_eq!(is_forbidden(&told), refused, "{role:?}: {command:?}");
        }
    }
}

#[test]
fn an_agent_registers_under_its_own_name_alone() {
    let registers = |(_, command): &(Principal, Command)| matches!(command, Command::RegisterAgent(profile) if profile.id.as_str() == "a1");
    let (agent, command) = commands().into_iter().find(registers).unwrap();
    let other = Principal {
        name: "a2".into(),
        ..agent
    };
    assert!(is_forbidden(&answer(other, &command)));
}
