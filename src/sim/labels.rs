//! What agents say of themselves, and what tasks require of that.
//!
//! An agent's labels follow from its number, and what a task requires from how long it takes and from how many agents there
//! are: nothing is drawn for it. So whoever holds an assignment to what was required asks neither the state nor the
//! product's own look at expressions.

use std::collections::BTreeMap;

use model::{AgentId, Expression};

/// Each agent is in one of three.
const ZONE: &str = "zone";
/// Every other agent says that it has a fast one, and the others say nothing of it.
const DISK: &str = "disk";
const FAST: &str = "fast";

/// Of so many tasks one requires something.
const EACH: u64 = 5;

fn zone(number: u64) -> &'static str {
    match number % 3 {
        1 => "a",
        2 => "b",
        _ => "c",
    }
}

fn has_fast_disk(number: u64) -> bool {
    number % 2 == 1
}

/// The labels of an agent, which is called by its number.
pub fn of(agent: &AgentId) -> BTreeMap<String, String> {
    let number = agent.as_str().strip_prefix('a');
    let number: Option<u64> = number.and_then(|number| number.parse().ok());
    let labels = number.into_iter().flat_map(|number| {
        let disk = has_fast_disk(number).then_some((DISK, FAST));
        [(ZONE, zone(number))].into_iter().chain(disk)
    });
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    labels.collect()
}

/// What a task requires that takes so long. One of the agents at least is like that, so that it has an end once all is mended.
pub fn required(millis: u64, agents: u64) -> Vec<Expression> {
    if !millis.is_multiple_of(EACH) || agents == 0 {
        return Vec::new();
    }
    let draw = millis / EACH;
    let number = 1 + draw % agents;
    let (own, next) = (zone(number), zone(number + 1));
    let equals = Expression::Equals(ZONE.to_owned(), own.to_owned());
    match draw / agents % 4 {
        0 => vec![equals],
        1 => vec![Expression::In(
            ZONE.to_owned(),
            [own, next].map(str::to_owned).into(),
        )],
        2 => vec![Expression::Differs(ZONE.to_owned(), next.to_owned())],
        _ => vec![
            equals,
            match has_fast_disk(number) {
                true => Expression::Exists(DISK.to_owned()),
                false => Expression::Differs(DISK.to_owned(), FAST.to_owned()),
            },
        ],
    }
}

/// Whether an agent is like that, by its number.
pub fn meets(agent: &AgentId, expression: &Expression) -> bool {
    let labels = of(agent);
    let said = |key: &str| labels.get(key).map(String::as_str);
    match expression {
        Expression::Equals(key, value) => said(key) == Some(value.as_str()),
        Expression::Differs(key, value) => said(key) != Some(value.as_str()),
        Expression::In(key, values) => said(key).is_some_and(|said| values.contains(said)),
        Expression::Exists(key) => said(key).is_some(),
        // No agent has back ends here.
        Expression::Offers(_) => false,
    }
}
