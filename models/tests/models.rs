//! Runs every model twice: with the memory orderings of the code, and with one required ordering weakened.

use ::models::ledger::{Forgotten, holds, holds_without, models};

macro_rules! model {
    ($name:ident needs $($forgotten:ident),+) => {
        mod $name {
            use super::*;

            #[test]
            fn in_every_order() {
                holds(models::$name);
            }

            #[test]
            fn and_needs_its_orderings() {
                $(assert!(!holds_without(Forgotten::$forgotten, models::$name), "without {:?}", Forgotten::$forgotten);)+
            }
        }
    };
}

model!(no_slot_is_read_half_owned needs Releases, Acquires, Fences);
model!(no_count_is_missed_by_a_glance needs Releases, Acquires);
model!(no_copy_shows_more_ends_than_beginnings needs Releases, Acquires);
model!(no_command_in_hand_is_an_imbalance needs Releases, Acquires);
model!(no_slot_is_used_again_before_a_fold_has_seen_it needs Fences);
model!(no_answer_is_released_before_it_is_durable needs Fences);
model!(no_answer_waits_for_ever needs Releases);
model!(nothing_is_counted_into_an_hour_that_is_being_sealed needs Releases, Acquires);
model!(nothing_is_counted_into_a_sealed_hour_by_a_worker_that_has_just_come needs Fences);
