//! Every kind of fault, on real clusters: it takes effect, and the cluster serves again once it is healed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster_tests::Error;
use cluster_tests::checkers::{self, Evidence, check_hashes};
use cluster_tests::cluster::Members;
use cluster_tests::faults::{self, Kind, Need, Strike, process};
use cluster_tests::history::Recorder;
use cluster_tests::network::{Backend, Disturbance, Edge, Harm};
use cluster_tests::nodes::{Nodes, Options};
use cluster_tests::report::Progress;
use cluster_tests::traffic::{ExecutionLog, Load, Running};
use nix::sys::signal::Signal;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::test;

use crate::site::{PATIENCE, turn};

/// Draws the same victims and numbers each time.
const SEED: u64 = 7;
const AGENTS: usize = 3;
/// These wait for a lease to run out, so they do it together.
const LONG: [&str; 2] = ["zombie-agent", "exile-agent"];

/// On a network of proxies; what else it does is done by the same few lines.
const PROXIED: [&str; 8] = [
    "isolate-leader",
    "hide-leader",
    "one-way",
    "delay",
    "slow-link",
    "corrupt-byte",
    "reset",
    "half-close",
];

fn is_long(kind: &Kind) -> bool {
    LONG.contains(&kind.name)
}

/// All but those that wait for something to come about, or need many agents, which is what campaigns are for; or those that
/// `QUORATE_FAULTS` names, for whoever works on one.
fn chosen() -> Vec<&'static Kind> {
    let Ok(names) = std::env::var("QUORATE_FAULTS") else {
        let waits = |need: &Need| {
            matches!(need, Need::Failpoints | Need::Snapshots | Need::Purges)
                || matches!(need, Need::Agents(count) if *count > AGENTS)
        };
        return faults::all()
            .filter(|kind| !kind.needs.iter().any(waits))
            .collect();
    };
    let find = |name| faults::find(name).unwrap_or_else(|| panic!("there is no fault {name}"));
    names.split(',').map(find).collect()
}

/// Another one draws other victims and numbers.
fn seed() -> u64 {
    let given = std::env::var("QUORATE_FAULTS_SEED").ok();
    given.map_or(SEED, |text| text.parse().unwrap())
}

fn needs_network(kind: &Kind) -> bool {
    kind.needs
        .iter()
        .any(|need| matches!(need, Need::Network(_)))
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_that_can_be_had_here_takes_effect_and_is_got_over() {
    let progress = Progress::new("faults");
    let _turn = turn().await;
    let nodes = Nodes::start(as_much_as_possible(&progress)).await.unwrap();
    progress.say("the cluster is up");
    let executions = ExecutionLog::create(nodes.scratch()).unwrap();
    let load = load(&nodes, &executions);
    let mut rng = StdRng::seed_from_u64(seed());
    let chosen = chosen();
    let (of_agents, others): (Vec<_>, Vec<_>) = chosen
        .iter()
        .copied()
        .filter(|kind| !is_long(kind))
        .partition(|kind| kind.hits_agents());
    for kind in of_agents.iter().copied() {
        strike(&progress, &nodes, kind, &mut rng).await;
    }
    nodes.until_whole().await.unwrap();
    let mut lasting = Vec::new();
    let recorder = Recorder::new();
    for kind in chosen.iter().copied().filter(|kind| is_long(kind)) {
        lasting.push(
            Strike::begin(kind, &nodes, &mut rng, &recorder)
                .await
                .unwrap(),
        );
    }
    for kind in others.iter().copied() {
        if let Some(why) = kind.missing(nodes.options()) {
            let why = format!("{}: {why}", kind.name);
            match kind.needs {
                [Need::Network(Harm::HalfClose)] => {
                    progress.say(format!("with proxies only: {why}"))
                }
                _ => progress.skip(&why),
            }
            continue;
        }
        strike(&progress, &nodes, kind, &mut rng).await;
    }
    for strike in lasting {
        progress.say(strike.end(&nodes).await.unwrap().to_string());
    }
    nodes.until_whole().await.unwrap();
    nobody_speaks(&nodes).await;
    let history = load.finish().await.unwrap();
    converged(&nodes).await;
    let evidence = Evidence {
        history,
        finals: finals(&nodes).await,
        executions: executions.read().unwrap(),
        ..Evidence::default()
    };
    progress.say(format!(
        "{} operations, {} processes, and all members are the same",
        evidence.history.operations.len(),
        evidence.executions.len()
    ));
    let violations = checkers::check(&evidence);
    assert!(violations.is_empty(), "{violations:#?}");
}

/// A few tasks at a time, each of which writes down that it ran.
fn load(nodes: &Nodes, executions: &ExecutionLog) -> Running {
    let executions = executions.clone();
    let spec = Arc::new(move |number: u64| executions.task(&format!("echo {number}")));
    let load = Load {
        name: "load",
        in_flight: 4,
        spec,
        patience: PATIENCE,
        pause: Duration::ZERO,
    };
    load.start(&nodes.caller())
}

/// Every controller's own list of tasks.
async fn finals(nodes: &Nodes) -> BTreeMap<String, Vec<checkers::Final>> {
    let mut finals = BTreeMap::new();
    for id in nodes.controllers() {
        let listed = nodes.finals_of(&id).await.unwrap();
        finals.insert(id, listed);
    }
    finals
}

/// Agents have nothing to say to each other, so cutting them off from each other is no fault.
async fn nobody_speaks(nodes: &Nodes) {
    let edges = Edge::both("a1", "a2");
    let network = nodes.network();
    let rule = network.disturb(&edges, Disturbance::Silence).await.unwrap();
    nodes.until_serving(PATIENCE).await.unwrap();
    let felt = network.felt(&rule).await.unwrap();
    assert_eq!(felt.values().sum::<u64>(), 0, "{felt:?}");
    network.lift([rule]).await.unwrap();
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_disturb_what_goes_through_them() {
    let progress = Progress::new("proxied");
    let _turn = turn().await;
    let options = Options::new("proxied", Backend::Proxies);
    let nodes = Nodes::start(options).await.unwrap();
    progress.say("the cluster is up");
    let mut rng = StdRng::seed_from_u64(SEED);
    for name in PROXIED {
        strike(&progress, &nodes, faults::find(name).unwrap(), &mut rng).await;
    }
    nodes.until_whole().await.unwrap();
    converged(&nodes).await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_without_effect_is_invalid() {
    let _turn = turn().await;
    let progress = Progress::new("no-effect");
    let options = Options::new("no-effect", Backend::Direct).agents(1);
    let nodes = Nodes::start(options).await.unwrap();
    let mut rng = StdRng::seed_from_u64(SEED);
    let recorder = Recorder::new();
    let leader = nodes.leader().await.unwrap();
    let kind = faults::find("pause-1x").unwrap();
    let strike = Strike::begin(kind, &nodes, &mut rng, &recorder)
        .await
        .unwrap();
    // Somebody else lets the process go on.
    let pid = nodes.member(&leader).unwrap().pid.unwrap();
    process::send(pid, Signal::SIGCONT).unwrap();
    let error = strike.end(&nodes).await.unwrap_err();
    progress.say(error.to_string());
    let is_named = |why: &String| why.contains("pause-1x");
    assert!(
        matches!(&error, Error::Invalid(why) if is_named(why)),
        "{error}"
    );

    // What the network can't do is refused, and not taken for done.
    for name in ["loss", "isolate-leader", "link-down", "disk-full"] {
        let kind = faults::find(name).unwrap();
        let refused = Strike::begin(kind, &nodes, &mut rng, &recorder).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{name}");
    }
    nodes.until_serving(PATIENCE).await.unwrap();
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_was_about_to_start_when_it_hung_is_never_started_once_its_lease_is_over() {
    let progress = Progress::new("late-start");
    let _turn = turn().await;
    let kind = faults::find("hang-at-spawn").unwrap();
    let options = Options::new("late-start", Backend::Direct).agents(2);
    let (options, missing) = faults::equip(options, &[kind]);
    if !options.has_failpoints {
        return progress.skip(&missing.join("; "));
    }
    let nodes = Nodes::start(options).await.unwrap();
    let executions = ExecutionLog::create(nodes.scratch()).unwrap();
    let load = load(&nodes, &executions);
    let report = strike(&progress, &nodes, kind, &mut StdRng::seed_from_u64(seed())).await;
    // Had it gone on, it would have killed the late process itself, most often before that had written a line.
    assert!(report.proof.contains("was ended by its guard"), "{report}");
    nodes.until_whole().await.unwrap();
    let evidence = Evidence {
        history: load.finish().await.unwrap(),
        finals: finals(&nodes).await,
        executions: executions.read().unwrap(),
        ..Evidence::default()
    };
    let violations = checkers::check(&evidence);
    assert!(violations.is_empty(), "{violations:#?}");
}

/// Moments at which a removal is given up: asked for, done, ended, joining.
const CUT_SHORT: [u64; 6] = [60, 250, 600, 2_000, 3_500, 5_000];

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_a_member_again_wherever_its_removal_is_cut_short() {
    let progress = Progress::new("cut-short");
    let _turn = turn().await;
    let (options, missing) = faults::equip(Options::new("cut-short", Backend::Direct), &chosen());
    for why in missing {
        progress.skip(&why);
    }
    let nodes = Nodes::start(options).await.unwrap();
    let mut rng = StdRng::seed_from_u64(seed());
    let kind = faults::find("remove-and-rejoin").unwrap();
    for cut in CUT_SHORT.map(Duration::from_millis) {
        let mut fault = (kind.make)();
        let inflicted = tokio::time::timeout(cut, fault.inflict(&nodes, &mut rng)).await;
        fault.heal(&nodes).await.unwrap();
        nodes.until_controllers_back().await.unwrap();
        let mut ids = Vec::new();
        for machine in nodes.controllers() {
            ids.push(nodes.member_id(&machine).await.unwrap());
        }
        progress.say(format!("{cut:?}: {inflicted:?}; {}", ids.join(" ")));
    }
    nodes.until_serving(PATIENCE).await.unwrap();
    converged(&nodes).await;
}

#[test]
async fn faults_are_told_apart_by_name_and_drawn_by_seed() {
    let names: Vec<&str> = faults::all().map(|kind| kind.name).collect();
    let different: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(names.len(), different.len(), "{names:?}");
    assert!(faults::all().all(|kind| !kind.about.is_empty() && !kind.about.ends_with('.')));
    let drawn = |seed, options: &Options| -> Vec<&str> {
        let mut rng = StdRng::seed_from_u64(seed);
        let draw = |_| faults::draw(options, &mut rng).unwrap().name;
        (0..20).map(draw).collect()
    };
    let plain = Options::new("plain", Backend::Direct);
    assert_eq!(drawn(SEED, &plain), drawn(SEED, &plain));
    assert_ne!(drawn(SEED, &plain), drawn(SEED + 1, &plain));
    let of_network = |name: &&str| needs_network(faults::find(name).unwrap());
    assert!(!drawn(SEED, &plain).iter().any(of_network));
}

/// Namespaces, clocks and disks; or what there is of them, said so.
fn as_much_as_possible(progress: &Progress) -> Options {
    let (backend, why) = Backend::strongest();
    let options = Options::new("faults", backend)
        .controllers(5)
        .agents(AGENTS);
    let (options, missing) = faults::equip(options, &chosen());
    for why in why.into_iter().chain(missing) {
        progress.skip(&why);
    }
    options
}

/// Inflicts a fault, sees it healed, and waits until all controllers are back.
async fn strike(
    progress: &Progress,
    nodes: &Nodes,
    kind: &'static Kind,
    rng: &mut StdRng,
) -> faults::Report {
    let strike = Strike::begin(kind, nodes, rng, &Recorder::new()).await;
    let strike = strike.unwrap_or_else(|error| panic!("{}: {error}", kind.name));
    let ended = strike.end(nodes).await;
    let report = ended.unwrap_or_else(|error| panic!("{}: {error}", kind.name));
    progress.say(report.to_string());
    nodes.until_controllers_back().await.unwrap();
    report
}

/// Waits until all members have applied the same, and compares their states.
async fn converged(nodes: &Nodes) {
    let status = nodes.until_converged(PATIENCE).await.unwrap();
    assert_eq!(check_hashes([&status]), []);
}
