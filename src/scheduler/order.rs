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
    let classes = Class::ALL.into_iter();
    let lines = classes.map(|class| of_class(state, waiting, class, now));
    merged(lines.collect())
}

/// Those of one class, some of which may have risen. The older a task is, the longer it has waited, so that they stay in
/// order, and none behind one that has not risen need be looked at.
fn of_class<'a>(state: &'a State, waiting: &'a Waiting, class: Class, now: Timestamp) -> Line<'a> {
    let tasks = waiting
        .ready
        .range((class, TaskId(0))..=(class, TaskId(u64::MAX)));
    let mut rises = class.max_wait().is_some();
    Box::new(tasks.map(move |(_, id)| {
        let task = state.task(*id).filter(|_| rises);
        let standing = task.map_or(class, |task| task.standing(now));
        rises = standing != class;
        (standing, *id)
    }))
}

/// One line of several.
pub fn merged(lines: Vec<Line<'_>>) -> Line<'_> {
    let mut lines: Vec<Peekable<Line<'_>>> = lines.into_iter().map(Iterator::peekable).collect();
    lines.retain_mut(|line| line.peek().is_some());
    match lines.len() {
        0 | 1 => Box::new(lines.into_iter().flatten()),
        _ => Box::new(std::iter::from_fn(move || {
            let heads = lines.iter_mut().enumerate();
            let heads = heads.filter_map(|(at, line)| Some((*line.peek()?, at)));
            let (_, first) = heads.min()?;
            lines[first].next()
        })),
    }
}

/// How many go before this one as things stand.
pub fn ahead_of(state: &State, task: &Task, now: Timestamp) -> usize {
    let place = (task.standing(now), task.id);
    let waiting = state.queues_behind(None);
    let ahead = waiting.flat_map(|(_, waiting)| {
        let classes = Class::ALL.into_iter();
        classes.map(|class| {
            let before = of_class(state, waiting, class, now).take_while(|other| *other < place);
            before.count()
        })
    });
    ahead.sum()
}
