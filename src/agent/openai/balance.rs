//! Which back end answers next: by its share, within its limit, and not while it is left alone. Without IO or clock.
//!
//! Where all that could answer weigh the same, it is the one with the fewest requests under way, by turns where several
//! have as few. Where weights differ the shares hold, by smooth weighted round robin (nginx's): of two with 5 and 1, six
//! requests go aaabaa and not aaaaab.
//!
//! A back end that failed too often within a while is left alone for as long; then one request is let through, and
//! what becomes of that decides. The only one with a model is never left alone: there is nothing better to do than ask.

use std::collections::VecDeque;
use std::time::Duration;

use model::BackendSettings;
use tokio::time::Instant;

/// All back ends of an agent, in the order of its configuration.
#[derive(Debug)]
pub(super) struct Balance(Vec<Standing>);

#[derive(Debug, Default)]
struct Standing {
    settings: BackendSettings,
    /// Requests under way.
    busy: u32,
    /// How much it is its turn.
    current: i64,
    /// Failures within the timeout, the oldest first; fewer than are allowed.
    fails: VecDeque<Instant>,
    left_alone: Option<LeftAlone>,
}

#[derive(Debug)]
struct LeftAlone {
    until: Instant,
    /// The one that was let through is under way.
    tried: bool,
}

/// What a request is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pick {
    Ask {
        at: usize,
        role: Role,
    },
    /// None may be asked now; look again then, and whenever a request ends.
    Wait {
        until: Option<Instant>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Ordinary,
    /// It decides whether the back end is asked again.
    Trial,
}

/// How a request ended, as far as it tells something of its back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Answered,
    Failed,
    /// Nobody waited for its end.
    Nothing,
}

impl Balance {
    pub fn new(count: usize) -> Balance {
        Balance((0..count).map(|_| Standing::default()).collect())
    }

    pub fn set(&mut self, at: usize, settings: BackendSettings, now: Instant) {
        let Some(standing) = self.0.get_mut(at) else {
            return;
        };
        standing.settings = settings;
        if settings.max_fails == 0 {
            standing.fails.clear();
            standing.left_alone = None;
        }
        if let Some(left) = &mut standing.left_alone {
            left.until = left.until.min(now + timeout(settings));
        }
    }

    pub fn is_busy(&self, at: usize) -> bool {
        self.0.get(at).is_some_and(|standing| standing.busy > 0)
    }

    /// One of `fitting`, which then has a request more.
    pub fn pick(&mut self, fitting: &[usize], now: Instant) -> Pick {
        let alone = fitting.len() == 1;
        let free: Vec<usize> = fitting
            .iter()
            .copied()
            .filter(|at| self.0.get(*at).is_some_and(|it| it.may_answer(alone, now)))
            .collect();
        let Some(at) = self.next(&free) else {
            let known = fitting.iter().filter_map(|at| self.0.get(*at));
            let until = known.filter_map(Standing::returns).min();
            return Pick::Wait { until };
        };
        let standing = &mut self.0[at];
        standing.busy += 1;
        let role = match &mut standing.left_alone {
            Some(left) => {
                left.tried = true;
                Role::Trial
            }
            None => Role::Ordinary,
        };
        Pick::Ask { at, role }
    }

    fn next(&mut self, free: &[usize]) -> Option<usize> {
        let weight = |at: &usize| self.0[*at].settings.weight;
        let equal = free
            .windows(2)
            .all(|two| weight(&two[0]) == weight(&two[1]));
        let fewest = free.iter().map(|at| self.0[*at].busy).min()?;
        let turn: Vec<usize> = free
            .iter()
            .copied()
            .filter(|at| !equal || self.0[*at].busy == fewest)
            .collect();
        let mut total = 0;
        for at in &turn {
            let standing = &mut self.0[*at];
            let weight = i64::from(standing.settings.weight);
            standing.current += weight;
            total += weight;
        }
        // The first of several.
        let next = turn
            .into_iter()
            .rev()
            .max_by_key(|at| self.0[*at].current)?;
        self.0[next].current -= total;
        Some(next)
    }

    /// A request to the back end at `at` has ended.
    pub fn ended(&mut self, at: usize, role: Role, told: Told, now: Instant) {
        let Some(standing) = self.0.get_mut(at) else {
            return;
        };
        standing.busy = standing.busy.saturating_sub(1);
        match (role, told) {
            (Role::Trial, Told::Answered) => standing.left_alone = None,
            (Role::Trial, Told::Failed) => standing.leave_alone(now),
            (Role::Trial, Told::Nothing) => {
                if let Some(left) = &mut standing.left_alone {
                    left.tried = false;
                }
            }
            (Role::Ordinary, Told::Failed) => standing.count_failure(now),
            (Role::Ordinary, Told::Answered | Told::Nothing) => {}
        }
    }
}

impl Standing {
    fn may_answer(&self, alone: bool, now: Instant) -> bool {
        let limit = self.settings.limit;
        let healthy = self
            .left_alone
            .as_ref()
            .is_none_or(|left| alone || (now >= left.until && !left.tried));
        healthy && (limit == 0 || self.busy < limit)
    }

    /// When it may be tried again; nothing where that is decided by a request's end.
    fn returns(&self) -> Option<Instant> {
        let left = self.left_alone.as_ref().filter(|left| !left.tried)?;
        let limit = self.settings.limit;
        (limit == 0 || self.busy < limit).then_some(left.until)
    }

    fn count_failure(&mut self, now: Instant) {
        let BackendSettings { max_fails, .. } = self.settings;
        if max_fails == 0 || self.left_alone.is_some() {
            return;
        }
        let span = timeout(self.settings);
        self.fails.push_back(now);
        while self
            .fails
            .front()
            .is_some_and(|at| now.duration_since(*at) > span)
        {
            self.fails.pop_front();
        }
        if self.fails.len() >= max_fails as usize {
            self.leave_alone(now);
        }
    }

    fn leave_alone(&mut self, now: Instant) {
        self.fails.clear();
        self.left_alone = Some(LeftAlone {
            until: now + timeout(self.settings),
            tried: false,
        });
    }
}

fn timeout(settings: BackendSettings) -> Duration {
    Duration::from_millis(settings.fail_timeout.0)
}

#[cfg(test)]
mod tests {
    use model::Millis;

    use super::*;

    fn settings(weight: u32, limit: u32) -> BackendSettings {
        BackendSettings {
            weight,
            limit,
            ..BackendSettings::default()
        }
    }

    fn balance(all: &[BackendSettings]) -> (Balance, Instant) {
        let (mut balance, now) = (Balance::new(all.len()), Instant::now());
        for (at, one) in all.iter().enumerate() {
            balance.set(at, *one, now);
        }
        (balance, now)
    }

    fn asked(balance: &mut Balance, fitting: &[usize], now: Instant) -> Option<usize> {
        match balance.pick(fitting, now) {
            Pick::Ask { at, .. } => Some(at),
            Pick::Wait { .. } => None,
        }
    }

    #[test]
    fn shares_are_those_of_the_weights_and_spread_evenly() {
        let (mut balance, now) = balance(&[settings(5, 0), settings(1, 0)]);
        let mut order = Vec::new();
        for _ in 0..12 {
            let at = asked(&mut balance, &[0, 1], now).unwrap();
            order.push(at);
            balance.ended(at, Role::Ordinary, Told::Answered, now);
        }
        assert_eq!(order, [0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn with_equal_weights_the_least_busy_answers_and_equally_busy_ones_take_turns() {
        let (mut balance, now) = balance(&[settings(1, 0), settings(1, 0)]);
        let first = [0, 1].map(|_| asked(&mut balance, &[0, 1], now).unwrap());
        assert_eq!(first, [0, 1]);
        balance.ended(1, Role::Ordinary, Told::Answered, now);
        assert_eq!(
            asked(&mut balance, &[0, 1], now),
            Some(1),
            "the other is busy"
        );
    }

    #[test]
    fn nobody_is_asked_beyond_its_limit_and_who_waits_is_not_told_a_time() {
        let (mut balance, now) = balance(&[settings(3, 1), settings(1, 2)]);
        let taken: Vec<_> = (0..3)
            .filter_map(|_| asked(&mut balance, &[0, 1], now))
            .collect();
        assert_eq!(taken.iter().filter(|at| **at == 0).count(), 1);
        assert_eq!(taken.len(), 3);
        assert_eq!(balance.pick(&[0, 1], now), Pick::Wait { until: None });
        balance.ended(0, Role::Ordinary, Told::Nothing, now);
        assert_eq!(asked(&mut balance, &[0, 1], now), Some(0));
    }

    #[test]
    fn one_that_fails_is_left_alone_then_tried_once_and_asked_again_when_that_was_answered() {
        let (mut balance, now) = balance(&[settings(1, 0), settings(1, 1)]);
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(asked(&mut balance, &[0, 1], now), Some(0));
        balance.ended(0, Role::Ordinary, Told::Failed, now);
        assert_eq!(asked(&mut balance, &[0, 1], after(9)), Some(1));
        let until = Some(after(10));
        assert_eq!(balance.pick(&[0, 1], after(9)), Pick::Wait { until });
        let trial = Pick::Ask {
            at: 0,
            role: Role::Trial,
        };
        assert_eq!(balance.pick(&[0, 1], after(10)), trial);
        assert_eq!(
            asked(&mut balance, &[0, 1], after(10)),
            None,
            "one at a time"
        );
        balance.ended(0, Role::Trial, Told::Failed, after(11));
        assert_eq!(asked(&mut balance, &[0, 1], after(20)), None);
        assert_eq!(balance.pick(&[0, 1], after(21)), trial);
        balance.ended(0, Role::Trial, Told::Nothing, after(22));
        assert_eq!(balance.pick(&[0, 1], after(22)), trial, "nobody knows yet");
        balance.ended(0, Role::Trial, Told::Answered, after(23));
        let ordinary = Pick::Ask {
            at: 0,
            role: Role::Ordinary,
        };
        assert_eq!(balance.pick(&[0, 1], after(23)), ordinary);
        assert_eq!(balance.pick(&[0, 1], after(23)), ordinary);
    }

    #[test]
    fn failures_count_within_the_timeout_and_not_at_all_where_that_is_switched_off() {
        let fails = |max_fails| BackendSettings {
            max_fails,
            fail_timeout: Millis(10_000),
            ..BackendSettings::default()
        };
        let (mut balance, now) = balance(&[fails(3), fails(0)]);
        let after = |seconds| now + Duration::from_secs(seconds);
        for second in [0, 9, 11] {
            balance.ended(0, Role::Ordinary, Told::Failed, after(second));
        }
        assert_eq!(
            asked(&mut balance, &[0, 1], after(11)),
            Some(0),
            "too far apart"
        );
        // Three within ten seconds, whenever the first of all was.
        balance.ended(0, Role::Ordinary, Told::Failed, after(12));
        for _ in 0..9 {
            assert_eq!(asked(&mut balance, &[0, 1], after(12)), Some(1));
            balance.ended(1, Role::Ordinary, Told::Failed, after(12));
        }
        balance.set(0, fails(0), after(12));
        let next = [0, 1].map(|_| asked(&mut balance, &[0, 1], after(12)));
        assert!(next.contains(&Some(0)), "{next:?}");
    }

    #[test]
    fn the_only_one_with_a_model_is_asked_however_often_it_failed() {
        let (mut balance, now) = balance(&[settings(1, 0)]);
        for _ in 0..3 {
            assert_eq!(asked(&mut balance, &[0], now), Some(0));
            balance.ended(0, Role::Ordinary, Told::Failed, now);
        }
    }
}
