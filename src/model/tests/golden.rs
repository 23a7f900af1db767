//! Golden scripts: a task's life as a person would tell it, and what the model answers.
//!
//! The scripts are in `golden/`; `make fix` writes their outputs anew, and a diff shows what
//! changed. Commands: `agent NAME slots=N inc=N backends=NAME:MODEL+MODEL,… KEY=VALUE…`, `submit [id=REQUEST]
//! [retries=N] [once] [class=CLASS] [ns=NAMESPACE] [by=USER] [require=EXPRESSION] [on=AGENT] [model=MODEL] COMMAND…`, `assign TASK AGENT`, `finish TASK EPOCH AGENT
//! END`, `cancel TASK`, `expire AGENT INC`, `deadline TASK`, `cordon AGENT [REASON]`, `uncordon
//! AGENT`, `drain AGENT MILLIS [REASON]`, `overdue AGENT`, `remove AGENT`, `retain [hot=N] [entries=N]
//! [age=MILLIS]`, `pass MILLIS`, `task TASK`, `agents`, `segments`, `token ID role=ROLE uses=N ttl=MILLIS
//! name=NAME`, `namespace NAME [weight=N] [running=N] [queued=N] [USER=WEIGHT…]`, `shares`, `policy [ns=NAMESPACE] [kind=KIND] STRATEGY|inherit`, `policies`, `rule ACTION [most=N] [ns=NAMESPACE] [kind=KIND] [ttl=MILLIS] [require=EXPRESSION] [why=REASON] AGENT…`, `unrule RULE`, `rule-over RULE`, `rules`, `set AGENT NAME [weight=N] [limit=N] [max_fails=N] [fail_timeout=MILLIS]`, `revoke TOKEN`, `enrol TOKEN KEY role=ROLE last=CONTROLLER [NAME]`, `tokens`.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;

use super::world::{
    World, agent_id, backend, client, fence, finish_op, incarnation, inference, placement, profile,
    register_op, spec, submit, submit_op,
};
use crate::{
    AddRule, Agents, BackendSettings, Command, Cordon, DrainAgent, End, Event, Interruption, Op,
    Outcome, Reply, Rule, RuleAction, Scope, SetBackend, SetNamespace, SetPolicy, SystemCommand,
    TaskId, Timestamp,
};

struct Script(World);

type Answer = Result<String, Box<dyn Error>>;

impl goldenscript::Runner for Script {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &goldenscript::Command, _: &goldenscript::Context) -> Answer {
        let mut args = command.consume_args();
        let told = match command.name.as_str() {
            "pass" => {
                self.0.now += word(&mut args)?.parse::<u64>()?;
                String::new()
            }
            "task" => self.task(word(&mut args)?)?,
            "agents" => self.agents(),
            "segments" => self.segments(),
            "shares" => self.shares(),
            "policies" => self.policies(),
            "rules" => self.rules(),
            "tokens" => super::joining::tokens(&self.0.state),
            name => {
                let op = op(name, &mut args)?;
                self.apply(op)
            }
        };
        args.reject_next()?;
        Ok(told)
    }
}

pub(super) type Args<'a> = goldenscript::ArgumentConsumer<'a>;

pub(super) fn word<'a>(args: &mut Args<'a>) -> Result<&'a str, Box<dyn Error>> {
    args.next_pos().ok_or_else(|| "a word is missing".into())
}

fn op(name: &str, args: &mut Args<'_>) -> Result<Op, Box<dyn Error>> {
    Ok(match name {
        "agent" => agent(args)?,
        "submit" => submission(args)?,
        "assign" => {
            let task = word(args)?.parse()?;
            let placement = placement(word(args)?);
            Op::System(SystemCommand::Assign(crate::Assignment { task, placement }))
        }
        "preempt" => preemption(args)?,
        "finish" => {
            let task: TaskId = word(args)?.parse()?;
            let fence = fence(task.0, word(args)?.parse()?);
            let agent = word(args)?;
            finish_op(fence, agent, Outcome::bare(end(word(args)?)?))
        }
        "cancel" => asked(Command::CancelTask {
            task: word(args)?.parse()?,
            reason: "enough".into(),
        }),
        "expire" => {
            let (agent, incarnation) = (agent_id(word(args)?), incarnation(word(args)?.parse()?));
            Op::System(SystemCommand::ExpireLease { agent, incarnation })
        }
        "retain" => retain(args)?,
        "deadline" => Op::System(SystemCommand::ExpireDeadline {
            task: word(args)?.parse()?,
        }),
        "overdue" => Op::System(SystemCommand::ExpireDrain {
            agent: agent_id(word(args)?),
        }),
        "token" | "revoke" | "enrol" => super::joining::op(name, args)?,
        "cordon" | "uncordon" | "drain" | "remove" => asked(order(name, args)?),
        "set" => asked(setting(args)?),
        "namespace" => asked(namespace(args)?),
        "policy" => asked(policy(args)?),
        "rule" => asked(rule(args)?),
        "unrule" => asked(Command::RemoveRule {
            rule: word(args)?.parse()?,
        }),
        "rule-over" => Op::System(SystemCommand::ExpireRule {
            rule: word(args)?.parse()?,
        }),
        other => return Err(format!("unknown command {other}").into()),
    })
}

/// What an administrator says of an agent.
fn order(name: &str, args: &mut Args<'_>) -> Result<Command, Box<dyn Error>> {
    let agent = agent_id(word(args)?);
    Ok(match name {
        "cordon" => Command::CordonAgent {
            agent,
            reason: args.next_pos().unwrap_or_default().to_owned(),
        },
        "uncordon" => Command::UncordonAgent { agent },
        "drain" => Command::DrainAgent(DrainAgent {
            agent,
            deadline: crate::Millis(word(args)?.parse()?),
            reason: args.next_pos().unwrap_or_default().to_owned(),
        }),
        _ => Command::RemoveAgent { agent },
    })
}

/// What an administrator says of a back end.
fn setting(args: &mut Args<'_>) -> Result<Command, Box<dyn Error>> {
    let mut number = |key: &str| args.take_key(key).map(str::parse::<u32>).transpose();
    let (weight, limit) = (number("weight")?, number("limit")?);
    let (max_fails, span) = (number("max_fails")?, number("fail_timeout")?);
    Ok(Command::SetBackend(SetBackend {
        agent: agent_id(word(args)?),
        name: word(args)?.to_owned(),
        weight,
        limit,
        max_fails,
        fail_timeout: span.map(|span| crate::Millis(span.into())),
    }))
}

/// What an administrator says of a namespace.
fn namespace(args: &mut Args<'_>) -> Result<Command, Box<dyn Error>> {
    let mut number = |key: &str| args.take_key(key).map(str::parse::<u32>).transpose();
    let weight = number("weight")?;
    let (max_running, max_queued) = (number("running")?, number("queued")?);
    let namespace = word(args)?.parse()?;
    let mut users = BTreeMap::new();
    while let Some((user, weight)) = args.next_key() {
        users.insert(user.to_owned(), weight.parse()?);
    }
    Ok(Command::SetNamespace(SetNamespace {
        namespace,
        weight,
        users,
        max_running,
        max_queued,
    }))
}

/// How an administrator wants agents to be chosen.
fn policy(args: &mut Args<'_>) -> Result<Command, Box<dyn Error>> {
    let namespace = args.take_key("ns").map(str::parse).transpose()?;
    let kind = args.take_key("kind").map(str::parse).transpose()?;
    let strategy = match word(args)? {
        "inherit" => None,
        strategy => Some(strategy.parse()?),
    };
    let scope = Scope { namespace, kind };
    Ok(Command::SetPolicy(SetPolicy { scope, strategy }))
}

/// What an administrator decides by hand.
fn rule(args: &mut Args<'_>) -> Result<Command, Box<dyn Error>> {
    let namespace = args.take_key("ns").map(str::parse).transpose()?;
    let kind = args.take_key("kind").map(str::parse).transpose()?;
    let ttl = args.take_key("ttl").map(str::parse).transpose()?;
    let require = args.take_key("require").map(str::parse).transpose()?;
    let reason = args.take_key("why").unwrap_or_default().to_owned();
    let most = args.take_key("most").map_or(Ok(0), str::parse)?;
    let action = match word(args)? {
        "pin" => RuleAction::Pin,
        "exclude" => RuleAction::Exclude,
        "prefer" => RuleAction::Prefer,
        "cap" => RuleAction::Cap(most),
        other => return Err(format!("no action {other}").into()),
    };
    let mut names = BTreeSet::new();
    while let Some(name) = args.next_pos() {
        names.insert(agent_id(name));
    }
    Ok(Command::AddRule(AddRule {
        action,
        scope: Scope { namespace, kind },
        agents: Agents {
            names,
            require: require.into_iter().collect(),
        },
        reason,
        ttl: ttl.map(crate::Millis),
    }))
}

fn asked(command: Command) -> Op {
    Op::Client {
        principal: client("ann"),
        command,
        placement: None,
        held: None,
    }
}

fn retain(args: &mut Args<'_>) -> Result<Op, Box<dyn Error>> {
    let mut retention = crate::Retention::default();
    if let Some(hot) = args.take_key("hot") {
        retention.hot_tasks = hot.parse()?;
    }
    if let Some(entries) = args.take_key("entries") {
        retention.segment_entries = entries.parse()?;
    }
    if let Some(age) = args.take_key("age") {
        retention.max_age = crate::Millis(age.parse()?);
    }
    Ok(Op::System(SystemCommand::Retain(retention)))
}

fn agent(args: &mut Args<'_>) -> Result<Op, Box<dyn Error>> {
    let slots = args.take_key("slots").map_or(Ok(1), str::parse)?;
    let inc = args.take_key("inc").map_or(Ok(1), str::parse)?;
    let mut profile = profile(word(args)?, slots, inc);
    let backends = args.take_key("backends").unwrap_or_default();
    let protocol = args.take_key("protocol").map_or(Ok(1), str::parse)?;
    profile.protocol = crate::AgentProtocol(protocol);
    profile.backends = backends.split_terminator(',').map(backend).collect();
    while let Some((key, value)) = args.next_key() {
        profile.labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(register_op(profile))
}

/// The task that gets the place, the agent, and each victim with its epoch.
fn preemption(args: &mut Args<'_>) -> Result<Op, Box<dyn Error>> {
    let task = word(args)?.parse()?;
    let placement = placement(word(args)?);
    let mut victims = Vec::new();
    while let Some(victim) = args.next_pos() {
        let (task, epoch) = victim.split_once('.').ok_or("a victim is task.epoch")?;
        victims.push(crate::Victim {
            task: task.parse()?,
            epoch: crate::Epoch(epoch.parse()?),
        });
    }
    let assignment = crate::Assignment { task, placement };
    Ok(Op::System(SystemCommand::Preempt(crate::Preemption {
        victims,
        assignment,
    })))
}

fn submission(args: &mut Args<'_>) -> Result<Op, Box<dyn Error>> {
    let request = args.take_key("id");
    let retries = args.take_key("retries").map_or(Ok(0), str::parse)?;
    let once = args.take_key("once").map_or(Ok(false), str::parse)?;
    let preemptible = args.take_key("preemptible").map_or(Ok(false), str::parse)?;
    let deadline = args.take_key("deadline").map(str::parse).transpose()?;
    let require = args.take_key("require").map(str::parse).transpose()?;
    let class = args.take_key("class").map(str::parse).transpose()?;
    let place = args.take_key("on").map(placement);
    let namespace = args.take_key("ns").map(str::parse).transpose()?;
    let by = args.take_key("by");
    let model = args.take_key("model");
    let words: Vec<&str> = std::iter::from_fn(|| args.next_pos()).collect();
    let mut spec = match model {
        Some(model) => inference(model, &words.join(" ")),
        None => spec(&words.join(" ")),
    };
    spec.retries = retries;
    spec.at_most_once = once;
    spec.preemptible = preemptible;
    spec.deadline = deadline.map(crate::Millis);
    spec.class = class;
    spec.require.extend(require);
    spec.namespace = namespace.unwrap_or(spec.namespace);
    let mut op = submit_op(submit(spec, request), place);
    if let (Op::Client { principal, .. }, Some(by)) = (&mut op, by) {
        principal.name = by.into();
    }
    Ok(op)
}

impl Script {
    fn apply(&mut self, op: Op) -> String {
        let applied = self.0.apply(vec![op]);
        let mut told = format!("{}: ", self.0.index);
        match &applied.replies[0] {
            Ok(Reply::Submitted {
                task,
                duplicate: true,
            }) => write!(told, "{task}, known before"),
            Ok(Reply::Submitted {
                task,
                duplicate: false,
            }) => write!(told, "{task}"),
            Ok(Reply::Finished { disposition, .. }) => write!(told, "{disposition:?}"),
            Ok(Reply::Cancelled { .. } | Reply::Registered | Reply::Done) => write!(told, "ok"),
            Ok(Reply::Enrolled(enrolled)) => {
                write!(told, "{} for {} ms", enrolled.name, enrolled.validity.0)
            }
            Err(rejected) => write!(told, "refused: {rejected}"),
        }
        .expect("writing into a string");
        for record in &applied.archive.records {
            if let (Some(task), key) = (record.task, record.key) {
                write!(told, "\n    {task} archived at {}.{}", key.index, key.n)
                    .expect("writing into a string");
            }
        }
        for event in &applied.events {
            write!(told, "\n    {}", event_words(event)).expect("writing into a string");
        }
        told
    }

    fn task(&self, id: &str) -> Answer {
        let task = self.0.state.task(id.parse()?).ok_or("no such task")?;
        let mut told = format!("{}: {}", task.id, task.state().as_str());
        if task.class != task.kind.default_class() {
            write!(told, ", class {}", task.class)?;
        }
        if let Some(live) = task.live() {
            write!(told, " to {} under {}", live.agent, live.epoch.0)?;
        }
        write!(
            told,
            ", {} attempts, {} failures",
            task.attempts, task.failures
        )?;
        if !task.reason().is_empty() {
            write!(told, "\n    {}", task.reason())?;
        }
        Ok(told)
    }

    fn segments(&self) -> String {
        let segments = self.0.state.all_segments().map(|segment| {
            let records = segment.content.records;
            format!(
                "{} to {}: {records} records",
                segment.first,
                segment.end - 1
            )
        });
        segments.collect::<Vec<_>>().join("\n")
    }

    /// Of each tenant: what was used, what runs, what one more may cost, and the weights.
    fn shares(&self) -> String {
        let now = Timestamp(self.0.now);
        let state = &self.0.state;
        let mut told = Vec::new();
        for namespace in state.namespaces_known() {
            let (queued, running) = state.load(namespace);
            told.push(format!("{namespace}: {queued} wait, {running} run"));
            for tenant in state.tenants_of(namespace) {
                let usage = state.usage(tenant, now);
                let (of_namespace, of_user) = state.weights(tenant);
                told.push(format!(
                    "    {}: {} used, {} claimed; weights {of_namespace} and {of_user}",
                    tenant.user, usage.used, usage.claimed
                ));
            }
        }
        told.join("\n")
    }

    fn rules(&self) -> String {
        let rules = self.0.state.rules().map(|rule| {
            let Rule {
                id,
                asked,
                by,
                since,
                expires,
                ..
            } = rule;
            let until = expires.map_or_else(String::new, |end| format!(" until {}", end.0));
            format!(
                "{id}: {asked}{until}, by {by} at {} ({})",
                since.0, asked.reason
            )
        });
        rules.collect::<Vec<_>>().join("\n")
    }

    fn policies(&self) -> String {
        let policies = self.0.state.policies().map(|(scope, policy)| {
            let (by, since) = (&policy.by, policy.since.0);
            format!("{scope}: {}, by {by} at {since}", policy.strategy)
        });
        policies.collect::<Vec<_>>().join("\n")
    }

    fn agents(&self) -> String {
        let agents = self.0.state.agents().map(|agent| {
            let id = &agent.profile.id;
            let busy = self.0.state.busy(id);
            let cordon = agent.cordon.as_ref().map(cordon_words).unwrap_or_default();
            let set = self.0.state.set_backends(agent);
            let set: String = set.iter().map(setting_words).collect();
            format!(
                "{id}: {:?}, {busy} of {} slots{cordon}{set}",
                agent.state, agent.profile.slots
            )
        });
        agents.collect::<Vec<_>>().join("\n")
    }
}

/// State time and wall time are the same in these scripts.
fn cordon_words(cordon: &Cordon) -> String {
    let Cordon {
        by,
        reason,
        since,
        drain,
    } = cordon;
    let drain = drain.map(|drain| format!(", {:?} until {}", drain.stage, drain.until.0));
    let drain = drain.unwrap_or_default();
    format!("\n    closed by {by} at {} ({reason}){drain}", since.0)
}

fn setting_words((name, set): (&String, &BackendSettings)) -> String {
    format!(
        "\n    {name}: weight {}, limit {}, {} fails in {} ms",
        set.weight, set.limit, set.max_fails, set.fail_timeout.0
    )
}

fn end(word: &str) -> Result<End, Box<dyn Error>> {
    Ok(match word {
        "ok" => End::Exited { code: 0 },
        "timeout" => End::TimedOut,
        "killed" => End::Killed,
        "declined" => End::Declined {
            reason: "stopping".into(),
        },
        "stopped" => End::Interrupted {
            cause: Interruption::EndedByAgent,
            reason: "it was told to".into(),
        },
        "interrupted" => End::Interrupted {
            cause: Interruption::AgentDied,
            reason: "the agent was restarted".into(),
        },
        "ended" => End::Interrupted {
            cause: Interruption::EndedByAgent,
            reason: "the agent was stopped".into(),
        },
        "missing" => End::NotStarted {
            reason: "no such program".into(),
        },
        code => End::Exited {
            code: code.parse()?,
        },
    })
}

fn event_words(event: &Event) -> String {
    match event {
        Event::TaskQueued { task } => format!("{task} queued"),
        Event::TaskAssigned { fence, agent, .. } => format!("{fence} assigned to {agent}"),
        Event::TaskRequeued { task } => format!("{task} queued again"),
        Event::CancelRequested { fence, agent, .. } => format!("{agent} has to end {fence}"),
        Event::Preempted { fence, agent, by } => format!("{agent} has to end {fence} for {by}"),
        Event::TaskEnded { task, state } => format!("{task} ended: {}", state.as_str()),
        Event::AttemptEnded { fence, agent } => format!("{fence} left {agent}"),
        Event::AgentRegistered { agent } => format!("{agent} registered"),
        Event::AgentLost { agent, .. } => format!("{agent} lost"),
        Event::AgentCordoned { agent } => format!("{agent} cordoned"),
        Event::AgentUncordoned { agent } => format!("{agent} uncordoned"),
        Event::AgentDraining { agent } => format!("{agent} has to give back what has not begun"),
        Event::DrainExpired { agent } => format!("{agent} has to end what it holds"),
        Event::AgentRemoved { agent, .. } => format!("{agent} forgotten"),
        Event::SegmentDropped { first } => format!("segment {first} dropped"),
        Event::BackendSet { agent } => format!("something else holds of a back end of {agent}"),
        Event::NamespaceSet { namespace } => format!("something else holds of {namespace}"),
        Event::PolicySet { scope } => format!("agents are chosen in another way for {scope}"),
        Event::RuleSet { rule } => format!("{rule} holds"),
        Event::RuleRemoved { rule } => format!("{rule} removed"),
        Event::RuleExpired { rule } => format!("{rule} expired"),
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the scripts are files")]
fn golden_scripts_give_what_they_gave() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");
    let mut scripts: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is committed")
        .map(|entry| entry.expect("it can be listed").path())
        // The golden data of formats are no scripts.
        .filter(|path| path.is_file())
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for script in scripts {
        goldenscript::run(&mut Script(World::today()), &script).expect("the script holds");
    }
}
