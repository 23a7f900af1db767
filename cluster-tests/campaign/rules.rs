//! An administrator who makes rules by hand and takes them back while all else goes on.

use std::convert::Infallible;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use wire::v1;
use wire::v1::policies_client::PoliciesClient;

use super::work::NAMESPACES;
use crate::cluster;
use crate::nodes::Nodes;

/// A rule ends by itself after so long, if it is not taken back: none keeps anything from running for good.
const LASTS: Duration = Duration::from_secs(10);
/// From one change to the next.
const EVERY: Duration = Duration::from_secs(2);
/// For an answer: one that does not come is none, and the rule may hold.
const PATIENCE: Duration = Duration::from_secs(2);

/// Until it is dropped.
pub async fn make_rules(nodes: &Nodes, mut rng: StdRng) -> Infallible {
    let (addresses, agents) = (nodes.addresses(), nodes.agents());
    let mut known: Option<String> = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let address = addresses.choose(&mut rng).map_or("", String::as_str);
        let mut client = PoliciesClient::new(cluster::channel(address, &nodes.tls()));
        let change = async {
            match known.take_if(|_| rng.random()) {
                Some(id) => drop(client.remove_rule(v1::RemoveRuleRequest { id }).await),
                None => {
                    let made = client.add_rule(drawn(&agents, &mut rng)).await;
                    let made = made.ok().and_then(|it| it.into_inner().rule);
                    known = made.map(|rule| rule.id).or(known.take());
                }
            }
        };
        // Nobody answers at times: that is what the run is for.
        let _late = tokio::time::timeout(PATIENCE, change).await;
    }
}

/// One that leaves tasks somewhere to go, or is refused.
fn drawn(agents: &[String], rng: &mut StdRng) -> v1::AddRuleRequest {
    let (action, most) = *[("exclude", 0), ("pin", 0), ("prefer", 0), ("cap", 1)]
        .choose(rng)
        .unwrap_or(&("exclude", 0));
    let namespace = NAMESPACES.choose(rng).copied().unwrap_or_default();
    v1::AddRuleRequest {
        action: action.to_owned(),
        most,
        namespace: namespace.to_owned(),
        agents: agents.choose(rng).cloned().into_iter().collect(),
        reason: "a campaign".to_owned(),
        ttl_ms: u64::try_from(LASTS.as_millis()).ok(),
        ..v1::AddRuleRequest::default()
    }
}
