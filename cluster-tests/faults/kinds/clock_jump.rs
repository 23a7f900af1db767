//! A wall clock that jumps, while the monotonic ones go on.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::StdRng;

use crate::faults::whom::all_but;
use crate::faults::{Fault, Kind, Need, Whom};
use crate::nodes::Nodes;
use crate::{Error, wait};

pub const KINDS: [Kind; 2] = [
    Kind {
        name: "clock-forward",
        about: "a controller's wall clock jumps forward, by ten seconds to an hour",
        needs: &[Need::Clocks, Need::Controllers(2)],
        make: || ClockJump::of(1.0),
    },
    Kind {
        name: "clock-back",
        about: "a controller's wall clock jumps back, by ten seconds to an hour",
        needs: &[Need::Clocks, Need::Controllers(2)],
        make: || ClockJump::of(-1.0),
    },
];

/// The others ask every three seconds, and the library looks at its file every second.
const SEEN: Duration = Duration::from_secs(20);
/// Seconds within which a clock is right, or off as it should be.
const CLOSE: f64 = 1.0;

struct ClockJump {
    sign: f64,
    seconds: f64,
    id: Option<String>,
}

impl ClockJump {
    fn of(sign: f64) -> Box<dyn Fault> {
        Box::new(ClockJump {
            sign,
            seconds: 0.0,
            id: None,
        })
    }
}

#[async_trait]
impl Fault for ClockJump {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let id = Whom::Controller.draw_one(nodes, rng).await?;
        self.seconds = self.sign * f64::from(rng.random_range(10..=3_600));
        self.id = Some(id.clone());
        let by = format!("{:+}s", self.seconds);
        set(nodes, &id, &by)?;
        Ok(format!("{id} by {by}"))
    }

    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let id = self.id.as_deref().unwrap_or_default();
        let around = self.seconds - CLOSE..self.seconds + CLOSE;
        let seen = until_seen(nodes, id, around).await;
        let (watcher, skew) = seen.map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(format!("{watcher} sees it off by {skew:+.1} s"))
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        match self.id.take() {
            Some(id) => set(nodes, &id, "+0s"),
            None => Ok(()),
        }
    }
}

fn set(nodes: &Nodes, id: &str, by: &str) -> Result<(), Error> {
    let missing = || Error::Invalid(format!("{id} has no clock of its own"));
    nodes.node(id)?.clock.as_ref().ok_or_else(missing)?.set(by)
}

/// Waits until another controller measures that `id` is off by so many seconds.
async fn until_seen(nodes: &Nodes, id: &str, wanted: Range<f64>) -> Result<(String, f64), Error> {
    let watcher = all_but(nodes.controllers(), &[id]).remove(0);
    let member = nodes.member_id(id).await?;
    let name = format!("quorate_clock_skew_seconds{{member=\"{member}\"}}");
    let what = format!("{watcher} to see {id} off by {wanted:?} s");
    let skew = wait::until(&what, SEEN, || async {
        let metrics = nodes.metrics(&watcher).await;
        let metrics = metrics.map_err(|error| error.to_string())?;
        match metrics.get(&name) {
            Some(skew) if wanted.contains(&skew) => Ok(skew),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    Ok((watcher, skew))
}
