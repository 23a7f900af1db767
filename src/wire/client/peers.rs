//! The controllers that a client knows, a channel to each that was used, and the one to ask first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;
use tonic::transport::Channel;

use super::no_addresses;
use crate::status::{Code, Failure};
use crate::transport::{Timers, channel};

/// Addresses that answers may add to those given. A cluster has up to seven controllers; the rest is for
/// ones that moved. Over it the oldest is forgotten, so that odd answers cannot fill memory.
const LEARNED_LIMIT: usize = 16;

pub(super) struct Peers {
    tls: Arc<ClientConfig>,
    timers: Timers,
    given: Vec<String>,
    learned: Vec<String>,
    preferred: String,
    channels: BTreeMap<String, Channel>,
}

impl Peers {
    pub(super) fn new(
        addresses: &[String],
        tls: Arc<ClientConfig>,
        timers: Timers,
    ) -> Result<Self, Failure> {
        let mut given: Vec<String> = Vec::new();
        for address in addresses {
            if !is_address(address) {
                let message = format!("{address:?} is not the address of a controller");
                return Err(Failure::new(Code::Invalid, message)
                    .with_hint("write it as HOST:PORT, such as 127.0.0.1:7400"));
            }
            if !given.contains(address) {
                given.push(address.clone());
            }
        }
        let preferred = given.first().cloned().ok_or_else(no_addresses)?;
        Ok(Self {
            tls,
            timers,
            given,
            learned: Vec::new(),
            preferred,
            channels: BTreeMap::new(),
        })
    }

    /// Whom to ask first.
    pub(super) fn preferred(&self) -> String {
        self.preferred.clone()
    }

    /// This one leads, or answered.
    pub(super) fn prefer(&mut self, address: &str) {
        if self.preferred != address && self.learn(address) {
            self.preferred = address.to_owned();
        }
    }

    pub(super) fn channel(&mut self, address: &str) -> Channel {
        if let Some(known) = self.channels.get(address) {
            return known.clone();
        }
        let opened = channel(address, Arc::clone(&self.tls), self.timers);
        self.channels.insert(address.to_owned(), opened.clone());
        opened
    }

    /// Whom to ask after `from` could not help: the leader it named, else whoever had no turn yet, else
    /// the next. Where the answer is one of `tried`, the round is over.
    pub(super) fn after(
        &mut self,
        from: &str,
        leader: Option<&str>,
        tried: &BTreeSet<String>,
    ) -> String {
        let leader = leader.filter(|leader| *leader != from && self.learn(leader));
        let next = match leader.filter(|leader| !tried.contains(*leader)) {
            Some(leader) => leader.to_owned(),
            None => {
                let place = self
                    .all()
                    .position(|known| known == from)
                    .map_or(0, |at| at + 1);
                let ring = || self.all().skip(place).chain(self.all().take(place));
                let untried = ring().find(|known| !tried.contains(*known));
                let next = untried.or(leader).or_else(|| ring().next());
                next.unwrap_or(from).to_owned()
            }
        };
        // Others begin where we failed only if nobody has found better meanwhile.
        if self.preferred == from {
            self.preferred.clone_from(&next);
        }
        next
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        self.given.iter().chain(&self.learned).map(String::as_str)
    }

    /// Whether it is an address that can be dialled.
    fn learn(&mut self, address: &str) -> bool {
        if self.all().any(|known| known == address) {
            return true;
        }
        if !is_address(address) {
            return false;
        }
        if self.learned.len() == LEARNED_LIMIT {
            let oldest = self.learned.remove(0);
            self.channels.remove(&oldest);
        }
        self.learned.push(address.to_owned());
        true
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_kit::Pki;

    fn peers(addresses: &[&str]) -> Result<Peers, Failure> {
        let addresses: Vec<String> = addresses.iter().map(|&text| text.to_owned()).collect();
        Peers::new(&addresses, Pki::new().anonymous(), Timers::default())
    }

    fn tried(addresses: &[&str]) -> BTreeSet<String> {
        addresses.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_named_leader_is_next_and_else_one_after_the_other() {
        let mut peers = peers(&["h1:1", "h2:1", "h3:1"]).unwrap();
        assert_eq!(peers.preferred(), "h1:1");
        assert_eq!(peers.after("h1:1", None, &tried(&["h1:1"])), "h2:1");
        assert_eq!(peers.after("h2:1", Some("h1:1"), &tried(&["h2:1"])), "h1:1");
        assert_eq!(
            peers.after("h2:1", Some("h1:1"), &tried(&["h1:1", "h2:1"])),
            "h3:1"
        );
        assert_eq!(peers.after("h1:1", Some("h9:1"), &tried(&["h1:1"])), "h9:1");
        assert_eq!(peers.after("h9:1", None, &tried(&["h1:1", "h9:1"])), "h2:1");
    }

    #[test]
    fn once_all_were_tried_it_begins_again_with_the_leader_if_one_is_named() {
        let mut peers = peers(&["h1:1", "h2:1"]).unwrap();
        let all = tried(&["h1:1", "h2:1"]);
        assert_eq!(peers.after("h2:1", None, &all), "h1:1");
        assert_eq!(peers.after("h1:1", Some("h2:1"), &all), "h2:1");
        assert_eq!(peers.after("h1:1", Some("h1:1"), &all), "h2:1");
    }

    #[test]
    fn a_failure_elsewhere_does_not_change_whom_others_ask_first() {
        let mut peers = peers(&["h1:1", "h2:1", "h3:1"]).unwrap();
        peers.prefer("h3:1");
        peers.after("h1:1", None, &tried(&["h1:1"]));
        assert_eq!(peers.preferred(), "h3:1");
        peers.after("h3:1", None, &tried(&["h3:1"]));
        assert_eq!(peers.preferred(), "h1:1");
    }

    #[test]
    fn odd_addresses_are_refused_when_given_and_ignored_when_told() {
        for odd in ["", "h1", "h1:", ":1", "h1:99999", "h 1:1", "https://h1"] {
            assert!(peers(&[odd]).is_err(), "{odd:?}");
        }
        assert!(peers(&[]).is_err());
        let mut peers = peers(&["[::1]:7400", "h2:1"]).unwrap();
        assert_eq!(
            peers.after("[::1]:7400", Some("nonsense"), &tried(&["[::1]:7400"])),
            "h2:1"
        );
    }

    #[test]
    fn told_addresses_are_kept_up_to_a_limit() {
        let mut peers = peers(&["h1:1"]).unwrap();
        for port in 1..100 {
            peers.prefer(&format!("x:{port}"));
        }
        assert_eq!(peers.all().count(), 1 + LEARNED_LIMIT);
        assert_eq!(peers.preferred(), "x:99");
    }
}
