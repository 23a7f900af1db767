//! A controller that is taken out of its cluster for good, and whose machine comes back as a new one.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rand::rngs::StdRng;

use crate::faults::whom::all_but;
use crate::faults::{Fault, Kind, Need, Whom};
use crate::nodes::{Nodes, Seat};
use crate::{Error, wait};

pub const KINDS: [Kind; 1] = [Kind {
    name: "remove-and-rejoin",
    about: "a controller is removed, and its machine joins under a new id with an empty disk",
    needs: &[Need::Newcomers, Need::Controllers(3)],
    make: || Box::new(Rejoin::default()),
}];

/// For a removal that is refused as long as too few of the others are in step.
const REMOVED: Duration = Duration::from_secs(60);
/// For a process that was removed to hear of it: others are asked every 3 s.
const HEARD: Duration = Duration::from_secs(30);
/// For a machine to join, to be sent all that the others have, and to be given a vote.
const VOTES: Duration = Duration::from_secs(90);

#[derive(Default)]
struct Rejoin {
    away: Option<Away>,
    ended: Option<ExitStatus>,
}

/// A machine between two ids.
struct Away {
    machine: String,
    former: String,
    step: Step,
}

/// What was done last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Whether it is removed nobody knows yet.
    Asked,
    Removed,
    /// Its directory was emptied, and it has a token: from here on it needs nothing but to run.
    Admitted,
}

impl Away {
    /// Asks until it is done, and another controller shows that it is.
    async fn remove(&self, nodes: &Nodes) -> Result<(), Error> {
        let former = &self.former;
        let (what, witness) = (format!("{former} to be removed"), self.witness(nodes));
        let removal = ["cluster", "remove", former, "--yes"];
        let (begun, seen) = (Instant::now(), |error: Error| error.to_string());
        let done = wait::until(&what, REMOVED, || async {
            nodes.cli().expect(&removal).await.map(drop).map_err(seen)
        });
        done.await.map_err(invalid)?;
        let shown = wait::until(&what, REMOVED.saturating_sub(begun.elapsed()), || async {
            let seats = nodes.seats_seen_by(&witness).await.map_err(seen)?;
            match seats.iter().any(|seat| seat.id == *former) {
                true => Err(format!("{witness} shows {seats:?}")),
                false => Ok(()),
            }
        });
        shown.await.map_err(invalid)
    }

    /// It may have been done although nobody said so. To ask again is safe, and tells.
    async fn was_removed(&self, nodes: &Nodes) -> Result<bool, Error> {
        let removal = ["cluster", "remove", &self.former, "--yes"];
        let what = format!("word whether {} is removed", self.former);
        wait::until(&what, REMOVED, || async {
            let asked = nodes.cli().run(&removal).await;
            let asked = asked.map_err(|error| error.to_string())?;
            match asked.code {
                Some(0) => Ok(true),
                Some(1) => Ok(false),
                _ => Err(asked.stderr),
            }
        })
        .await
    }

    /// From a removed one, whose process has ended, to one that is about to join.
    async fn admit(&mut self, nodes: &Nodes) -> Result<(), Error> {
        let node = nodes.node(&self.machine)?;
        node.ended().await?;
        nodes.empty(&self.machine).await?;
        let create = "join-token create --role controller -o quiet";
        let create: Vec<&str> = create.split(' ').collect();
        let token = nodes.cli().expect(&create).await?.text();
        node.joins_by(token.trim().to_owned());
        self.step = Step::Admitted;
        nodes.restart(&self.machine).await.map(drop)
    }

    /// Waits until another controller shows the machine's vote, under another id. The id.
    async fn until_back(&self, nodes: &Nodes) -> Result<String, Error> {
        let Away {
            machine, former, ..
        } = self;
        let witness = self.witness(nodes);
        let node = nodes.node(machine)?;
        let its = |seat: &&Seat| seat.machine.as_ref() == Some(machine);
        wait::until(&format!("{machine} to vote again"), VOTES, || async {
            if let Some(status) = node.fallen().await {
                let why = format!("{machine} was to join, and ended: {status}");
                return Ok(Err(Error::Broken(why)));
            }
            let seats = nodes.seats_seen_by(&witness).await;
            let seats = seats.map_err(|error| error.to_string())?;
            let voter = seats.iter().filter(its).find(|seat| seat.votes);
            match voter {
                Some(seat) if !seats.iter().any(|seat| seat.id == *former) => {
                    Ok(Ok(seat.id.clone()))
                }
                Some(_) | None => Err(format!("{witness} shows {seats:?}")),
            }
        })
        .await?
    }

    /// The controller whose word counts.
    fn witness(&self, nodes: &Nodes) -> String {
        all_but(nodes.controllers(), &[&self.machine]).remove(0)
    }
}

#[async_trait]
impl Fault for Rejoin {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let machine = Whom::Controller.draw_one(nodes, rng).await?;
        let former = nodes.member_id(&machine).await?;
        let target = match former == machine {
            true => machine.clone(),
            false => format!("{machine}, the member {former}"),
        };
        let away = self.away.insert(Away {
            machine: machine.clone(),
            former,
            step: Step::Asked,
        });
        away.remove(nodes).await?;
        away.step = Step::Removed;
        let ended = nodes.node(&machine)?.until_fallen(HEARD).await?;
        if ended.code() != Some(1) {
            let why = format!("{machine} was removed, and ended with {ended}");
            return Err(Error::Broken(why));
        }
        self.ended = Some(ended);
        away.admit(nodes).await?;
        Ok(target)
    }

    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let (Some(away), Some(ended)) = (&self.away, self.ended) else {
            return Err(Error::Invalid("nobody was removed".to_owned()));
        };
        let id = away.until_back(nodes).await?;
        let (witness, former) = (away.witness(nodes), &away.former);
        let proof = format!("{witness} shows no {former}, which ended: {ended}, and {id} votes");
        self.away = None;
        Ok(proof)
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        let Some(mut away) = self.away.take() else {
            return Ok(());
        };
        let node = nodes.node(&away.machine)?;
        if away.step == Step::Asked {
            match away.was_removed(nodes).await? {
                true => away.step = Step::Removed,
                false if node.fallen().await.is_none() => return Ok(()),
                false => return nodes.restart(&away.machine).await.map(drop),
            }
        }
        let runs = node.fallen().await.is_none();
        match away.step {
            Step::Admitted if runs => {}
            Step::Admitted => drop(nodes.restart(&away.machine).await?),
            Step::Asked | Step::Removed => {
                nodes.put_down(&away.machine).await?;
                away.admit(nodes).await?;
            }
        }
        away.until_back(nodes).await.map(drop)
    }
}

fn invalid(error: Error) -> Error {
    Error::Invalid(error.to_string())
}
