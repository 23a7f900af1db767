//! `--list`.

use cluster_tests::campaign::SCENARIOS;
use cluster_tests::faults::{self, Kind};
use cluster_tests::network::Backend;
use cluster_tests::nodes::Options;
use cluster_tests::report::Table;

/// Everything that can be run, and what can be broken on a cluster as it would be started here.
pub fn print(nodes: usize, agents: usize, backend: Backend) {
    println!("Scenarios, for --scenario; `all` runs each of them but soak:\n");
    let mut table = Table::new(["scenario", "what it is"]);
    for scenario in SCENARIOS {
        table.row([scenario.name, scenario.about]);
    }
    println!("{table}");
    println!("\nFaults; the name of one is a scenario, too, in which nothing else is broken:\n");
    let kinds: Vec<&Kind> = faults::all().collect();
    let options = Options::new("list", backend)
        .controllers(nodes)
        .agents(agents);
    let (mut options, _) = faults::equip(options, &kinds);
    // As scenarios have them that want them.
    options.snapshot_every = Some(faults::OFTEN);
    let mut table = Table::new(["fault", "what it does", "here"]);
    for kind in faults::all() {
        let here = kind.missing(&options).unwrap_or_else(|| "yes".to_owned());
        table.row([kind.name, kind.about, &here]);
    }
    println!("{table}");
}
