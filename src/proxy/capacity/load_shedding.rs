//! Load shedding: bounds the commands in flight of one worker, with a fair share per department.
//!
//! Also bounds the read-ahead per response, so that many commands have little memory each.
//!
//! Guarantees:
//! - At most `max` commands are in flight ([`InFlightLimiter::new`]).
//! - A department with nothing in flight is admitted while any capacity is free. Some stays free as long as not all
//!   departments compete at once. The reason: the maximum of a department shrinks with the free capacity (the dynamic
//!   threshold of Choudhury and Hahne, 1998).
//!
//! Leaves to others: the refusal and its count.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// A department may hold at most 16 times the free capacity. Alone it gets 16/17 of a worker, each of two 16/33, each
/// of ten 16/161.
const FAIR_SHARE_FACTOR: usize = 16;
/// The read-ahead of all responses of one worker together, in bytes. Each response gets an equal part, within the two
/// bounds below.
const READ_AHEAD_ALL: usize = 4 * 1024 * 1024;
const READ_AHEAD_MIN: usize = 4 * 1024;
const READ_AHEAD_MAX: usize = 64 * 1024;

/// The commands in flight of one worker.
#[derive(Debug)]
pub(crate) struct InFlightLimiter {
    max: usize,
    total: Cell<usize>,
    /// By department number; only departments with commands in flight.
    by_department: RefCell<HashMap<u32, usize, foldhash::fast::RandomState>>,
}

/// Why a command is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overloaded {
    /// The worker has its maximum number of commands in flight.
    Gateway,
    /// The department holds its fair share.
    FairShare,
}

impl InFlightLimiter {
    /// A limiter of `max` commands.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, total: Cell::new(0), by_department: RefCell::default() }
    }

    /// Whether one more command of the department is admitted.
    pub(crate) fn check_capacity(&self, department: u32) -> Result<(), Overloaded> {
        let free = self.max.saturating_sub(self.total.get());
        if free == 0 {
            return Err(Overloaded::Gateway);
        }
        let share = free.saturating_mul(FAIR_SHARE_FACTOR);
        // The first test mostly decides without the map.
        let is_within = self.total.get() < share || self.in_flight_of(department) < share;
        if is_within { Ok(()) } else { Err(Overloaded::FairShare) }
    }

    /// The read-ahead limit of one response, in bytes: also the bytes that are kept for a caller that does not read. It
    /// shrinks as the commands in flight grow.
    pub(crate) fn read_ahead_limit(&self) -> usize {
        (READ_AHEAD_ALL / self.total.get().max(1)).clamp(READ_AHEAD_MIN, READ_AHEAD_MAX)
    }

    fn in_flight_of(&self, department: u32) -> usize {
        self.by_department.borrow().get(&department).copied().unwrap_or(0)
    }

    /// A command of the department begins.
    pub(crate) fn begin_command(&self, department: u32) {
        self.total.set(self.total.get() + 1);
        *self.by_department.borrow_mut().entry(department).or_default() += 1;
    }

    /// A command of the department has ended.
    pub(crate) fn end_command(&self, department: u32) {
        self.total.set(self.total.get().saturating_sub(1));
        let mut each = self.by_department.borrow_mut();
        match each.get_mut(&department) {
            Some(held) if *held > 1 => *held -= 1,
            _ => drop(each.remove(&department)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds commands of the departments in turn until none is admitted. Returns how many each holds.
    fn fill_limiter(in_flight: &InFlightLimiter, departments: std::ops::Range<u32>) -> Vec<usize> {
        for _ in 0..in_flight.max {
            for department in departments.clone() {
                if in_flight.check_capacity(department).is_ok() {
                    in_flight.begin_command(department);
                }
            }
        }
        departments.map(|department| in_flight.in_flight_of(department)).collect()
    }

    #[test]
    fn busy_departments_share_evenly_and_leave_places_for_others() {
        for (departments, each) in [(1, 847), (2, 436), (3, 293), (10, 89)] {
            let in_flight = InFlightLimiter::new(900);
            let held = fill_limiter(&in_flight, 0..departments);
            assert!(held.iter().all(|held| held.abs_diff(each) <= 1), "{departments} departments hold {held:?}");
            assert_eq!(in_flight.check_capacity(0), Err(Overloaded::FairShare));
            assert_eq!(in_flight.check_capacity(99), Ok(()), "a department without commands in flight");
        }
    }

    #[test]
    fn read_ahead_limit_shrinks_with_commands_in_flight() {
        let in_flight = InFlightLimiter::new(100_000);
        for (commands, ahead) in [(1, READ_AHEAD_MAX), (64, READ_AHEAD_MAX), (128, 32 * 1024), (10_000, READ_AHEAD_MIN)]
        {
            (in_flight.total.get()..commands).for_each(|_| in_flight.begin_command(1));
            assert_eq!(in_flight.read_ahead_limit(), ahead, "{commands} commands");
        }
    }

    #[test]
    fn full_limiter_refuses_and_an_ended_command_frees_a_place() {
        let in_flight = InFlightLimiter::new(3);
        for department in 0..3 {
            assert_eq!(in_flight.check_capacity(department), Ok(()));
            in_flight.begin_command(department);
        }
        assert_eq!(in_flight.check_capacity(9), Err(Overloaded::Gateway));
        in_flight.end_command(1);
        assert_eq!(in_flight.check_capacity(9), Ok(()));
        (0..3).filter(|department| *department != 1).for_each(|department| in_flight.end_command(department));
        assert!(in_flight.by_department.borrow().is_empty(), "departments without commands in flight are removed");
    }
}
