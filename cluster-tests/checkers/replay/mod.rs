//! The log, applied from its beginning, beside all that clients were answered.
//!
//! ```text
//!  a dumped log ──► model::Entry::decode ──► model::State::apply ──┬──► ledger: who holds what, by events and replies
//!                                                                  └──► answers: each reply and read at its index
//! ```
//!
//! Replies carry the index of their entry and reads that of the state that they looked at, so nothing is searched: it is
//! linear in the log and the history, whatever the number of clients. The state is the product's own, run here and
//! not there; so besides the ledger keeps books of its own, which know nothing of how the state does it.
//!
//! A log whose beginning is purged can't be replayed: then nothing is said, and nothing is green. Runs that
//! are to be replayed set the controllers' `keep_behind_snapshot` to more entries than they write.

mod answers;
mod book;
mod ledger;
mod lines;
mod machine;
mod orders;
mod quotas;
mod shown;

use std::collections::{BTreeMap, BTreeSet};

use model::{AgentId, Applied, Op, Stamped, State, Timestamp};
use scheduler::{Remade, Remaking};

use self::answers::Answers;
use self::book::Book;
use self::ledger::Ledger;
use super::evidence::Evidence;
use super::violation::{Invariant, Kind, Violation};
use crate::history::SeenEvent;
use crate::log::{Content, Log, LogEntry, agreed_upto};

/// What the replay found.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    book: Book,
    /// Why it says less than it could.
    pub gaps: Vec<String>,
    /// The last entry that was applied.
    pub through: u64,
    /// Every (task, epoch) that was assigned, and to whom.
    pub assigned: BTreeMap<(u64, u64), AgentId>,
    /// Tasks that must not be begun twice.
    pub at_most_once: BTreeSet<u64>,
    /// The events of each entry that had some, if anybody listened.
    pub events: BTreeMap<u64, Vec<SeenEvent>>,
}

/// One entry of operations, after it was applied.
struct Step<'a> {
    index: u64,
    term: u64,
    /// State time.
    now: Timestamp,
    ops: &'a [Op],
    applied: &'a Applied,
}

impl Replay {
    pub fn of(evidence: &Evidence) -> Replay {
        let mut replay = Replay::default();
        match replayable(evidence) {
            Ok((log, upto)) => Player::new(evidence, &mut replay).play(log, upto),
            Err(gap) => replay.gaps.push(gap),
        }
        replay
    }

    pub fn violations_of(&self, invariant: Invariant) -> impl Iterator<Item = &Violation> {
        self.book.violations_of(invariant)
    }

    pub fn looked_at(&self, invariant: Invariant) -> u64 {
        self.book.looked_at(invariant)
    }

    /// Puts what concerns one promise into its finding.
    pub fn report_to(&self, finding: &mut super::Finding) {
        let invariant = finding.invariant;
        finding.looked_at += self.looked_at(invariant);
        let found = self.violations_of(invariant).cloned();
        finding.violations.extend(found);
        finding.left_out += self.book.left_out(invariant);
        finding.gaps.extend(self.gaps.iter().cloned());
    }
}

/// The log to go by, and how far it is surely committed.
fn replayable(evidence: &Evidence) -> Result<(&Log, u64), String> {
    let logs = &evidence.logs;
    if let Some(why) = &evidence.unlogged {
        return Err(why.clone());
    }
    if logs.is_empty() {
        return Err("no log was dumped".to_owned());
    }
    let voters = evidence.voters.max(1);
    let upto = agreed_upto(logs, voters).ok_or_else(|| {
        let (have, quorum) = (logs.len(), voters / 2 + 1);
        format!("no entry is in the logs of {quorum} of {voters} controllers; {have} were dumped")
    })?;
    let term = |log: &Log| log.get(upto).map(|entry| entry.term);
    let mut terms: BTreeMap<u64, usize> = BTreeMap::new();
    for term in logs.values().filter_map(term) {
        *terms.entry(term).or_default() += 1;
    }
    let agreed = terms.into_iter().max_by_key(|(_, count)| *count);
    let agreed = agreed.map(|(term, _)| term);
    let good = logs.iter().filter(|(_, log)| term(log) == agreed);
    let (whose, log) = good
        .min_by_key(|(_, log)| log.first())
        .ok_or("no log reaches that far")?;
    match log.first() {
        Some(0) => Ok((log, upto)),
        first => Err(format!(
            "the log of {whose} begins at entry {}: what was before is purged, so it can't be replayed; \
             run with a `keep_behind_snapshot` above the entries of a run",
            first.unwrap_or_default()
        )),
    }
}

struct Player<'e> {
    evidence: &'e Evidence,
    replay: &'e mut Replay,
    /// The state, and what was decided on it.
    remaking: Remaking,
    membership: u64,
    ledger: Ledger,
    answers: Answers<'e>,
    /// Index → who showed which hash there.
    hashes: BTreeMap<u64, Vec<(&'e str, &'e str)>>,
}

impl<'e> Player<'e> {
    fn new(evidence: &'e Evidence, replay: &'e mut Replay) -> Player<'e> {
        Player {
            evidence,
            replay,
            remaking: Remaking::from(State::default()),
            membership: 0,
            ledger: Ledger::new(&evidence.history),
            answers: Answers::new(&evidence.history),
            hashes: hashes_shown(evidence),
        }
    }

    fn play(mut self, log: &Log, upto: u64) {
        for entry in log.entries.iter().take_while(|it| it.index <= upto) {
            if let Err(gap) = self.apply(entry) {
                self.replay.gaps.push(gap);
                break;
            }
            self.replay.through = entry.index;
            self.compare_hash(entry.index);
        }
        let through = self.replay.through;
        let book = &mut self.replay.book;
        self.answers.end(through, book);
        book.saw(Invariant::I6, 1);
        for unsound in model::invariant::check(self.remaking.state()) {
            book.note(Violation::new(Kind::Unsound, unsound).entry(through));
        }
        (self.replay.assigned, self.replay.at_most_once) = self.ledger.into_assigned();
    }

    fn apply(&mut self, entry: &LogEntry) -> Result<(), String> {
        let LogEntry { index, term, .. } = *entry;
        let bytes = match &entry.content {
            Content::Blank => {
                self.remaking.note_index(index, term);
                self.answers
                    .at(index, self.remaking.state(), &mut self.replay.book);
                return Ok(());
            }
            Content::Membership => {
                self.remaking.note_index(index, term);
                self.membership = index;
                self.answers
                    .at(index, self.remaking.state(), &mut self.replay.book);
                return Ok(());
            }
            Content::Operations(bytes) => bytes,
        };
        let decoded = model::Entry::decode(bytes)
            .map_err(|error| format!("entry {index} can't be decoded by this harness: {error}"))?;
        let ops = decoded.ops.clone();
        let wall = decoded.wall;
        let (remade, applied) = self.remaking.apply(Stamped {
            index,
            term,
            membership: self.membership,
            entry: decoded,
        });
        self.decided(index, remade);
        if !self.evidence.history.heard.is_empty() && !applied.events.is_empty() {
            let shown = (0..).zip(&applied.events);
            let shown = shown.map(|(n, event)| wire::convert::event(event, (index, n), wall));
            let seen = shown.map(|event| SeenEvent::of(&event)).collect();
            self.replay.events.insert(index, seen);
        }
        let step = Step {
            index,
            term,
            now: self.remaking.state().time(),
            ops: &ops,
            applied: &applied,
        };
        self.ledger.take(&step, &mut self.replay.book);
        let state = self.remaking.state();
        self.answers.take(&step, state, &mut self.replay.book);
        Ok(())
    }

    /// Whether the decisions of an entry are those that its leader had to come to.
    fn decided(&mut self, index: u64, remade: Remade) {
        match remade {
            Remade::Nothing | Remade::Unknown(_) => {}
            Remade::Same(decisions) => {
                self.replay.book.saw(Invariant::I12, decisions as u64);
            }
            Remade::Different(what) => {
                self.replay.book.saw(Invariant::I12, 1);
                let violation = Violation::new(Kind::DecidedOtherwise, what).entry(index);
                self.replay.book.note(violation);
            }
        }
    }

    fn compare_hash(&mut self, index: u64) {
        let Some(shown) = self.hashes.remove(&index) else {
            return;
        };
        let hash = hex::encode(self.remaking.state().hash());
        for (member, told) in shown {
            self.replay.book.saw(Invariant::I6, 1);
            if told != hash {
                let seen = format!(
                    "at index {index} {member} showed the state hash {told}, and the log makes {hash} of it"
                );
                let violation = Violation::new(Kind::HashOfNoLog, seen).entry(index);
                self.replay.book.note(violation);
            }
        }
    }
}

/// The books alone, for entries that were applied elsewhere: what they did is taken from there, whatever it is.
#[derive(Debug)]
pub struct Books {
    ledger: Ledger,
    book: Book,
}

impl Books {
    pub fn new(history: &crate::history::History) -> Books {
        Books {
            ledger: Ledger::new(history),
            book: Book::default(),
        }
    }

    pub fn take(&mut self, index: u64, ops: &[Op], applied: &Applied) {
        let step = Step {
            index,
            term: 0,
            now: Timestamp::default(),
            ops,
            applied,
        };
        self.ledger.take(&step, &mut self.book);
    }

    pub fn violations(&self) -> &[Violation] {
        self.book.violations()
    }
}

fn hashes_shown(evidence: &Evidence) -> BTreeMap<u64, Vec<(&str, &str)>> {
    let mut shown: BTreeMap<u64, Vec<(&str, &str)>> = BTreeMap::new();
    for member in evidence.statuses.iter().flat_map(|it| &it.members) {
        for (index, hash) in super::convergence::hashes_of(member) {
            let of_index = shown.entry(index).or_default();
            if !of_index.contains(&(&member.id, hash)) {
                of_index.push((&member.id, hash));
            }
        }
    }
    shown
}
