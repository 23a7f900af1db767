//! More than there is room for: who goes first, and how many at once.

use std::sync::Arc;

use model::{
    AddRule, Agents, Class, Command, Millis, Namespace, RuleAction, Scope, Submit, TaskSpec,
};
use openraft_rt_sim::SimRuntime;
use raft::parts::openraft::async_runtime::AsyncRuntime;

use super::{any_agent, leader_or_any, pass};
use crate::clients::{PATIENCE, ask, capped, namespace, quota, someone, spec, submit_all};
use crate::network::client;
use crate::process;
use crate::world::World;

/// Tasks that a crowd submits at most.
const CROWD: u64 = 30;

fn task(world: &World, namespace: Namespace, class: Option<Class>) -> TaskSpec {
    TaskSpec {
        namespace,
        class,
        ..spec(process::command(world.dice.within(20..600), 0))
    }
}

/// Quotas rise and fall while tasks wait for them: what was planned under a larger one comes to the log after it.
pub async fn change_quota(world: &Arc<World>) -> bool {
    let operator = someone("operator");
    let mut set = false;
    for _ in 0..world.dice.within(2..6) {
        let leader = leader_or_any(world);
        let many = world.dice.within(2..10);
        for _ in 0..many {
            let command = Command::SubmitTask(Submit {
                spec: task(world, capped(), None),
                request_id: None,
            });
            let (world, operator) = (world.clone(), operator.clone());
            drop(SimRuntime::spawn(async move {
                ask(&world, client(0), leader, operator, command).await.ok();
            }));
        }
        let (most, least) = (world.dice.within(3..8), world.dice.within(1..3));
        for (running, queued) in [(most, 30), (least, world.dice.within(2..8))] {
            let (asking, operator) = (world.clone(), operator.clone());
            let command = quota(running, queued);
            drop(SimRuntime::spawn(async move {
                ask(&asking, client(0), leader, operator, command)
                    .await
                    .ok();
            }));
            // So that the second is on its way when what the first admits is planned.
            pass(world, 0..8).await;
        }
        pass(world, 100..1_500).await;
        let asked = ask(world, client(0), leader, operator.clone(), quota(3, 20)).await;
        set |= asked.is_ok();
    }
    set
}

/// Rules by hand come and go while tasks are on their way to the agents that they are about.
pub async fn make_rules(world: &Arc<World>) -> bool {
    let operator = someone("operator");
    let mut made = false;
    for _ in 0..world.dice.within(2..6) {
        let agent = any_agent(world).id.clone();
        let leader = leader_or_any(world);
        for _ in 0..world.dice.within(2..10) {
            let command = Command::SubmitTask(Submit {
                spec: task(world, capped(), None),
                request_id: None,
            });
            let (world, operator) = (world.clone(), operator.clone());
            drop(SimRuntime::spawn(async move {
                pass(&world, 0..8).await;
                ask(&world, client(0), leader, operator, command).await.ok();
            }));
        }
        let action = match world.dice.below(4) {
            0 => RuleAction::Pin,
            1 => RuleAction::Exclude,
            2 => RuleAction::Prefer,
            _ => RuleAction::Cap(1),
        };
        let rule = Command::AddRule(AddRule {
            action,
            scope: Scope {
                namespace: world.dice.permille(800).then(capped),
                kind: None,
            },
            agents: Agents {
                names: [agent].into(),
                require: Vec::new(),
            },
            reason: "a fault".to_owned(),
            ttl: world.dice.permille(200).then_some(Millis(1_500)),
        });
        let asked = ask(world, client(0), leader, operator.clone(), rule);
        made |= asked.await.is_ok();
        pass(world, 50..2_000).await;
        remove_rules(world).await;
    }
    made
}

/// All that a leader knows of: those too of whose making nobody heard.
async fn remove_rules(world: &Arc<World>) {
    let Some(leader) = world.leader() else {
        return;
    };
    let Some(boot) = world.boot(leader) else {
        return;
    };
    let known = |state: &model::State| state.rules().map(|rule| rule.id).collect::<Vec<_>>();
    let asked = SimRuntime::timeout(PATIENCE, boot.core.read(known));
    let Ok(Ok(rules)) = asked.await else {
        return;
    };
    for rule in rules.value {
        let (operator, remove) = (someone("operator"), Command::RemoveRule { rule });
        ask(world, client(0), leader, operator, remove).await.ok();
    }
}

/// Many submit at once on streams, of all classes, and some of them for the first time.
pub async fn crowd(world: &Arc<World>) -> bool {
    let mut accepted = 0;
    for _ in 0..world.dice.within(1..4) {
        let number = world.next_crowd();
        let fresh = namespace(&format!("fresh-{number}"));
        let old = namespace("default");
        let user = world.dice.below(3);
        let mut specs = Vec::new();
        for place in 0..world.dice.within(8..CROWD) {
            let class = world.dice.pick(&Class::ALL).copied();
            // The new ones come last, behind a queue of the old.
            let space = if place % 4 == 3 { &fresh } else { &old };
            let class = class.filter(|_| world.dice.permille(300));
            specs.push(task(world, space.clone(), class));
        }
        let from = (client(0), someone(&format!("user-{user}")));
        let told = submit_all(world, from, &format!("crowd-{number}"), specs).await;
        accepted += told.len();
        pass(world, 50..800).await;
    }
    accepted > 0
}
