//! How full the controllers' disks are, and when no new work is taken for it.
//!
//! A log that finds no room ends its process, so somebody has to stop before. One controller alone need not: should it
//! end, the others go on without it. So nothing is refused as long as a majority of the voters has room; with less than that the
//! next disk that runs full would take the cluster along, and nobody could write down how what runs has ended. Who
//! does not answer has no room to offer.
//!
//! Each judges its own disk ([`raft::Space`]) and tells the others in the answers of the vigil.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use model::ControllerId;
use raft::{MemberRole, Space};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wire::v1;

use crate::controller::Controller;
use crate::dispatcher::Signal;
use crate::limit;

/// A disk as its own controller judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    pub free: u64,
    /// What new work leaves to the ends of what runs.
    pub kept: u64,
    pub room: Room,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Enough,
    NearlyNone,
}

impl Disk {
    /// It gets room again only well above the limit: snapshots and segments come and go.
    fn after(before: Option<Disk>, space: Space) -> Disk {
        let (free, kept) = (space.free, space.kept_from_new_work());
        let enough = match before.map(|disk| disk.room) {
            Some(Room::NearlyNone) => kept.saturating_add(kept / limit::DISK_SLACK_PART),
            Some(Room::Enough) | None => kept,
        };
        let room = match free >= enough {
            true => Room::Enough,
            false => Room::NearlyNone,
        };
        Disk { free, kept, room }
    }

    fn told(message: v1::Disk) -> Disk {
        Disk {
            free: message.free_bytes,
            kept: message.kept_bytes,
            room: match message.nearly_full {
                true => Room::NearlyNone,
                false => Room::Enough,
            },
        }
    }
}

impl From<Disk> for v1::Disk {
    fn from(disk: Disk) -> v1::Disk {
        v1::Disk {
            free_bytes: disk.free,
            kept_bytes: disk.kept,
            nearly_full: disk.room == Room::NearlyNone,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// An older release does not say, and goes on as it always did.
    disk: Option<Disk>,
    at: Instant,
}

/// The disks as last told of.
#[derive(Debug, Default)]
pub struct Disks(Mutex<BTreeMap<ControllerId, Seen>>);

impl Disks {
    /// This controller has looked at its own.
    pub fn looked(&self, me: ControllerId, space: Space, at: Instant) {
        self.change(|seen| {
            let before = seen.get(&me).and_then(|seen| seen.disk);
            let disk = Some(Disk::after(before, space));
            seen.insert(me, Seen { disk, at });
        });
    }

    /// Another one has answered.
    pub fn told(&self, id: ControllerId, disk: Option<v1::Disk>, at: Instant) {
        let disk = disk.map(Disk::told);
        self.change(|seen| {
            seen.insert(id, Seen { disk, at });
        });
    }

    pub fn of(&self, id: ControllerId) -> Option<Disk> {
        self.change(|seen| seen.get(&id).and_then(|seen| seen.disk))
    }

    /// Why no new work is to be taken.
    pub fn shortage(&self, voters: &BTreeSet<ControllerId>, now: Instant) -> Option<String> {
        self.change(|seen| {
            seen.retain(|_, seen| now.duration_since(seen.at) < limit::DISK_FRESH);
            shortage(voters, seen)
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<ControllerId, Seen>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn shortage(
    voters: &BTreeSet<ControllerId>,
    seen: &BTreeMap<ControllerId, Seen>,
) -> Option<String> {
    let (mut with_room, mut some_is_full, mut without) = (0, false, Vec::new());
    for id in voters {
        match seen.get(id).map(|seen| seen.disk) {
            Some(Some(disk)) if disk.room == Room::NearlyNone => {
                some_is_full = true;
                let (free, kept) = (mebibytes(disk.free), mebibytes(disk.kept));
                without.push(format!(
                    "{id} has {free} MiB left and keeps {kept} MiB for what runs"
                ));
            }
            Some(_) => with_room += 1,
            None => without.push(format!("{id} does not answer")),
        }
    }
    // Without an answer of a majority there is another trouble, which has its own words.
    let short = some_is_full && 2 * with_room <= voters.len();
    short.then(|| {
        let without = without.join(", ");
        format!(
            "too many controllers are almost out of disk space, so nothing new is taken: {without}"
        )
    })
}

/// With one digit: small disks have small reserves.
fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Looks at this controller's disk and tells the dispatcher when there is too little room. Until `halt`.
pub async fn keep(controller: Arc<Controller>, halt: CancellationToken) {
    let mut tick = tokio::time::interval(limit::DISK_LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looking = async {
        let mut last = None;
        loop {
            tick.tick().await;
            match controller.cluster.disk_space().await {
                Ok(space) => controller
                    .disks
                    .looked(controller.id, space, Instant::now()),
                // The disk will tell what it has where that matters: at the next write.
                Err(error) => tracing::debug!(%error, "can't see how full the disk is"),
            }
            let now = controller
                .disks
                .shortage(&voters(&controller), Instant::now());
            if now == last {
                continue;
            }
            match (&last, &now) {
                (None, Some(why)) => warn!(%why, "the disks are nearly full"),
                (Some(_), None) => info!("there is room on the disks again"),
                (Some(_), Some(_)) | (None, None) => {}
            }
            last.clone_from(&now);
            let shortage = dispatch::Input::Shortage(now);
            controller.inputs.send(Signal::Input(shortage)).await;
        }
    };
    halt.run_until_cancelled(looking).await;
}

fn voters(controller: &Controller) -> BTreeSet<ControllerId> {
    let members = controller.cluster.members().into_iter();
    let voters = members.filter(|member| member.role != MemberRole::Learner);
    voters.map(|member| member.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = 40 * (1 << 20);
    const KEPT: u64 = 1 << 20;

    fn space(free: u64) -> Space {
        Space { all: ALL, free }
    }

    fn id(n: u64) -> ControllerId {
        ControllerId(n)
    }

    fn voters(count: u64) -> BTreeSet<ControllerId> {
        (1..=count).map(ControllerId).collect()
    }

    /// c1 judges; the others said how much is free.
    fn short(own: u64, others: &[Option<u64>], count: u64) -> Option<String> {
        let (disks, now) = (Disks::default(), Instant::now());
        disks.looked(id(1), space(own), now);
        for (n, free) in (2..).zip(others) {
            let disk = free.map(|free| Disk::after(None, space(free)).into());
            disks.told(id(n), disk, now);
        }
        disks.shortage(&voters(count), now)
    }

    #[test]
    fn one_full_disk_of_three_refuses_nothing_and_two_do() {
        assert_eq!(short(KEPT, &[Some(KEPT), Some(KEPT)], 3), None);
        assert_eq!(short(KEPT, &[Some(KEPT), Some(0)], 3), None);
        assert_eq!(short(0, &[Some(KEPT), Some(KEPT)], 3), None);
        let why = short(KEPT / 2, &[Some(KEPT), Some(0)], 3).unwrap();
        assert!(
            why.contains("c1 has 0.5 MiB left and keeps 1.0 MiB"),
            "{why}"
        );
        assert!(why.contains("c3 has 0.0 MiB left"), "{why}");
        assert!(!why.contains("c2"), "{why}");
    }

    #[test]
    fn who_does_not_answer_has_no_room_to_offer_and_alone_is_no_shortage() {
        assert_eq!(short(KEPT, &[], 3), None);
        let why = short(0, &[Some(KEPT)], 3).unwrap();
        assert!(why.contains("c3 does not answer"), "{why}");
    }

    #[test]
    fn an_older_release_that_does_not_say_counts_as_one_with_room() {
        assert_eq!(short(0, &[None, None], 3), None);
        assert_eq!(short(KEPT, &[None, Some(0)], 3), None);
        assert!(short(0, &[None, Some(0)], 3).is_some());
    }

    #[test]
    fn of_one_and_of_two_voters_each_is_needed() {
        assert!(short(KEPT - 1, &[], 1).is_some());
        assert_eq!(short(KEPT, &[], 1), None);
        assert!(short(KEPT, &[Some(0)], 2).is_some());
        // A learner's disk does not count.
        assert_eq!(short(KEPT, &[Some(0)], 1), None);
    }

    #[test]
    fn room_comes_back_only_well_above_the_limit() {
        let (disks, now) = (Disks::default(), Instant::now());
        let short = |free| {
            disks.looked(id(1), space(free), now);
            disks.shortage(&voters(1), now).is_some()
        };
        assert!(!short(KEPT));
        assert!(short(KEPT - 1));
        assert!(short(KEPT));
        assert!(!short(KEPT + KEPT / limit::DISK_SLACK_PART));
        assert!(!short(KEPT));
    }

    #[test]
    fn what_was_told_long_ago_is_forgotten() {
        let (disks, begun) = (Disks::default(), Instant::now());
        let enough = Some(Disk::after(None, space(KEPT)).into());
        disks.told(id(2), enough, begun);
        disks.told(id(3), enough, begun);
        let late = begun + limit::DISK_FRESH;
        disks.looked(id(1), space(0), late);
        assert_eq!(disks.shortage(&voters(3), begun), None);
        assert!(disks.shortage(&voters(3), late).is_some());
    }

    #[test]
    fn a_disk_is_told_as_it_was_judged() {
        for free in [0, KEPT] {
            let disk = Disk::after(None, space(free));
            assert_eq!(Disk::told(disk.into()), disk);
        }
    }
}
