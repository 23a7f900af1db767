//! Who has used how much: the ledger that fair shares go by.
//!
//! A **tenant** is a user in a namespace. When one of its tasks is assigned, what its attempts took lately is charged to its
//! account; when the attempt ends, what it took more or less than that is made good. One that runs for long counts for more
//! meanwhile: twice the time for which it has run, which is what may be expected of it once it has outlasted what was
//! charged. The unit is the slot-millisecond: one slot, held for one millisecond of state time. Who asks for more than a slot
//! pays for it: see [`Price`].
//!
//! What was used is forgotten by halves, every 4,096 s, as in the usage decay of batch schedulers. That what an
//! attempt takes is charged at one moment, and not as it goes, makes no difference in the long run: tenants with as many
//! slots have as much on their accounts, whatever the lengths of their tasks. An account is brought up to date when it is
//! charged and where it is read, never by a sweep, and in steps of [`STEP`] that are the same for all accounts: two of
//! them compare alike whenever each was charged last, and however often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::begun::Begun;
use crate::class::Class;
use crate::id::{Namespace, TaskId};
use crate::limit;
use crate::outcome::{End, Outcome};
use crate::resource::Demand;
use crate::state::State;
use crate::task::{Attempt, Task};
use crate::time::{Millis, Timestamp};
use crate::version::StateVersion;

/// In steps of this what was used counts less and less.
const STEP: Millis = Millis(4_000);
/// After how many steps it counts half, as a power of two.
const STEP_BITS: u64 = 10;
/// What is left after 1, 2, 4, … 512 steps, in units of 2^-32.
const LEFT: [u64; 10] = [
    4_292_061_010,
    4_289_156_690,
    4_283_353_945,
    4_271_771_996,
    4_248_701_965,
    4_202_935_003,
    4_112_874_773,
    3_938_502_376,
    3_611_622_603,
    3_037_000_500,
];
/// For how long an attempt is taken to run where none of its tenant's has ended yet, in milliseconds.
const TYPICAL_AT_FIRST: u64 = 1_000;
/// Where a tenant's tasks run for so long that this many times it is more than a class's patience, its lines are starved only
/// after that: else who has tasks of hours would get more by being starved than is his share.
const WINDOW_TYPICAL: u64 = 4;
/// How exactly it is kept when tasks were begun: in such parts of the time after which a line is starved.
const WINDOW_CELLS: u64 = 4;
/// Of a price: one slot.
const ONE: u64 = 1_000;
/// As many slots as one GPU counts for. All members have to reckon alike: to change this or one of the next two needs a state
/// version from which on that holds.
const GPU_SLOTS: u64 = 8;
/// Memory of a GPU that counts for one slot, where a share of one is asked for.
const SLOT_VRAM_MIB: u64 = 3_072;
/// Memory that comes with a slot, as it does with a processor of most machines.
const SLOT_MIB: u64 = 8_192;

/// What a task costs while it runs, in thousandths of a slot.
///
/// That is the slot itself; or as many as it takes processors, or memory of so many processors, where that is more; and
/// 8 for each GPU, which is given to one alone, or what a share of one's memory comes to, up to 8. As batch schedulers have
/// it that bill the largest of what nodes have in fixed proportions, and devices beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(u64);

impl Price {
    pub const ONE: Price = Price(ONE);

    pub fn of(demand: &Demand) -> Price {
        let memory = demand.memory_mib.saturating_mul(ONE) / SLOT_MIB;
        let slots = ONE.max(demand.cpu_milli.into()).max(memory);
        let gpu = GPU_SLOTS * ONE;
        let gpus = match demand.gpus {
            0 => gpu.min(demand.vram_mib.saturating_mul(ONE) / SLOT_VRAM_MIB),
            some => gpu.saturating_mul(some.into()),
        };
        Price(slots.saturating_add(gpus))
    }

    /// What it costs for so many milliseconds, in slot-milliseconds.
    pub fn times(self, millis: u64) -> u64 {
        millis.saturating_mul(self.0) / ONE
    }

    /// In thousandths.
    pub(crate) fn milli(self) -> u64 {
        self.0
    }
}

/// Who shares: a user in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tenant {
    pub namespace: Namespace,
    pub user: Arc<str>,
}

impl Tenant {
    /// Before all others of its namespace.
    fn first_of(namespace: &Namespace) -> Tenant {
        Tenant {
            namespace: namespace.clone(),
            user: "".into(),
        }
    }
}

/// What a tenant has used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Slot-milliseconds, as they counted at `step`.
    used: u64,
    /// State time in steps since the epoch.
    step: u64,
    /// For how long its attempts ran lately, in eighths of a millisecond.
    typical_eighths: u64,
    /// In which steps its tasks of a class were begun lately.
    begun: BTreeMap<Class, Begun>,
}

/// How a tenant stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantUsage {
    /// What its attempts have taken until now, as far as it still counts, in slot-milliseconds.
    pub used: u64,
    /// The same with what those that run are expected to take: by this, tenants take turns.
    pub claimed: u64,
    /// For how long one more is expected to run, in milliseconds; at least 1.
    pub typical: u64,
}

impl Account {
    /// What still counts of what was used.
    fn used_at(&self, now: Timestamp) -> u64 {
        left(self.used, (now.0 / STEP.0).saturating_sub(self.step))
    }

    /// An attempt begins.
    fn reserve(&mut self, reserved: u64, (class, task): (Class, TaskId), now: Timestamp) {
        let step = now.0 / STEP.0;
        self.used = self.used_at(now).saturating_add(reserved);
        self.step = self.step.max(step);
        let cell = self.window(class).0 / WINDOW_CELLS / STEP.0;
        self.begun.entry(class).or_default().note(task, step, cell);
    }

    /// For how long after one of its tasks was begun the next ones of the class are not starved.
    fn window(&self, class: Class) -> Millis {
        let usual = self.typical().saturating_mul(WINDOW_TYPICAL);
        class.patience().max(Millis(usual))
    }

    /// It has ended, and took so long.
    fn settle(&mut self, reserved: u64, took: u64, price: Price, now: Timestamp) {
        let used = self.used_at(now).saturating_add(price.times(took));
        self.used = used.saturating_sub(reserved);
        self.step = self.step.max(now.0 / STEP.0);
        self.typical_eighths = match self.typical_eighths {
            0 => took.saturating_mul(8),
            known => (known - known / 8).saturating_add(took),
        };
    }

    fn typical(&self) -> u64 {
        match self.typical_eighths {
            0 => TYPICAL_AT_FIRST,
            known => (known / 8).max(1),
        }
    }

    /// For how long one more attempt is expected to run, where those that run are so old: they may take longer than any before.
    fn expects(&self, age: u64) -> u64 {
        self.typical().max(age)
    }
}

/// What counts of so much after so many steps.
fn left(used: u64, steps: u64) -> u64 {
    let halves = u32::try_from(steps >> STEP_BITS).unwrap_or(u32::MAX);
    let whole = used.checked_shr(halves).unwrap_or(0);
    let rest = LEFT.iter().enumerate();
    let rest = rest.filter(|(bit, _)| steps >> bit & 1 == 1);
    rest.fold(whole, |used, (_, left)| {
        let left = (u128::from(used) * u128::from(*left)) >> 32;
        u64::try_from(left).unwrap_or(u64::MAX)
    })
}

/// How long an attempt took, now that it has ended, in milliseconds: the time for which it held its slot, but no more than
/// it says that it ran, for it may have waited at its agent for the one before it. `None` for the outcome of one that was
/// lost.
pub(crate) fn ran_for(attempt: &Attempt, outcome: Option<&Outcome>, now: Timestamp) -> u64 {
    let held = now.since(attempt.since).0;
    let Some(outcome) = outcome else {
        return held.max(1);
    };
    let ran = match &outcome.end {
        // Nothing ran.
        End::Declined { .. } => return 0,
        End::NotStarted { .. } => 0,
        End::Exited { .. }
        | End::Signalled { .. }
        | End::TimedOut
        | End::Killed
        | End::Failed { .. }
        | End::Impossible { .. }
        | End::Interrupted { .. } => match (outcome.started_at, outcome.finished_at) {
            // By one clock, but that may have been set while it ran.
            (from, to) if from.0 > 0 && to >= from => to.since(from).0,
            _ => held,
        },
    };
    // Nothing is free, or who asks for nothing but what is over at once would never have used anything.
    ran.min(held).max(1)
}

/// Reading.
impl State {
    /// How a tenant stands, at a state time.
    pub fn usage(&self, tenant: &Tenant, now: Timestamp) -> TenantUsage {
        const NOTHING: &Account = &Account {
            used: 0,
            step: 0,
            typical_eighths: 0,
            begun: BTreeMap::new(),
        };
        let account = self.accounts.get(tenant).unwrap_or(NOTHING);
        let tally = self.index.tenants.get(tenant).copied().unwrap_or_default();
        let charged = account.used_at(now);
        // What was charged for those that run has become less since, as all else has.
        let since = tally.average_age_by_price(now) / STEP.0;
        let ended = charged.saturating_sub(left(tally.reserved(), since));
        TenantUsage {
            used: ended.saturating_add(tally.running(now)),
            claimed: charged.saturating_add(tally.overdue(now)),
            typical: account.expects(tally.average_age(now)),
        }
    }

    /// What all tenants of a namespace claim, together.
    pub fn claimed_by(&self, namespace: &Namespace, now: Timestamp) -> u64 {
        let first = Tenant::first_of(namespace);
        let used = self.accounts.from(first.clone());
        let used = used.take_while(|(tenant, _)| tenant.namespace == *namespace);
        let present = self.index.tenants.range(first..);
        let present = present.take_while(|(tenant, _)| tenant.namespace == *namespace);
        let used = used.map(|(_, account)| account.used_at(now));
        let overdue = present.map(|(_, tally)| tally.overdue(now));
        used.chain(overdue).fold(0, u64::saturating_add)
    }

    /// Until when the line of a task was served: it is starved once its class's patience has passed since. That is when
    /// it, or one of its tenant's tasks of its class that came before it, was begun last, or later where its tenant's tasks
    /// run for long; 0 where none is known to have been.
    pub fn served_until(&self, tenant: &Tenant, task: &Task) -> Timestamp {
        let account = self.accounts.get(tenant);
        let served = account.and_then(|account| {
            let step = account.begun.get(&task.class)?.up_to(task.id)?;
            let longer = account.window(task.class).0 - task.class.patience().0;
            Some(step.saturating_mul(STEP.0).saturating_add(longer))
        });
        Timestamp(served.unwrap_or(0))
    }

    /// Namespaces that were used, are in use, or of which something was set.
    pub fn namespaces_known(&self) -> BTreeSet<&Namespace> {
        let used = self.accounts.iter().map(|(tenant, _)| &tenant.namespace);
        let present = self.index.tenants.keys().map(|tenant| &tenant.namespace);
        let set = self.namespaces.iter().map(|(namespace, _)| namespace);
        used.chain(present).chain(set).collect()
    }

    /// The tenants of a namespace that have used something, or have tasks that wait or run, by user.
    pub fn tenants_of(&self, namespace: &Namespace) -> BTreeSet<&Tenant> {
        let first = Tenant::first_of(namespace);
        let own = |tenant: &&Tenant| tenant.namespace == *namespace;
        let used = self.accounts.from(first.clone()).map(|(tenant, _)| tenant);
        let present = self.index.tenants.range(first..).map(|(tenant, _)| tenant);
        used.take_while(own)
            .chain(present.take_while(own))
            .collect()
    }
}

/// Writing, for `apply/` only.
impl State {
    /// An attempt begins: what is charged for it.
    pub(crate) fn reserve(
        &mut self,
        tenant: Tenant,
        task: (Class, TaskId),
        price: Price,
        now: Timestamp,
    ) -> u64 {
        if self.meta.state_version < StateVersion::SHARES {
            return 0;
        }
        let tally = self.index.tenants.get(&tenant);
        let age = tally.map_or(0, |tally| tally.average_age(now));
        self.change_account(tenant, now, |account| {
            let reserved = price.times(account.expects(age));
            account.reserve(reserved, task, now);
            reserved
        })
    }

    /// An attempt has ended, and took so long.
    pub(crate) fn settle_account(
        &mut self,
        tenant: Tenant,
        attempt: &Attempt,
        (took, price): (u64, Price),
        now: Timestamp,
    ) {
        if attempt.since.0 == 0 {
            return;
        }
        self.change_account(tenant, now, |account| {
            account.settle(attempt.reserved, took, price, now);
        });
    }

    fn change_account<T>(
        &mut self,
        tenant: Tenant,
        now: Timestamp,
        change: impl FnOnce(&mut Account) -> T,
    ) -> T {
        if self.accounts.len() >= limit::ACCOUNTS_MAX && self.accounts.get(&tenant).is_none() {
            self.make_room_for_account(now);
        }
        self.accounts.change_often(tenant, change)
    }

    /// As many as are kept are there. The half that has used least is forgotten: that changes least, and so many new ones
    /// come for free that the search costs nothing.
    fn make_room_for_account(&mut self, now: Timestamp) {
        let accounts = self.accounts.iter();
        let mut least: Vec<(u64, Tenant)> = accounts
            .map(|(tenant, account)| (account.used_at(now), tenant.clone()))
            .collect();
        least.sort_unstable();
        for (_, tenant) in least.into_iter().take(limit::ACCOUNTS_MAX / 2) {
            self.accounts.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_OR_SO: u64 = STEP.0 << STEP_BITS;

    fn used(used: u64, at: u64) -> Account {
        Account {
            used,
            step: at / STEP.0,
            ..Account::default()
        }
    }

    #[test]
    fn what_is_left_after_some_steps_is_the_power_of_two_that_it_stands_for() {
        // Twice as many steps are the square, and twice the last are a half.
        let whole = u128::from(u32::MAX) + 1;
        let twice = LEFT[1..].iter().copied().chain([1 << 31]);
        for (left, twice) in LEFT.iter().zip(twice) {
            let square = u128::from(*left) * u128::from(*left) / whole;
            let off = square.abs_diff(u128::from(twice));
            assert!(off <= 2, "{left} and {twice} are {off} off");
        }
        // Any number of steps, put together of them. A constant is exact to 2^-33: 117 of so many, with each step.
        for steps in (0..4_096).step_by(7) {
            let at_once = left(1_000_000_000_000, steps);
            let one_by_one = (0..steps).fold(1_000_000_000_000, |used, _| left(used, 1));
            let off = at_once.abs_diff(one_by_one);
            assert!(off <= 117 * steps, "{steps}: {at_once} and {one_by_one}");
        }
    }

    #[test]
    fn what_was_used_counts_half_after_a_half_life_and_nothing_in_the_end() {
        let account = used(1_000_000, 5_000);
        let after = |span| account.used_at(Timestamp(5_000 + span));
        assert_eq!(after(0), 1_000_000);
        assert_eq!(after(HOUR_OR_SO), 500_000);
        assert_eq!(after(10 * HOUR_OR_SO), 976);
        assert_eq!(after(64 * HOUR_OR_SO), 0);
        assert_eq!(after(u64::MAX - 5_000), 0);
        // Time does not go back; if it did, nothing would be gained by it.
        assert_eq!(account.used_at(Timestamp(0)), 1_000_000);
        assert_eq!(left(u64::MAX, 0), u64::MAX);
    }

    #[test]
    fn how_often_an_account_is_charged_changes_nothing_but_roundings() {
        let (mut often, mut once) = (Account::default(), Account::default());
        for millis in 0..400_000 {
            often.reserve(1, (Class::Batch, TaskId(millis)), Timestamp(millis));
            if millis % STEP.0 == 0 {
                once.reserve(STEP.0, (Class::Batch, TaskId(millis)), Timestamp(millis));
            }
        }
        let now = Timestamp(400_000);
        let (often, once) = (often.used_at(now), once.used_at(now));
        assert!(often.abs_diff(once) <= 100, "{often} and {once}");
    }

    #[test]
    fn what_was_charged_too_much_or_too_little_is_made_good() {
        let mut account = used(10_000, 0);
        account.reserve(1_000, (Class::Batch, TaskId(1)), Timestamp(1));
        account.settle(1_000, 80, Price::ONE, Timestamp(2));
        assert_eq!((account.used, account.typical()), (10_080, 80));
        account.settle(50_000, 0, Price::ONE, Timestamp(3));
        assert_eq!(account.used, 0, "no less than nothing");
        // What is charged for the next follows the latest.
        for _ in 0..50 {
            account.settle(0, 8_000, Price::ONE, Timestamp(3));
        }
        assert!((7_000..=8_000).contains(&account.typical()), "{account:?}");
    }

    #[test]
    fn what_is_asked_for_beyond_a_slot_has_its_price() {
        let demand = |cpu_milli, memory_mib, gpus, vram_mib| Demand {
            cpu_milli,
            memory_mib,
            gpus,
            vram_mib,
        };
        let with_vram = |gpus, vram_mib| Price::of(&demand(0, 0, gpus, vram_mib)).times(1_000);
        let price = |cpu_milli, memory_mib, gpus| {
            Price::of(&demand(cpu_milli, memory_mib, gpus, 0)).times(1_000)
        };
        assert_eq!(price(0, 0, 0), 1_000);
        assert_eq!(price(250, 4_096, 0), 1_000, "no less than a slot");
        assert_eq!(price(4_000, 8_192, 0), 4_000);
        assert_eq!(price(4_000, 65_536, 0), 8_000, "what is the most of both");
        assert_eq!(price(0, 0, 2), 17_000);
        assert_eq!(price(16_000, 0, 2), 32_000);
        // Of one GPU a share, and then all of it; each of two has so much.
        assert_eq!(with_vram(0, 6_144), 3_000);
        assert_eq!(with_vram(0, 81_920), 9_000);
        assert_eq!(with_vram(2, 81_920), 17_000);
        let most = demand(u32::MAX, u64::MAX, u32::MAX, u64::MAX);
        assert_eq!(Price::of(&most).times(u64::MAX), u64::MAX / ONE);
    }

    #[test]
    fn an_attempt_costs_the_time_that_it_ran_and_no_more_than_it_held_its_slot() {
        let attempt = |since| Attempt {
            agent: crate::AgentId::new("a1").unwrap(),
            incarnation: crate::Incarnation([1; 16]),
            epoch: crate::Epoch(7),
            since: Timestamp(since),
            reserved: 0,
            gpus: crate::Gpus::new(),
            estimate: None,
            preempted_by: None,
        };
        let ran = |from, to| Outcome {
            started_at: Timestamp(from),
            finished_at: Timestamp(to),
            ..Outcome::bare(End::Exited { code: 0 })
        };
        let costs = |outcome: &Outcome| ran_for(&attempt(1_000), Some(outcome), Timestamp(5_000));
        assert_eq!(costs(&ran(90_000, 93_000)), 3_000, "by a clock of its own");
        assert_eq!(
            costs(&ran(90_000, 99_000)),
            4_000,
            "it was not there for longer"
        );
        assert_eq!(costs(&ran(90_000, 90_000)), 1, "nothing is free");
        assert_eq!(costs(&ran(90_000, 80_000)), 4_000, "its clock was set back");
        assert_eq!(costs(&ran(0, 0)), 4_000, "it does not say");
        let reason = String::new;
        let declined = Outcome::bare(End::Declined { reason: reason() });
        let missing = Outcome::bare(End::NotStarted { reason: reason() });
        assert_eq!((costs(&declined), costs(&missing)), (0, 1));
        assert_eq!(ran_for(&attempt(1_000), None, Timestamp(5_000)), 4_000);
    }
}
