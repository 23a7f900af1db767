//! Places for connections whose peer has proved nothing, so that strangers can't keep others out.
//!
//! Whoever comes gets a place. When all are taken, the oldest connection from the address that holds most
//! of them has to go: one machine that opens connections without end makes room for everybody else's by
//! that, and a machine that opens few is never the one that goes.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// So many, and who has them.
#[derive(Debug)]
pub struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    last: u64,
    /// Each address's places, oldest first.
    by_address: HashMap<IpAddr, VecDeque<(u64, CancellationToken)>>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
    number: u64,
    needed: CancellationToken,
}

impl Places {
    /// `most` is at least 1.
    pub fn new(most: usize) -> Arc<Places> {
        Arc::new(Places {
            most: most.max(1),
            taken: Mutex::default(),
        })
    }

    /// A place for a connection from `address`, at the cost of another one if need be.
    pub fn take(self: &Arc<Places>, address: IpAddr) -> Place {
        let mut taken = self.lock();
        // Those that were told to go have not gone yet, so this counts who holds one and was not told.
        if taken.count() >= self.most {
            taken.make_room();
        }
        taken.last += 1;
        let (number, needed) = (taken.last, CancellationToken::new());
        let of_address = taken.by_address.entry(address).or_default();
        of_address.push_back((number, needed.clone()));
        Place {
            places: Arc::clone(self),
            address,
            number,
            needed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn make_room(&mut self) {
        // Where two hold as many, the one whose oldest is older.
        let greediest = self.by_address.iter().max_by_key(|(_, places)| {
            let oldest = places.front().map_or(u64::MAX, |(number, _)| *number);
            (places.len(), std::cmp::Reverse(oldest))
        });
        let oldest = greediest.and_then(|(address, places)| Some((*address, places.front()?.0)));
        if let Some((address, number)) = oldest
            && let Some(needed) = self.leave(address, number)
        {
            needed.cancel();
        }
    }

    /// Takes a place out of the books, if it is still there.
    fn leave(&mut self, address: IpAddr, number: u64) -> Option<CancellationToken> {
        let places = self.by_address.get_mut(&address)?;
        let at = places.iter().position(|(other, _)| *other == number)?;
        let (_, needed) = places.remove(at)?;
        if places.is_empty() {
            self.by_address.remove(&address);
        }
        Some(needed)
    }

    fn count(&self) -> usize {
        self.by_address.values().map(VecDeque::len).sum()
    }
}

impl Place {
    /// Until another connection needs it more.
    pub fn needed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.needed.clone().cancelled_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing where it was told to go before.
        let _told = self.places.lock().leave(self.address, self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const FEW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const MANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn has_to_go(place: &Place) -> bool {
        place.needed().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_of_the_address_that_holds_most_makes_room() {
        let places = Places::new(3);
        let quiet = places.take(FEW);
        let flood: Vec<Place> = (0..50).map(|_| places.take(MANY)).collect();
        assert!(!has_to_go(&quiet), "it holds one place");
        let gone = flood.iter().filter(|place| has_to_go(place)).count();
        assert_eq!(gone, 48);
        assert!(!has_to_go(&flood[48]) && !has_to_go(&flood[49]));
    }

    #[test]
    fn a_place_that_was_left_is_free_again() {
        let places = Places::new(2);
        for _ in 0..10 {
            let held = (places.take(FEW), places.take(MANY));
            assert!(!has_to_go(&held.0) && !has_to_go(&held.1));
        }
        assert_eq!(places.lock().count(), 0);
        assert!(places.lock().by_address.is_empty());
    }

    #[test]
    fn one_that_was_told_to_go_does_not_count_twice() {
        let places = Places::new(1);
        let first = places.take(FEW);
        let second = places.take(FEW);
        assert!(has_to_go(&first) && !has_to_go(&second));
        drop(first);
        let third = places.take(MANY);
        assert!(has_to_go(&second) && !has_to_go(&third));
        assert_eq!(places.lock().count(), 1);
    }
}
