//! Disks that forget what was not flushed, and disks that fail.

use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::Error;
use crate::faults::{Fault, Kind, Need, Whom, kill_together, process, stop};
use crate::nodes::Nodes;

const DISKS: &[Need] = &[Need::Disks, Need::Controllers(3)];

pub const KINDS: [Kind; 4] = [
    Kind {
        name: "power-cut",
        about: "one controller's machine loses its power: what its disk was not made to keep is gone",
        needs: DISKS,
        make: || PowerCut::of(Outage::One),
    },
    Kind {
        name: "power-cut-minority",
        about: "as many controllers as a quorum can do without lose their power at once",
        needs: DISKS,
        make: || PowerCut::of(Outage::Minority),
    },
    Kind {
        name: "power-cut-all",
        about: "all controllers lose their power at once",
        needs: DISKS,
        make: || PowerCut::of(Outage::All),
    },
    Kind {
        name: "disk-error",
        about: "a controller's disk fails every write, and the process lives on until it notices",
        needs: DISKS,
        make: || PowerCut::of(Outage::Disk),
    },
];

/// For a controller to end that can't write.
const GONE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    One,
    Minority,
    All,
    /// Of the disk alone.
    Disk,
}

struct PowerCut {
    outage: Outage,
    /// Who, and the process that it was.
    victims: Vec<(String, i32)>,
}

impl PowerCut {
    fn of(outage: Outage) -> Box<dyn Fault> {
        Box::new(PowerCut {
            outage,
            victims: Vec::new(),
        })
    }

    async fn draw(&self, nodes: &Nodes, rng: &mut StdRng) -> Result<Vec<String>, Error> {
        match self.outage {
            Outage::One | Outage::Disk => Whom::Controller.draw(nodes, rng).await,
            Outage::All => Whom::AllControllers.draw(nodes, rng).await,
            Outage::Minority => {
                let mut all = nodes.controllers();
                all.shuffle(rng);
                all.truncate((all.len() - 1) / 2);
                Ok(all)
            }
        }
    }
}

#[async_trait]
impl Fault for PowerCut {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let ids = self.draw(nodes, rng).await?;
        // Stopped, so that nobody notices before all of it has happened.
        for id in &ids {
            self.victims.push((id.clone(), stop(nodes, id).await?));
        }
        for (id, pid) in &self.victims {
            let missing = || Error::Invalid(format!("{id} has no disk of its own"));
            let disk = nodes.node(id)?.disk.as_ref().ok_or_else(missing)?;
            disk.cut_power(*pid)?;
        }
        match self.outage {
            Outage::Disk => {
                for (id, pid) in &self.victims {
                    // It may end at once.
                    let gone = |errno| Error::Invalid(format!("SIGCONT to {id}: {errno}"));
                    process::send(*pid, Signal::SIGCONT).map_err(gone)?;
                }
            }
            Outage::One | Outage::Minority | Outage::All => {
                kill_together(nodes, &ids).await?;
            }
        }
        Ok(ids.join(" "))
    }

    fn hold(&self) -> Duration {
        Duration::from_millis(500)
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let mut proofs = Vec::new();
        for (id, _) in &self.victims {
            // One that goes on without a disk breaks a promise.
            let status = nodes.node(id)?.until_fallen(GONE).await?;
            proofs.push(format!("{id} was refused a write, and ended: {status}"));
        }
        match proofs.is_empty() {
            true => Err(Error::Invalid("no power was cut".to_owned())),
            false => Ok(proofs.join("; ")),
        }
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        for (id, _) in std::mem::take(&mut self.victims) {
            nodes.put_down(&id).await?;
            if let Some(disk) = &nodes.node(&id)?.disk {
                disk.until_free().await?;
            }
            nodes.restart(&id).await?;
        }
        Ok(())
    }
}
