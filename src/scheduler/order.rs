//! Who is next: by class, then age. A task that has waited for too long goes with the next higher class
//! ([`model::Task::standing`]).

use std::iter::Peekable;

use model::{Class, State, Task, TaskId, Timestamp, Waiting};

/// A task's place among those that wait.
pub type Place = (Class, TaskId);

/// Tasks that are free to go, in order.
pub type Line<'a> = Box<dyn Iterator<Item = Place> + 'a>;

/// Those of one requirement.
pub fn ready<'a>(state: &'a State, waiting: &'a Waiting, now: Timestamp) -> Line<'a> {
    // Most requirements have tasks of one class only.
    let has_some = |class: &Class| of(waiting, *class, TaskId(0)).next().is_some();
    let classes = Class::ALL.into_iter().filter(has_some);
    let lines = classes.map(|class| of_class(state, waiting, class, now));
    merged(lines.collect())
}

fn of(waiting: &Waiting, class: Class, from: TaskId) -> impl DoubleEndedIterator<Item = &Place> {
    let ready = &waiting.ready;
    ready.range((class, from)..=(class, TaskId(u64::MAX)))
}

/// Those of one class, some of which may have risen. The older a task is, the longer it has waited, so that they stay in
/// order, and none behind one that has not risen need be looked at. (Those that were submitted before it was written down
/// since when a task waits are the oldest, and hold up the rising of those behind them until they are gone.)
fn of_class<'a>(state: &'a State, waiting: &'a Waiting, class: Class, now: Timestamp) -> Line<'a> {
    let mut rises = class.rise().is_some();
    Box::new(of(waiting, class, TaskId(0)).map(move |(_, id)| {
        let task = state.task(*id).filter(|_| rises);
        let standing = task.map_or(class, |task| task.standing(now));
        rises = standing != class;
        (standing, *id)
    }))
}

/// One line of several.
pub fn merged(mut lines: Vec<Line<'_>>) -> Line<'_> {
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

/// How many go before this one as things stand.
pub fn ahead_of(state: &State, task: &Task, now: Timestamp) -> usize {
    let place = (task.standing(now), task.id);
    let waiting = state.queues_behind(None);
    let ahead = waiting.flat_map(|(_, waiting)| {
        let classes = Class::ALL.into_iter();
        classes.map(|class| before(state, waiting, class, place, now))
    });
    ahead.sum()
}

/// How many of a class go before a place. They stand in order, so the last of them is looked for in halves.
fn before(state: &State, waiting: &Waiting, class: Class, place: Place, now: Timestamp) -> usize {
    let from = |id: u64| of(waiting, class, TaskId(id));
    let Some((_, last)) = from(0).next_back() else {
        return 0;
    };
    let goes_before = |id: TaskId| {
        let standing = state.task(id).map_or(class, |task| task.standing(now));
        (standing, id) < place
    };
    let (mut low, mut high) = (0, last.0 + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match from(middle).next() {
            Some((_, id)) if goes_before(*id) => low = id.0 + 1,
            Some(_) | None => high = middle,
        }
    }
    from(0).take_while(|(_, id)| id.0 < low).count()
}
