//! How much one worker carries and for whom, so that too much from one department does not shut out the others, and so that much
//! of it has little memory each.
//!
//! Guarantees: never more than [`Load::new`] allows; a department that carries nothing finds room as long as there is any, and
//! as long as fewer than all of them press at once there is: what one may hold shrinks with what is left free (the dynamic
//! threshold of Choudhury and Hahne, 1998). Decides; refusing and counting are for others.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// A department may hold so many times what is free: alone 16/17 of a worker, each of two 16/33, each of ten 16/161.
const SHARE: usize = 16;
/// Bytes that the answers of one worker may have been read ahead, all together; each gets a part of it, within bounds.
const AHEAD_ALL: usize = 4 * 1024 * 1024;
const AHEAD_MIN: usize = 4 * 1024;
const AHEAD_MAX: usize = 64 * 1024;

/// What one worker carries.
#[derive(Debug)]
pub(super) struct Load {
    max: usize,
    all: Cell<usize>,
    /// By department number; only those that have something in flight.
    each: RefCell<HashMap<u32, usize, foldhash::fast::RandomState>>,
}

/// Why there is no room for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The worker carries all it may.
    Gateway,
    /// The department holds its fair share of it.
    Share,
}

impl Load {
    /// So many commands at once.
    pub(super) fn new(max: usize) -> Self {
        Self { max, all: Cell::new(0), each: RefCell::default() }
    }

    /// Whether a department's next command may come in.
    pub(super) fn has_room_for(&self, department: u32) -> Result<(), Full> {
        let free = self.max.saturating_sub(self.all.get());
        if free == 0 {
            return Err(Full::Gateway);
        }
        let share = free.saturating_mul(SHARE);
        let is_within = self.all.get() < share || self.held_by(department) < share; // mostly told without a look at who
        if is_within { Ok(()) } else { Err(Full::Share) }
    }

    /// How many bytes of one answer to read ahead, and to keep for a caller that does not take them: less when there is more to
    /// carry.
    pub(super) fn ahead(&self) -> usize {
        (AHEAD_ALL / self.all.get().max(1)).clamp(AHEAD_MIN, AHEAD_MAX)
    }

    fn held_by(&self, department: u32) -> usize {
        self.each.borrow().get(&department).copied().unwrap_or(0)
    }

    /// A command of the department begins.
    pub(super) fn enter(&self, department: u32) {
        self.all.set(self.all.get() + 1);
        *self.each.borrow_mut().entry(department).or_default() += 1;
    }

    /// A command of the department has ended.
    pub(super) fn leave(&self, department: u32) {
        self.all.set(self.all.get().saturating_sub(1));
        let mut each = self.each.borrow_mut();
        match each.get_mut(&department) {
            Some(held) if *held > 1 => *held -= 1,
            _ => drop(each.remove(&department)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets the departments press in turn until nobody comes in any more; what each holds.
    fn pressed(load: &Load, departments: std::ops::Range<u32>) -> Vec<usize> {
        for _ in 0..load.max {
            for department in departments.clone() {
                if load.has_room_for(department).is_ok() {
                    load.enter(department);
                }
            }
        }
        departments.map(|department| load.held_by(department)).collect()
    }

    #[test]
    fn those_who_press_share_alike_and_leave_room_for_the_next() {
        for (departments, each) in [(1, 847), (2, 436), (3, 293), (10, 89)] {
            let load = Load::new(900);
            let held = pressed(&load, 0..departments);
            assert!(held.iter().all(|held| held.abs_diff(each) <= 1), "{departments} departments hold {held:?}");
            assert_eq!(load.has_room_for(0), Err(Full::Share));
            assert_eq!(load.has_room_for(99), Ok(()), "a department that holds nothing");
        }
    }

    #[test]
    fn many_answers_have_little_memory_each() {
        let load = Load::new(100_000);
        for (commands, ahead) in [(1, AHEAD_MAX), (64, AHEAD_MAX), (128, 32 * 1024), (10_000, AHEAD_MIN)] {
            (load.all.get()..commands).for_each(|_| load.enter(1));
            assert_eq!(load.ahead(), ahead, "{commands} commands");
        }
    }

    #[test]
    fn nobody_comes_into_what_is_full_and_what_leaves_makes_room() {
        let load = Load::new(3);
        for department in 0..3 {
            assert_eq!(load.has_room_for(department), Ok(()));
            load.enter(department);
        }
        assert_eq!(load.has_room_for(9), Err(Full::Gateway));
        load.leave(1);
        assert_eq!(load.has_room_for(9), Ok(()));
        (0..3).filter(|department| *department != 1).for_each(|department| load.leave(department));
        assert!(load.each.borrow().is_empty(), "who has nothing in flight is forgotten");
    }
}
