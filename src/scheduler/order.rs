//! Who is next: by class, then by share, then by age.
//!
//! All of a higher class go first. In a class that namespace goes first which has used least for its weight, in it that
//! user, and of the user's tasks the oldest. What goes is charged at once with what it is expected to cost, so that one
//! round shares as fairly as many do.
//!
//! The first task of a line is starved where neither it nor one of its user's tasks of its class that came before it was
//! begun for too long ([`State::served_until`]): it goes with the next higher class, and before those of that class which
//! are not starved ([`model::Precedence`]). That one alone, for once it is begun those behind it are served. Were it the
//! wait of each task that counted, who has the longest queue would have the most that have risen, and would be served before all others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::iter::Peekable;
use std::sync::Arc;

use model::{
    Class, Namespace, Phase, Precedence, Price, QueueKey, State, StateVersion, Task, TaskId,
    Tenant, Timestamp, Waiting,
};
use mutant::Mutant;

use crate::health;

/// A task's place among those of its tenant.
pub type Place = (Precedence, TaskId);

/// Tasks of one tenant that are free to go, in order.
pub type Line<'a> = Box<dyn Iterator<Item = Place> + 'a>;

/// Tasks whose retry is ripe that a round takes from one queue: as many as it assigns at most, so that those behind come
/// up as these go.
pub const RIPE_MAX: usize = 256;

/// Those of one queue that may go now, those whose retry is ripe among the others, of whom no more than `ripe_max`.
pub fn line<'a>(
    state: &'a State,
    (tenant, waiting): (&'a Tenant, &'a Waiting),
    now: Timestamp,
    ripe_max: usize,
) -> Line<'a> {
    let ripe = ripe(state, waiting, now, ripe_max);
    // Most queues have tasks of one class only, and a round may have thousands of queues.
    let firsts = waiting.ready.get_min().into_iter().chain(ripe.first());
    let lasts = waiting.ready.get_max().into_iter().chain(ripe.last());
    let (Some((highest, _)), Some((lowest, _))) = (firsts.min(), lasts.max()) else {
        return Box::new(std::iter::empty());
    };
    let classes = Class::ALL.into_iter();
    let classes = classes.filter(|class| (highest..=lowest).contains(&class));
    let lines = classes.filter_map(|class| of_class(state, (tenant, waiting), class, &ripe, now));
    merged(lines.collect())
}

/// In the order in which they go.
fn ripe(state: &State, waiting: &Waiting, now: Timestamp, most: usize) -> Vec<(Class, TaskId)> {
    let ripe = waiting.delayed.iter().take_while(|(at, _)| *at <= now);
    let ripe = ripe.take(most).filter_map(|(_, id)| state.task(*id));
    let mut ripe: Vec<_> = ripe.map(|task| (task.class, task.id)).collect();
    ripe.sort_unstable();
    ripe
}

/// Those of one class, of which the first may be starved.
fn of_class<'a>(
    state: &'a State,
    (tenant, waiting): (&Tenant, &'a Waiting),
    class: Class,
    ripe: &[(Class, TaskId)],
    now: Timestamp,
) -> Option<Line<'a>> {
    let ready = waiting
        .ready
        .range((class, TaskId(0))..=(class, TaskId(u64::MAX)));
    let usual = |(class, id): &(Class, TaskId)| (Precedence::usual(*class), *id);
    let ready = ready.map(usual);
    let ripe = ripe.iter().filter(|place| place.0 == class).map(usual);
    let ripe: Vec<Place> = ripe.collect();
    let mut line: Line<'_> = match ripe.is_empty() {
        true => Box::new(ready),
        false => merged(vec![Box::new(ready), Box::new(ripe.into_iter())]),
    };
    let (_, first) = line.next()?;
    let first = (precedence(state, tenant, (class, first), now), first);
    Some(Box::new(std::iter::once(first).chain(line)))
}

/// With which the first task of a line goes.
fn precedence(
    state: &State,
    tenant: &Tenant,
    (class, id): (Class, TaskId),
    now: Timestamp,
) -> Precedence {
    let may_starve = |task: &&Task| now.since(task.waits_since) >= class.patience();
    let task = state.task(id).filter(may_starve);
    task.map_or(Precedence::usual(class), |task| {
        task.precedence(state.served_until(tenant, task), now)
    })
}

/// Whether the first of a queue has waited for so long that it may go to a hot machine.
pub fn is_overdue(state: &State, waiting: &Waiting, now: Timestamp) -> bool {
    let first = waiting.ready.get_min().and_then(|(_, id)| state.task(*id));
    first.is_some_and(|task| health::is_overdue(task, now))
}

/// With which a waiting task goes: starved only where it is the first of its line.
pub fn precedence_of(state: &State, task: &Task, now: Timestamp) -> Precedence {
    let first = state.queue_of(task).and_then(|waiting| {
        let tenant = task.tenant(&*state.spec(task.id)?);
        let ripe = ripe(state, waiting, now, usize::MAX);
        of_class(state, (&tenant, waiting), task.class, &ripe, now)?.next()
    });
    first
        .filter(|(_, id)| *id == task.id)
        .map_or(Precedence::usual(task.class), |(precedence, _)| precedence)
}

/// One line of several.
fn merged(mut lines: Vec<Line<'_>>) -> Line<'_> {
    if lines.len() == 1 {
        return lines.remove(0);
    }
    let mut lines: Vec<Peekable<Line<'_>>> = lines.into_iter().map(Iterator::peekable).collect();
    Box::new(std::iter::from_fn(move || {
        let heads = lines.iter_mut().enumerate();
        let heads = heads.filter_map(|(at, line)| Some((*line.peek()?, at)));
        let (_, first) = heads.min()?;
        lines[first].next()
    }))
}

/// What was used for each unit of weight, in ten-thousandths of a slot-millisecond: the least goes first.
type Share = u128;

fn share(used: u64, weight: u32) -> Share {
    if mutant::is(Mutant::ShareIgnored) {
        return 0;
    }
    u128::from(used) * u128::from(model::SHARE_WEIGHT_MAX) / u128::from(weight.max(1))
}

/// A key of a heap whose first is the least.
type First = Reverse<(Precedence, Share, TaskId, usize)>;

/// Lines of several tenants, and whose turn it is.
pub struct Turns<'a> {
    state: &'a State,
    now: Timestamp,
    lines: Vec<(Price, Line<'a>)>,
    users: Vec<User>,
    namespaces: Vec<Space>,
    known: BTreeMap<&'a Tenant, usize>,
    known_spaces: BTreeMap<&'a Namespace, usize>,
    /// Each namespace that has lines, but the one whose turn it is.
    order: BinaryHeap<First>,
}

/// A namespace.
struct Space {
    used: u64,
    weight: u32,
    /// Each of its users that has lines, but the one whose turn it is.
    order: BinaryHeap<First>,
}

/// A tenant.
struct User {
    space: usize,
    used: u64,
    weight: u32,
    /// For how long its attempts run, in milliseconds.
    typical: u64,
    /// The first task of each of its lines.
    heads: BinaryHeap<Reverse<(Place, usize)>>,
}

/// The task whose turn it is; it is told what becomes of it by [`Turns::go_on`].
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    pub task: TaskId,
    /// With which it goes.
    pub class: Class,
    line: usize,
    user: usize,
}

/// What becomes of a task whose turn it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// It goes, and its tenant is charged.
    Gone,
    /// It is passed over.
    Passed,
    /// Neither it nor those behind it in its line go.
    Stuck,
}

impl<'a> Turns<'a> {
    /// `lines` each with the key of its queue; `begun` are tasks whose assignment is under way, and counts as if it were there.
    pub fn new(
        state: &'a State,
        now: Timestamp,
        lines: Vec<(&'a QueueKey, Line<'a>)>,
        begun: &BTreeSet<TaskId>,
    ) -> Turns<'a> {
        let mut turns = Turns {
            state,
            now,
            lines: Vec::with_capacity(lines.len()),
            users: Vec::new(),
            namespaces: Vec::new(),
            known: BTreeMap::new(),
            known_spaces: BTreeMap::new(),
            order: BinaryHeap::new(),
        };
        for (key, mut line) in lines {
            if let Some(place) = line.next() {
                let user = turns.user(&key.tenant);
                let at = turns.lines.len();
                turns.users[user].heads.push(Reverse((place, at)));
                let price = Price::of(&key.requirement.demand);
                turns.lines.push((price, line));
            }
        }
        // With one tenant there are no shares to be compared.
        if turns.users.len() > 1 {
            turns.count_usage();
            turns.count_begun(begun);
        }
        for user in 0..turns.users.len() {
            let space = turns.users[user].space;
            if let Some(key) = turns.users[user].key(user) {
                turns.namespaces[space].order.push(key);
            }
        }
        for at in 0..turns.namespaces.len() {
            turns.order.extend(turns.namespaces[at].key(at));
        }
        turns
    }

    fn user(&mut self, tenant: &'a Tenant) -> usize {
        if let Some(known) = self.known.get(tenant) {
            return *known;
        }
        let (of_space, weight) = self.state.weights(tenant);
        let spaces = &mut self.namespaces;
        let space = *self
            .known_spaces
            .entry(&tenant.namespace)
            .or_insert_with(|| {
                spaces.push(Space {
                    used: 0,
                    weight: of_space,
                    order: BinaryHeap::new(),
                });
                spaces.len() - 1
            });
        self.users.push(User {
            space,
            used: 0,
            weight,
            typical: 0,
            heads: BinaryHeap::new(),
        });
        let user = self.users.len() - 1;
        self.known.insert(tenant, user);
        user
    }

    /// Of a namespace what all its tenants claim, those too that have nothing here. Before there are accounts age alone
    /// counts.
    fn count_usage(&mut self) {
        let (state, now) = (self.state, self.now);
        if state.state_version() < StateVersion::SHARES {
            return;
        }
        for (namespace, at) in &self.known_spaces {
            self.namespaces[*at].used = state.claimed_by(namespace, now);
        }
        for (tenant, at) in &self.known {
            let usage = state.usage(tenant, now);
            let user = &mut self.users[*at];
            (user.used, user.typical) = (usage.claimed, usage.typical);
        }
    }

    fn count_begun(&mut self, begun: &BTreeSet<TaskId>) {
        for id in begun {
            let (Some(task), Some(spec)) = (self.state.task(*id), self.state.spec(*id)) else {
                continue;
            };
            if let Some(user) = self.known.get(&task.tenant(&spec)) {
                self.charge(*user, spec.price());
            }
        }
    }

    fn charge(&mut self, user: usize, price: Price) {
        let user = &mut self.users[user];
        let space = &mut self.namespaces[user.space];
        let charged = price.times(user.typical);
        user.used = user.used.saturating_add(charged);
        space.used = space.used.saturating_add(charged);
    }

    /// The task whose turn it is. The next one only after [`Turns::go_on`].
    pub fn next(&mut self) -> Option<Turn> {
        let Reverse((.., space)) = self.order.pop()?;
        let Reverse((.., user)) = self.namespaces[space].order.pop()?;
        let Reverse(((precedence, task), line)) = self.users[user].heads.pop()?;
        Some(Turn {
            task,
            class: precedence.class,
            line,
            user,
        })
    }

    pub fn go_on(&mut self, turn: Turn, became: Became) {
        let Turn { line, user, .. } = turn;
        match became {
            Became::Gone => self.charge(user, self.lines[line].0),
            Became::Passed | Became::Stuck => {}
        }
        if became != Became::Stuck
            && let Some(place) = self.lines[line].1.next()
        {
            self.users[user].heads.push(Reverse((place, line)));
        }
        let space = self.users[user].space;
        if let Some(key) = self.users[user].key(user) {
            self.namespaces[space].order.push(key);
        }
        self.order.extend(self.namespaces[space].key(space));
    }
}

/// For those who ask.
impl Turns<'_> {
    /// What each namespace and each user has used.
    fn used(&self) -> (Vec<u64>, Vec<u64>) {
        let spaces = self.namespaces.iter().map(|it| it.used);
        let users = self.users.iter().map(|it| it.used);
        (spaces.collect(), users.collect())
    }

    /// By which numbers a user goes before another; `None` where it had not used less.
    fn rival(&self, other: usize, own: usize, used: &(Vec<u64>, Vec<u64>)) -> Option<Rival> {
        let tenant = self.known.iter().find(|(_, at)| **at == other)?.0;
        let (spaces, users) = used;
        let space = |user: usize| self.users[user].space;
        let is_same_space = space(other) == space(own);
        let stands = |user: usize| match is_same_space {
            true => (users[user], self.users[user].weight),
            false => (spaces[space(user)], self.namespaces[space(user)].weight),
        };
        let (used, own_used) = (stands(other), stands(own));
        let is_less = share(used.0, used.1) < share(own_used.0, own_used.1);
        is_less.then(|| Rival {
            namespace: tenant.namespace.clone(),
            user: is_same_space.then(|| Arc::clone(&tenant.user)),
            used: used.0,
            weight: used.1,
            own_used: own_used.0,
            own_weight: own_used.1,
        })
    }
}

impl User {
    fn key(&self, at: usize) -> Option<First> {
        let Reverse(((precedence, task), _)) = self.heads.peek()?;
        let precedence = match mutant::is(Mutant::ClassIgnored) {
            true => Precedence::usual(Class::Standard),
            false => *precedence,
        };
        Some(Reverse((
            precedence,
            share(self.used, self.weight),
            *task,
            at,
        )))
    }
}

impl Space {
    /// As its first user's.
    fn key(&self, at: usize) -> Option<First> {
        let Reverse((precedence, _, task, _)) = self.order.peek()?;
        Some(Reverse((
            *precedence,
            share(self.used, self.weight),
            *task,
            at,
        )))
    }
}

/// As many as are counted one by one, where several tenants share.
const COUNTED_MAX: usize = 20_000;

/// As many as are named.
const FIRST_TOLD: usize = 3;

/// Who goes before a task for having used less, and by which numbers: slot-milliseconds at their prices, and weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    pub namespace: Namespace,
    /// Of the same namespace; unset: it is the namespace whose turn is before.
    pub user: Option<Arc<str>>,
    pub used: u64,
    pub weight: u32,
    /// Of the task's own namespace, or user.
    pub own_used: u64,
    pub own_weight: u32,
}

/// How many tasks go before one that waits, and why they do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ahead {
    /// They are of a higher class, or have risen to one.
    pub higher: usize,
    /// Of namespaces whose turn is before.
    pub namespaces: usize,
    /// Of users in its namespace whose turn is before.
    pub users: usize,
    /// Its own user's, and older, or starved.
    pub older: usize,
    /// There may be more.
    pub is_least: bool,
    /// Those that go first, as far as [`FIRST_TOLD`].
    pub first: Vec<TaskId>,
    /// The first of other namespaces or users, where it has used less than the task's own as things stand.
    pub rival: Option<Rival>,
}

impl Ahead {
    pub fn total(&self) -> usize {
        self.higher + self.namespaces + self.users + self.older
    }
}

/// What goes before a waiting task as things stand, were there room for all of it; where several tenants share no more
/// than [`COUNTED_MAX`] are counted.
pub fn ahead_of(state: &State, task: &Task, now: Timestamp) -> Ahead {
    let mut sharing = state.queues_behind(None).map(|(key, _)| &key.tenant);
    let first = sharing.next();
    match sharing.all(|tenant| Some(tenant) == first) {
        true => older_ahead(state, task, now),
        false => turns_ahead(state, task, now).unwrap_or_default(),
    }
}

/// By playing it through. Tasks of other namespaces that have used up their quota hold nobody up, and are left out.
fn turns_ahead(state: &State, task: &Task, now: Timestamp) -> Option<Ahead> {
    let spec = state.spec(task.id)?;
    let tenant = task.tenant(&spec);
    let may_go = |namespace: &Namespace| {
        *namespace == tenant.namespace || state.running_left(namespace) != Some(0)
    };
    let queues = state.queues_behind(None);
    let queues = queues.filter(|(key, _)| may_go(&key.tenant.namespace));
    let mut lines: Vec<_> = queues
        .map(|(key, waiting)| {
            let line = line(state, (&key.tenant, waiting), now, usize::MAX);
            (key, line)
        })
        .collect();
    let own = precedence_of(state, task, now);
    if let Phase::Queued {
        not_before: Some(_),
        ..
    } = task.phase
    {
        // As if its time had come, and met for sure.
        let own_queue = QueueKey::of(&spec, tenant.clone());
        let known = lines.iter().find(|(known, _)| **known == own_queue);
        let alone: Line<'_> = Box::new(std::iter::once((own, task.id)));
        lines.push((known?.0, alone));
    }
    let mut turns = Turns::new(state, now, lines, &BTreeSet::new());
    let user = *turns.known.get(&tenant)?;
    let space = turns.users[user].space;
    // As things stand: what goes before it is charged below.
    let used = turns.used();
    let mut ahead = Ahead::default();
    while let Some(turn) = turns.next() {
        if turn.task == task.id {
            break;
        }
        if ahead.total() == COUNTED_MAX {
            ahead.is_least = true;
            break;
        }
        let why = match turn.class < own.class {
            true => &mut ahead.higher,
            false if turns.users[turn.user].space != space => &mut ahead.namespaces,
            false if turn.user != user => &mut ahead.users,
            false => &mut ahead.older,
        };
        *why += 1;
        if ahead.first.len() < FIRST_TOLD {
            ahead.first.push(turn.task);
        }
        if ahead.rival.is_none() && turn.user != user && turn.class >= own.class {
            ahead.rival = turns.rival(turn.user, user, &used);
        }
        turns.go_on(turn, Became::Gone);
    }
    Some(ahead)
}

/// Of one tenant all wait: by class and age alone.
fn older_ahead(state: &State, task: &Task, now: Timestamp) -> Ahead {
    let own = (precedence_of(state, task, now), task.id);
    let mut ahead = Ahead::default();
    let mut first = Vec::new();
    for (key, waiting) in state.queues_behind(None) {
        let line = line(state, (&key.tenant, waiting), now, usize::MAX);
        for (number, place) in line.take_while(|place| *place < own).enumerate() {
            match place.0.class < own.0.class {
                true => ahead.higher += 1,
                false => ahead.older += 1,
            }
            if number < FIRST_TOLD {
                first.push(place);
            }
        }
    }
    first.sort_unstable();
    let first = first.into_iter().map(|(_, task)| task);
    ahead.first = first.take(FIRST_TOLD).collect();
    ahead
}
