//! The best few of the agents that could take a task, found in one pass: only they are remembered,
//! and ties are hashed only where they can matter.

use model::{AgentId, Scored};

use crate::filter::Room;
use crate::score;

/// The winner and the runners-up that a trace names; the rest are not told apart.
const PLACES: usize = 3;

/// The best of those offered so far, best first.
#[derive(Debug)]
pub struct Ranking<'a> {
    seed: u64,
    offered: u32,
    best: Vec<Place<'a>>,
}

#[derive(Debug)]
struct Place<'a> {
    /// Score, then the hash that breaks ties.
    rank: (i64, u64),
    agent: &'a AgentId,
    room: Room,
}

impl<'a> Ranking<'a> {
    pub fn new(seed: u64) -> Ranking<'a> {
        Ranking {
            seed,
            offered: 0,
            best: Vec::new(),
        }
    }

    pub fn offer(&mut self, agent: &'a AgentId, room: Room) {
        self.offered = self.offered.saturating_add(1);
        let score = score::weighted(room);
        let full = self.best.len() == PLACES;
        if full && self.best.last().is_some_and(|worst| score > worst.rank.0) {
            return;
        }
        let rank = (score, score::tie(self.seed, agent));
        let at = self.best.partition_point(|place| place.rank <= rank);
        self.best.insert(at, Place { rank, agent, room });
        self.best.truncate(PLACES);
    }

    pub fn is_empty(&self) -> bool {
        self.best.is_empty()
    }

    pub fn offered(&self) -> u32 {
        self.offered
    }

    /// Best first.
    pub fn scored(&self) -> impl Iterator<Item = Scored> {
        let best = self.best.iter();
        best.map(|place| score::score(place.agent, place.room))
    }
}
