//! The comparison of a ledger with what subsystems have counted themselves, by department and day.
//!
//! A subsystem sees what was forwarded to it. So it has counted every command that it answered; it may have counted
//! those that ended early; and it never saw refused and unreachable ones. It has counted more where a command was sent
//! twice, or a copy was mirrored.
//!
//! Guarantees: subsystem - ledger = the sum of the causes + the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use jiff::civil::Date;

use crate::model::{CalendarOffset, Finished, Outcome, Window};

use super::subsystem_counts::SubsystemCounts;

/// The offsets of calendars that are tried, in hours.
const OFFSETS: std::ops::RangeInclusive<i8> = -12..=14;

/// The commands of a day, or of an hour, by what a subsystem can have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayOutcomes {
    /// Answered by the subsystem.
    pub answered: u64,
    /// Ended early, after the subsystem may have seen them: `upstream_failed`, `timeout`, `aborted`, `interrupted`.
    pub ended_early: u64,
    /// Refused by the gateway.
    pub refused: u64,
    /// No server of the subsystem was reached.
    pub unreachable: u64,
}

impl DayOutcomes {
    /// Commands that ended in this way.
    pub fn of(outcome: Outcome, commands: u64) -> Self {
        let none = Self::default();
        match outcome {
            Outcome::Refused(_) => Self { refused: commands, ..none },
            Outcome::Finished(finished) => match finished {
                Finished::Ok | Finished::ClientError | Finished::ServerError => Self { answered: commands, ..none },
                Finished::Unreachable => Self { unreachable: commands, ..none },
                Finished::UpstreamFailed | Finished::Timeout | Finished::Aborted | Finished::Interrupted => {
                    Self { ended_early: commands, ..none }
                }
            },
        }
    }

    fn commands(self) -> i128 {
        [self.answered, self.ended_early, self.refused, self.unreachable].map(i128::from).iter().sum()
    }
}

impl AddAssign for DayOutcomes {
    fn add_assign(&mut self, more: Self) {
        self.answered = self.answered.saturating_add(more.answered);
        self.ended_early = self.ended_early.saturating_add(more.ended_early);
        self.refused = self.refused.saturating_add(more.refused);
        self.unreachable = self.unreachable.saturating_add(more.unreachable);
    }
}

/// Why a subsystem has counted more or less than the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubsystemCause {
    /// Refused by the gateway, so the subsystem never saw them.
    Refused,
    /// No server was reached.
    Unreachable,
    /// They ended early, and the subsystem has not counted them.
    EndedEarly,
    /// Retries and mirrored copies, at most as many as the gateway's counters show for the day.
    SentAgain,
    /// The days of the file are those of another calendar.
    OtherCalendar,
}

impl SubsystemCause {
    /// All causes, in their order.
    pub const ALL: [Self; 5] =
        [Self::Refused, Self::Unreachable, Self::EndedEarly, Self::SentAgain, Self::OtherCalendar];

    /// The name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::EndedEarly => "ended_early",
            Self::SentAgain => "sent_again",
            Self::OtherCalendar => "other_calendar",
        }
    }

    /// The name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::EndedEarly => "ended early",
            Self::SentAgain => "sent again",
            Self::OtherCalendar => "other calendar",
        }
    }
}

/// A department's day, as subsystems have counted it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubsystemDay {
    /// The commands that subsystems have counted.
    pub counted: u64,
    /// The commands of the ledger, of the same subsystems.
    pub ledger: i128,
    /// What is explained: subsystem - ledger, by cause.
    pub causes: BTreeMap<SubsystemCause, i128>,
    /// What is not explained.
    pub rest: i128,
}

impl SubsystemDay {
    /// Subsystem - ledger.
    pub fn difference(&self) -> i128 {
        i128::from(self.counted) - self.ledger
    }

    fn new(counted: u64, outcomes: DayOutcomes) -> Self {
        let DayOutcomes { answered, ended_early, refused, unreachable } = outcomes;
        let more = i128::from(counted) - i128::from(answered);
        let seen_early = more.clamp(0, i128::from(ended_early));
        let causes = [
            (SubsystemCause::Refused, -i128::from(refused)),
            (SubsystemCause::Unreachable, -i128::from(unreachable)),
            (SubsystemCause::EndedEarly, seen_early - i128::from(ended_early)),
        ];
        let causes = causes.into_iter().filter(|(_, number)| *number != 0).collect();
        Self { counted, ledger: outcomes.commands(), causes, rest: more - seen_early }
    }

    /// Moves up to `sent_again` commands from the rest to their cause. Returns what is left of them.
    fn explain_sent_again(&mut self, sent_again: u64) -> u64 {
        let explained = self.rest.clamp(0, i128::from(sent_again));
        if explained > 0 {
            self.causes.insert(SubsystemCause::SentAgain, explained);
            self.rest -= explained;
        }
        sent_again - u64::try_from(explained).unwrap_or(sent_again)
    }
}

/// All days of all departments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubsystemComparison {
    /// By department and day.
    pub days: BTreeMap<(String, Date), SubsystemDay>,
    /// The calendar in which the days of the file agree with the ledger, if it is another one.
    pub calendar: Option<CalendarOffset>,
    /// Lines of the file whose day is not in the period; they are not compared.
    pub outside: usize,
}

impl SubsystemComparison {
    /// Compares the days of a period. A day without a line in the file was counted as 0.
    pub fn new(
        counts: &SubsystemCounts,
        ledger: &BTreeMap<(String, Date), DayOutcomes>,
        days: &BTreeSet<Date>,
    ) -> Self {
        let counted = counts.commands.keys().filter(|(_, day)| days.contains(day));
        let outside = counts.commands.len() - counted.clone().count();
        let keys: BTreeSet<_> = counted.chain(ledger.keys()).cloned().collect();
        let day = |key: (String, Date)| {
            let outcomes = ledger.get(&key).copied().unwrap_or_default();
            let counted = counts.commands.get(&key).copied().unwrap_or_default();
            (key, SubsystemDay::new(counted, outcomes))
        };
        Self { days: keys.into_iter().map(day).collect(), calendar: None, outside }
    }

    /// Whether nothing is unexplained.
    pub fn is_explained(&self) -> bool {
        self.days.values().all(|day| day.rest == 0)
    }

    /// The days on which a department's subsystems counted more than the ledger explains.
    pub fn days_with_more(&self) -> BTreeSet<Date> {
        self.days.iter().filter(|(_, day)| day.rest > 0).map(|((_, date), _)| *date).collect()
    }

    /// Explains what was counted too much by retries and mirrored copies of a day, of all departments together.
    pub fn explain_sent_again(&mut self, date: Date, mut sent_again: u64) {
        for (_, day) in self.days.iter_mut().filter(|((_, of), _)| *of == date) {
            sent_again = day.explain_sent_again(sent_again);
        }
    }

    /// Looks for a calendar in which every whole day of the file is explained, and explains the rest with it. `hours`
    /// is the ledger by hour, from a day before the period to a day after it.
    pub fn explain_other_calendar(
        &mut self,
        counts: &SubsystemCounts,
        hours: &BTreeMap<(String, Window), DayOutcomes>,
        own: CalendarOffset,
    ) {
        let days: BTreeSet<_> = self.days.keys().map(|(_, date)| *date).collect();
        let others = OFFSETS.filter_map(|hours| CalendarOffset::parse(&format!("{hours:+03}:00")).ok());
        for calendar in others.filter(|calendar| *calendar != own) {
            let mut moved: BTreeMap<(String, Date), DayOutcomes> = BTreeMap::new();
            for ((department, window), outcomes) in hours {
                let date = calendar.date_of(*window);
                if days.contains(&date) {
                    *moved.entry((department.clone(), date)).or_default() += *outcomes;
                }
            }
            if Self::new(counts, &moved, &days).is_explained() {
                self.calendar = Some(calendar);
                for day in self.days.values_mut().filter(|day| day.rest != 0) {
                    day.causes.insert(SubsystemCause::OtherCalendar, std::mem::take(&mut day.rest));
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Refused;

    fn date(day: i8) -> Date {
        Date::new(2026, 10, day).expect("a date")
    }

    fn parking(day: i8) -> (String, Date) {
        ("parking".to_owned(), date(day))
    }

    fn counts(days: &[(i8, u64)]) -> SubsystemCounts {
        SubsystemCounts {
            commands: days.iter().map(|(day, count)| (parking(*day), *count)).collect(),
            subsystems: None,
        }
    }

    const OUTCOMES: DayOutcomes = DayOutcomes { answered: 100, ended_early: 10, refused: 5, unreachable: 2 };

    fn text(day: &SubsystemDay) -> String {
        let causes = day.causes.iter().map(|(cause, number)| format!("{}={number}", cause.name()));
        format!("{} rest {}", causes.collect::<Vec<_>>().join(" "), day.rest)
    }

    #[test]
    fn difference_is_explained_by_what_a_subsystem_can_have_counted() {
        for (counted, expected) in [
            (100, "refused=-5 unreachable=-2 ended_early=-10 rest 0"),
            (104, "refused=-5 unreachable=-2 ended_early=-6 rest 0"),
            (110, "refused=-5 unreachable=-2 rest 0"),
            (113, "refused=-5 unreachable=-2 rest 3"),
            (98, "refused=-5 unreachable=-2 ended_early=-10 rest -2"),
        ] {
            let day = SubsystemDay::new(counted, OUTCOMES);
            assert_eq!(text(&day), expected, "{counted}");
            assert_eq!(day.causes.values().sum::<i128>() + day.rest, day.difference());
        }
    }

    #[test]
    fn every_outcome_is_one_of_four() {
        let all = Outcome::all().fold(DayOutcomes::default(), |mut sum, outcome| {
            sum += DayOutcomes::of(outcome, 1);
            sum
        });
        let refused = Refused::ALL.len() as u64;
        assert_eq!(all, DayOutcomes { answered: 3, ended_early: 4, refused, unreachable: 1 });
    }

    #[test]
    fn retries_of_a_day_explain_at_most_their_number() {
        let ledger = [(parking(5), OUTCOMES), (("a".to_owned(), date(5)), OUTCOMES), (parking(6), OUTCOMES)].into();
        let mut counted = counts(&[(5, 113), (6, 111)]);
        counted.commands.insert(("a".to_owned(), date(5)), 112);
        let mut both = SubsystemComparison::new(&counted, &ledger, &[date(5), date(6)].into());
        assert_eq!(both.days_with_more(), [date(5), date(6)].into());
        both.explain_sent_again(date(5), 4);
        both.explain_sent_again(date(6), 4);
        let rests: Vec<_> = both.days.values().map(|day| day.rest).collect();
        assert_eq!(rests, [0, 1, 0], "a, parking on both days");
        assert_eq!(both.days[&parking(5)].causes[&SubsystemCause::SentAgain], 2);
        assert!(!both.is_explained());
    }

    #[test]
    fn day_without_a_line_was_counted_as_0_and_days_outside_are_counted() {
        let ledger = [(parking(5), OUTCOMES)].into();
        let both = SubsystemComparison::new(&counts(&[(7, 1)]), &ledger, &[date(5)].into());
        assert_eq!((both.days.len(), both.outside, both.days[&parking(5)].rest), (1, 1, -100));
    }

    #[test]
    fn days_of_another_calendar_are_recognised() {
        // One command more in each hour from 2026-10-03T16:00:00Z on, so that no two days are equal.
        let first = CalendarOffset::default().first_window(date(4)).0;
        let hour = |hour: u32| DayOutcomes { answered: u64::from(hour), ..DayOutcomes::default() };
        let hours: BTreeMap<_, _> = (0..96).map(|at| (("parking".to_owned(), Window(first + at)), hour(at))).collect();
        let by_day = |calendar: CalendarOffset| {
            let mut days: BTreeMap<(String, Date), DayOutcomes> = BTreeMap::new();
            for ((department, window), outcomes) in &hours {
                *days.entry((department.clone(), calendar.date_of(*window))).or_default() += *outcomes;
            }
            days.retain(|(_, day), _| [date(5), date(6)].contains(day));
            days
        };
        let own = CalendarOffset::default();
        for (offset, found) in [("+00:00", Some("+00:00")), ("+09:00", Some("+09:00")), ("+08:00", None)] {
            let of_file = by_day(CalendarOffset::parse(offset).expect("an offset"));
            let commands = of_file.into_iter().map(|(key, outcomes)| (key, outcomes.answered)).collect();
            let counted = SubsystemCounts { commands, subsystems: None };
            let mut both = SubsystemComparison::new(&counted, &by_day(own), &[date(5), date(6)].into());
            assert_eq!(both.is_explained(), found.is_none());
            if !both.is_explained() {
                both.explain_other_calendar(&counted, &hours, own);
            }
            assert_eq!(both.calendar.map(|calendar| calendar.to_string()).as_deref(), found);
            assert!(both.is_explained());
        }
        let mut wrong = SubsystemComparison::new(&counts(&[(5, 1)]), &by_day(own), &[date(5), date(6)].into());
        wrong.explain_other_calendar(&counts(&[(5, 1)]), &hours, own);
        assert!(wrong.calendar.is_none() && !wrong.is_explained());
    }
}
