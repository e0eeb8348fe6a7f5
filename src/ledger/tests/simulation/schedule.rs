//! The steps in the life of a ledger, drawn from a seed: the same seed gives the same steps.

use std::time::Duration;

use fastrand::Rng;

use crate::model::{CalendarOffset, Finished, Refused};

/// The number of steps of a schedule.
const STEPS: std::ops::Range<usize> = 15..40;

/// One step. `nth` selects one of the open tickets. Without open tickets the step does nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ScheduleStep {
    Admit {
        worker: usize,
        department: u32,
        command: u32,
        units: u64,
    },
    Bytes {
        nth: usize,
        request: u64,
        response: u64,
    },
    End {
        nth: usize,
        finished: Finished,
    },
    /// Drops the ticket: the caller has left.
    Leave {
        nth: usize,
    },
    Refuse {
        worker: usize,
        department: u32,
        command: u32,
        refused: Refused,
    },
    Tick {
        worker: usize,
    },
    /// The keeper does all work that is due.
    Turn,
    /// A reader requests a fold.
    Fold,
    /// Both clocks go forward.
    Pass(Duration),
    /// The wall clock is set; the monotonic clock stands still.
    SetClock {
        seconds: i64,
    },
    /// The disk has no space for another segment, or has space again.
    Fill,
    Free,
    /// Compares every reader with the model.
    Look,
    /// Another process adjusts the books.
    Adjust {
        department: u32,
        units: i64,
    },
    Close,
    Kill,
    /// Power loss: the tally is as of the last sync, and `some_newer` pages have reached the disk since.
    LosePower {
        some_newer: bool,
    },
    /// The disk fails to sync.
    LoseSync,
    Start(StartKind),
}

/// The theme of a history. Some defects need several unlikely steps together; a theme makes these steps likely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScheduleTheme {
    Anything,
    /// Streams that outlive their hours, and power losses between two pages.
    Streams,
    /// Compaction of hours to days, and clocks that are set back before the compacted days.
    Days,
}

impl ScheduleTheme {
    const ALL: [Self; 4] = [Self::Anything, Self::Anything, Self::Streams, Self::Days];

    fn step(self, rng: &mut Rng) -> Option<ScheduleStep> {
        if self == Self::Anything || rng.u32(0..3) > 0 {
            return None;
        }
        let (worker, nth) = (rng.usize(0..2), rng.usize(0..8));
        Some(match (rng.u32(0..8), self) {
            (0, Self::Days) => ScheduleStep::Pass(Duration::from_secs(86_400 * rng.u64(1..4))),
            (0 | 1, _) => ScheduleStep::Pass(Duration::from_secs(3600 + rng.u64(61..120))),
            (2 | 3, _) => ScheduleStep::Tick { worker },
            (4, _) => ScheduleStep::Turn,
            (5, Self::Days) => ScheduleStep::Fold,
            (6, Self::Days) => ScheduleStep::Close,
            (6, _) => ScheduleStep::LosePower { some_newer: true },
            _ => ScheduleStep::End { nth, finished: Finished::Ok },
        })
    }
}

/// The circumstances of a gateway's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StartKind {
    pub(crate) workers: usize,
    pub(crate) calendar: CalendarOffset,
    pub(crate) compact_after: Option<Duration>,
    /// The operation on the tally's file at which the process crashes.
    pub(crate) dies_at: Option<u32>,
}

/// The start of the clock: within an hour, or before the end of an hour, of a month in +08:00, of a year.
pub(crate) const BEGINNINGS: [&str; 4] =
    ["2026-11-24T03:10:00Z", "2026-11-24T03:59:58Z", "2026-10-31T15:58:30Z", "2026-12-31T23:59:59Z"];

/// Returns the steps of a seed.
pub(crate) fn steps(rng: &mut Rng) -> Vec<ScheduleStep> {
    let theme = ScheduleTheme::ALL[rng.usize(0..ScheduleTheme::ALL.len())];
    let mut steps = vec![ScheduleStep::Start(StartKind { dies_at: None, ..start(rng, theme) })];
    for _ in 0..rng.usize(STEPS) {
        let step = theme.step(rng).unwrap_or_else(|| step(rng));
        steps.push(step);
        if let ScheduleStep::Close | ScheduleStep::Kill | ScheduleStep::LosePower { .. } | ScheduleStep::LoseSync = step
        {
            steps.extend(between_lives(rng, theme));
        }
    }
    steps.push(ScheduleStep::Free);
    steps.extend(rng.bool().then_some(ScheduleStep::Look));
    steps
}

fn step(rng: &mut Rng) -> ScheduleStep {
    let (worker, nth) = (rng.usize(0..2), rng.usize(0..8));
    match rng.u32(0..100) {
        0..24 => {
            ScheduleStep::Admit { worker, department: rng.u32(1..4), command: rng.u32(1..4), units: rng.u64(1..4) }
        }
        24..32 => ScheduleStep::Bytes { nth, request: rng.u64(0..1000), response: rng.u64(0..1_000_000) },
        32..44 => ScheduleStep::End { nth, finished: Finished::ALL[rng.usize(0..7)] },
        44..48 => ScheduleStep::Leave { nth },
        48..54 => ScheduleStep::Refuse {
            worker,
            department: rng.u32(1..4),
            command: rng.u32(1..4),
            refused: Refused::ALL[rng.usize(0..Refused::ALL.len())],
        },
        54..64 => ScheduleStep::Tick { worker },
        64..72 => ScheduleStep::Turn,
        72..78 => ScheduleStep::Fold,
        78..87 => ScheduleStep::Pass(pass(rng)),
        87..89 => ScheduleStep::SetClock { seconds: clock_step(rng) },
        89..91 => ScheduleStep::Fill,
        91..93 => ScheduleStep::Free,
        93 => ScheduleStep::Look,
        94 => ScheduleStep::Adjust { department: rng.u32(1..4), units: rng.i64(1..100) },
        95 => ScheduleStep::Close,
        96..98 => ScheduleStep::Kill,
        98 => ScheduleStep::LosePower { some_newer: rng.bool() },
        _ => ScheduleStep::LoseSync,
    }
}

fn between_lives(rng: &mut Rng, theme: ScheduleTheme) -> Vec<ScheduleStep> {
    let mut steps = vec![ScheduleStep::Look];
    if theme == ScheduleTheme::Days && rng.bool() {
        steps.push(ScheduleStep::SetClock { seconds: -86_400 * rng.i64(1..20) });
    } else if rng.u32(0..4) == 0 {
        steps.push(ScheduleStep::SetClock { seconds: clock_step(rng) });
    }
    while rng.u32(0..3) == 0 {
        steps.push(ScheduleStep::Start(StartKind { dies_at: Some(rng.u32(0..10)), ..start(rng, theme) }));
    }
    steps.push(ScheduleStep::Start(StartKind { dies_at: None, ..start(rng, theme) }));
    steps
}

fn start(rng: &mut Rng, theme: ScheduleTheme) -> StartKind {
    let offset = ["+08:00", "+08:00", "+08:00", "-03:00", "+00:00"][rng.usize(0..5)];
    let days = if theme == ScheduleTheme::Days { Some(0) } else { [None, Some(0), Some(1), Some(2)][rng.usize(0..4)] };
    StartKind {
        workers: rng.usize(1..3),
        calendar: CalendarOffset::parse(offset).expect("an offset"),
        compact_after: days.map(|days| Duration::from_secs(days * 24 * 3600)),
        dies_at: None,
    }
}

fn pass(rng: &mut Rng) -> Duration {
    match rng.u32(0..12) {
        0..4 => Duration::from_millis(rng.u64(1..2000)),
        4..6 => Duration::from_secs(rng.u64(1..90)),
        6..9 => Duration::from_secs(3600 + rng.u64(0..120)),
        9..11 => Duration::from_secs(3600 * rng.u64(1..30)),
        _ => Duration::from_secs(86_400 * rng.u64(1..40)),
    }
}

fn clock_step(rng: &mut Rng) -> i64 {
    match rng.u32(0..4) {
        0 => rng.i64(-90..90),
        1 => rng.i64(-4000..4000),
        2 => 3600 * rng.i64(-30..30),
        _ => 86_400 * rng.i64(-40..40),
    }
}
