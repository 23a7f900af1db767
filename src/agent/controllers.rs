//! Which controllers there are, and by which address each is dialled.
//!
//! An agent is given some addresses and learns the rest from the first controller that takes its
//! session. The same controller may be known by two addresses (a name and a number); then only the
//! first session counts, for the controller would close one for the other for ever.

use std::collections::BTreeMap;

use crate::config::with_port;

/// The address book.
#[derive(Debug, Default)]
pub(crate) struct Controllers {
    /// How to dial instead: by id or by advertised address.
    overrides: BTreeMap<String, String>,
    /// Dialled address → the controller that answered there, once one did.
    dialled: BTreeMap<String, Option<String>>,
}

impl Controllers {
    /// The book, and the addresses to begin with.
    pub fn new(
        given: &[String],
        overrides: BTreeMap<String, String>,
    ) -> (Controllers, Vec<String>) {
        let mut book = Controllers {
            overrides,
            dialled: BTreeMap::new(),
        };
        let first = given
            .iter()
            .filter_map(|address| book.add(None, address))
            .collect();
        (book, first)
    }

    /// The address to dial for a controller, if it is not dialled yet.
    pub fn add(&mut self, id: Option<&str>, advertised: &str) -> Option<String> {
        if id.is_some_and(|id| self.dialled.values().flatten().any(|known| known == id)) {
            return None;
        }
        let chosen = id.and_then(|id| self.overrides.get(id));
        let chosen = chosen.or_else(|| self.overrides.get(advertised));
        let address = with_port(chosen.map_or(advertised, String::as_str));
        if self.dialled.contains_key(&address) {
            return None;
        }
        self.dialled.insert(address.clone(), None);
        Some(address)
    }

    /// The session at this address ended: who answers there next, and where the controller is now, is
    /// open again.
    pub fn closed(&mut self, address: &str) {
        if let Some(known) = self.dialled.get_mut(address) {
            *known = None;
        }
    }

    /// A controller answered. Whether this is the address by which it stays dialled; any other is
    /// forgotten, until it is learnt again.
    pub fn answered(&mut self, address: &str, id: &str) -> bool {
        let elsewhere =
            |(at, known): (&String, &Option<String>)| at != address && known.as_deref() == Some(id);
        if self.dialled.iter().any(elsewhere) {
            self.dialled.remove(address);
            return false;
        }
        self.dialled.insert(address.to_owned(), Some(id.to_owned()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(addresses: &[&str]) -> Vec<String> {
        addresses
            .iter()
            .map(|address| (*address).to_owned())
            .collect()
    }

    #[test]
    fn controllers_that_are_learnt_are_dialled_once() {
        let (mut book, first) = Controllers::new(&given(&["c1", "c1:7400"]), BTreeMap::new());
        assert_eq!(first, ["c1:7400"]);
        assert!(book.answered("c1:7400", "c1"));
        assert_eq!(
            book.add(Some("c1"), "10.0.0.1:7400"),
            None,
            "it is known by another address"
        );
        assert_eq!(
            book.add(Some("c2"), "10.0.0.2:7400"),
            Some("10.0.0.2:7400".into())
        );
        assert_eq!(book.add(Some("c2"), "10.0.0.2:7400"), None);
    }

    #[test]
    fn the_second_address_of_a_controller_is_given_up() {
        let (mut book, _) = Controllers::new(&given(&["localhost", "127.0.0.1"]), BTreeMap::new());
        assert!(book.answered("localhost:7400", "c1"));
        assert!(!book.answered("127.0.0.1:7400", "c1"));
        assert!(book.answered("localhost:7400", "c1"), "it may come back");
    }

    #[test]
    fn a_controller_that_moved_is_dialled_at_its_new_address() {
        let (mut book, _) = Controllers::new(&given(&["10.0.0.1", "10.0.0.2"]), BTreeMap::new());
        assert!(book.answered("10.0.0.1:7400", "c1"));
        assert_eq!(book.add(Some("c1"), "10.0.0.9:7400"), None, "it is there");
        book.closed("10.0.0.1:7400");
        let moved = book.add(Some("c1"), "10.0.0.9:7400");
        assert_eq!(moved, Some("10.0.0.9:7400".into()));
        assert!(book.answered("10.0.0.9:7400", "c1"));
        assert!(!book.answered("10.0.0.1:7400", "c1"), "both lead there");
        book.closed("10.0.0.9:7400");
        let back = book.add(Some("c1"), "10.0.0.1:7400");
        assert_eq!(back, Some("10.0.0.1:7400".into()));
    }

    #[test]
    fn overrides_win_by_id_or_by_address() {
        let overrides = [("c2", "proxy:1"), ("10.0.0.3:7400", "proxy:2")];
        let overrides = overrides
            .map(|(of, to)| (of.to_owned(), to.to_owned()))
            .into();
        let (mut book, _) = Controllers::new(&given(&["c1"]), overrides);
        assert_eq!(
            book.add(Some("c2"), "10.0.0.2:7400"),
            Some("proxy:1".into())
        );
        assert_eq!(
            book.add(Some("c3"), "10.0.0.3:7400"),
            Some("proxy:2".into())
        );
    }
}
