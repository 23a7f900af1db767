//! The demonstration from beginning to end, on one page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cluster_tests::cluster::{self, Cluster, Options, Status};
use cluster_tests::faults::{self, Killed};
use cluster_tests::report::{Table, count, span};
use cluster_tests::traffic::{self, Ack, Caller, Prober};
use cluster_tests::{Error, checkers, wait};
use wire::v1;

use crate::Arguments;
use crate::files::{self, Work};
use crate::tasks::{Bar, Done, Gate, Running};

/// Slots of each agent: few, so that the work takes long enough to be interrupted.
const SLOTS: u32 = 2;
/// For a new leader, and for a restarted member to catch up.
const RECOVERY: Duration = Duration::from_secs(60);

/// What is told at the end.
struct Ending {
    killed: Killed,
    successor: String,
    /// How often the commits passed to a leader of another term.
    failovers: usize,
    terms: (u64, u64),
    outage: Duration,
    agent: Killed,
    took: Duration,
    probes: usize,
}

pub async fn tell(arguments: &Arguments) -> Result<(), Error> {
    println!("Quorate: real work on a cluster that loses its leader half-way\n");
    let begun = Instant::now();
    let cluster = Cluster::start(Options::new("demo").slots(SLOTS)).await?;
    let leader = cluster.leader().await?;
    println!(
        "  3 controllers and 2 agents are up after {}; {leader} leads.\n  {}\n",
        span(begun.elapsed()),
        cluster.directory().display(),
    );

    let work = files::collect(cluster.scratch(), arguments.tasks)?;
    let expected = files::expected(&work.files)?;
    println!(
        "  Each file is a task of its own, `sha256sum FILE`: {} of this repository, {} generated.",
        work.files.len() - work.generated,
        work.generated,
    );

    let (ended, ending) = run(&cluster, &work).await?;
    let again = compare(&ended, &expected)?;
    took_effect(&ending, again)?;
    println!(
        "  All {} results are what a plain `sha256sum` says.\n",
        ended.len()
    );

    let status = bring_back(&cluster, &ending).await?;
    summarise(&ended, again, &ending);
    members(&status)?;
    cluster.stop().await?;
    println!("\n  Nothing was lost. Everything is stopped and its files are removed.");
    Ok(())
}

/// The work, and the two kills in it.
async fn run(cluster: &Cluster, work: &Work) -> Result<(Vec<Done>, Ending), Error> {
    let tls = cluster::grpc_tls(&cluster.credentials()?)?;
    let addresses = cluster.addresses()?;
    let caller = Caller::new(&addresses, &tls);
    let prober = Prober::start(&addresses, &tls, &traffic::process(["true"]));
    prober.first(RECOVERY).await?;

    let begun = Instant::now();
    let bar = Bar::new(work.files.len());
    let (first_half, second_half) = work.files.split_at(work.files.len() / 2);
    let running = Running::start(&caller, first_half, None, &bar);
    let mut ended = running.finish().await?;
    let gate = Gate::at(cluster.scratch().join("gate"));
    let running = Running::start(&caller, second_half, Some(&gate), &bar);
    gate.agent_at_work(cluster).await?;
    bar.say(
        "half of the results are in; the rest is at work until the leader and an agent are killed",
    );

    let before = cluster.status().await?;
    let leader = cluster.leader().await?;
    let killed = faults::kill(cluster, &leader).await?;
    bar.say(&format!(
        "{leader}, the leader, killed with SIGKILL (pid {})",
        killed.pid
    ));
    let first = prober.committed_after_term(before.term, RECOVERY).await?;
    let outage = outage(&prober.acks(), &killed, &first);
    let successor = cluster.leader().await?;
    bar.say(&format!(
        "{successor} leads; nothing could be committed for {}",
        span(outage)
    ));

    let agent = faults::kill(cluster, &gate.agent_at_work(cluster).await?).await?;
    gate.open()?;
    bar.say(&format!(
        "{}, an agent, killed with SIGKILL at work (pid {})",
        agent.id, agent.pid
    ));
    bar.say("what it held runs again on the other, once its lease is over");

    let acks = prober.acks();
    drop(prober);
    ended.extend(running.finish().await?);
    bar.close();
    Ok((
        ended,
        Ending {
            killed,
            successor,
            failovers: failovers(&acks),
            terms: (before.term, first.term),
            outage,
            agent,
            took: begun.elapsed(),
            probes: acks.len(),
        },
    ))
}

fn failovers(acks: &[Ack]) -> usize {
    let terms: BTreeSet<u64> = acks.iter().map(|ack| ack.term).collect();
    terms.len().saturating_sub(1)
}

/// Both kills have to show, or the equal results say nothing about them.
fn took_effect(ending: &Ending, again: usize) -> Result<(), Error> {
    let (leader, agent) = (&ending.killed.id, &ending.agent.id);
    if ending.failovers == 0 || ending.successor == *leader {
        return Err(Error::Invalid(format!(
            "{leader}, the leader, was killed, and nobody took over"
        )));
    }
    if again == 0 {
        return Err(Error::Invalid(format!(
            "{agent} was killed at work, and no attempt was made again"
        )));
    }
    Ok(())
}

/// From the last commit before the new leader's first, or from the kill if none came after it.
fn outage(acks: &[Ack], killed: &Killed, first: &Ack) -> Duration {
    let before = acks
        .iter()
        .filter(|ack| ack.term < first.term)
        .map(|ack| ack.at)
        .max();
    first
        .at
        .duration_since(before.unwrap_or(killed.at).max(killed.at))
}

/// Gives how many attempts were made again.
fn compare(ended: &[Done], expected: &BTreeMap<PathBuf, String>) -> Result<usize, Error> {
    let mut differences = Vec::new();
    for Done { file, task } in ended {
        let stdout = task
            .result
            .as_ref()
            .map(|result| &result.stdout[..])
            .unwrap_or_default();
        let said = String::from_utf8_lossy(stdout);
        let wanted = expected.get(file).map(String::as_str).unwrap_or_default();
        if task.state() != v1::TaskState::Succeeded || said != wanted {
            let state = task.state().as_str_name();
            differences.push(format!(
                "t{} {state} {:?} instead of {wanted:?}",
                task.id, said
            ));
        }
    }
    if ended.len() != expected.len() {
        differences.push(format!(
            "{} results for {} files",
            ended.len(),
            expected.len()
        ));
    }
    match differences.is_empty() {
        true => Ok(ended
            .iter()
            .map(|done| done.task.attempt.saturating_sub(1) as usize)
            .sum()),
        false => Err(Error::Broken(differences.join("\n"))),
    }
}

/// Starts the dead again, and waits until all members have applied the same.
async fn bring_back(cluster: &Cluster, ending: &Ending) -> Result<Status, Error> {
    let (leader, agent) = (&ending.killed.id, &ending.agent.id);
    println!("  Starting {leader} and {agent} again.");
    cluster.restart(leader).await?;
    cluster.restart(agent).await?;
    cluster.until_whole().await?;
    wait::until("all members at the same index", RECOVERY, || async {
        let status = cluster.status().await.map_err(|error| error.to_string())?;
        if checkers::is_converged(&status) {
            Ok(status)
        } else {
            Err(status.describe())
        }
    })
    .await
}

fn summarise(ended: &[Done], again: usize, ending: &Ending) {
    let (from, to) = ending.terms;
    let changes = to.saturating_sub(from);
    let rows = [
        (
            "tasks",
            format!(
                "{} in {}, each result compared",
                ended.len(),
                span(ending.took)
            ),
        ),
        (
            "failovers",
            format!(
                "{} ({} to {}, {})",
                ending.failovers,
                ending.killed.id,
                ending.successor,
                count_terms(changes)
            ),
        ),
        ("nothing could be committed for", span(ending.outage)),
        ("attempts made again", again.to_string()),
        (
            "probes beside",
            format!("{} small tasks, to measure that", ending.probes),
        ),
    ];
    println!();
    for (name, value) in rows {
        println!("  {name:<32}{value}");
    }
    println!();
}

fn count_terms(changes: u64) -> String {
    count(usize::try_from(changes).unwrap_or(usize::MAX), "term")
}

/// Prints the members; an error where their states differ.
fn members(status: &Status) -> Result<(), Error> {
    let mut table = Table::new(["member", "is", "applied", "state hash"]);
    for member in &status.members {
        let applied = member.applied.map(|at| at.to_string()).unwrap_or_default();
        let hash = member.state_hash.clone().unwrap_or_default();
        table.row([member.id.clone(), member.state.clone(), applied, hash]);
    }
    print!("{table}");
    match checkers::check_hashes([status]).as_slice() {
        [] => Ok(()),
        [first, ..] => Err(Error::Broken(first.to_string())),
    }
}
