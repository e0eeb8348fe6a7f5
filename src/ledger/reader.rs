//! Reads the ledger: inside the gateway through the keeper, outside it from the files alone.
//!
//! Guarantees: both give the same rows for the same facts, including what the tally holds beyond the book; neither
//! changes anything. Commands in flight are in no row; those of a gateway that is dead are `interrupted`.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::adjust::{self, AdjustmentRow};
use super::error::LedgerError;
use super::fold::{OpenRows, OpenUse, sum_rows};
use super::lock;
use super::pages::{Pages, open_for_reading, open_steadily};
use super::place;
use super::range::{Asked, Grain};
use super::read_only::FrozenBook;
use super::recover::{fold_dead, fold_ended, fold_image};
use super::rows;
use super::shared::{Request, Requests};
use super::tally::TallyImage;
use super::totals::{DepartmentUse, LedgerView, Totals, UsageRow};
use crate::model::{CalendarOffset, Name, Window};

/// Asks the keeper for what the ledger holds at this moment. Cheap to clone, may go to any thread.
#[derive(Clone, Debug)]
pub struct LedgerReader {
    pub(super) path: PathBuf,
    pub(super) requests: Requests,
}

impl LedgerReader {
    /// Everything the ledger holds at this moment, book and tally together.
    pub async fn totals(&self) -> Result<Totals, LedgerError> {
        self.ask(Request::Totals).await
    }

    /// What a page of metrics shows: everything the ledger holds, and what departments used in each of these ranges of windows,
    /// at the same moment. One question to the keeper; history is read on a thread of its own.
    pub async fn view(&self, ranges: Vec<Range<Window>>) -> Result<LedgerView, LedgerError> {
        for _ in 0..READINGS {
            let (totals, open) = self.ask(Request::TotalsAndUse).await?;
            let (path, ranges) = (self.path.clone(), ranges.clone());
            if let Some(uses) = self.aside(move || read_use(&path, &ranges, &open)).await? {
                return Ok(LedgerView { totals, uses });
            }
        }
        Err(LedgerError::Unsteady(self.path.clone()))
    }

    /// Exact usage rows of the half-open range of windows, summed over epochs, including what the tally holds beyond the
    /// book. History is read on a thread of its own: neither the keeper nor the caller's runtime waits for it.
    pub async fn usage(&self, windows: Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        self.read(windows, Grain::Hour).await
    }

    /// As [`LedgerReader::usage`], with whole days as rows of their first hour: for sums by day or longer.
    pub async fn usage_by_day(&self, windows: Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        self.read(windows, Grain::Day).await
    }

    /// As [`LedgerReader::usage`], with the whole range as rows of its first hour: for sums that know no time.
    pub async fn usage_in_whole(&self, windows: Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        self.read(windows, Grain::Whole).await
    }

    /// All corrections, in the order in which they were made. Read on a thread of its own, as history is.
    pub async fn adjustments(&self) -> Result<Vec<AdjustmentRow>, LedgerError> {
        let path = self.path.clone();
        self.aside(move || LedgerFiles::open(&path)?.adjustments()).await
    }

    /// As [`LedgerFiles::department_names`]. Read on a thread of its own, as history is.
    pub async fn department_names(&self) -> Result<BTreeMap<String, String>, LedgerError> {
        let path = self.path.clone();
        self.aside(move || LedgerFiles::open(&path)?.department_names()).await
    }

    /// Has the keeper write the names of departments, by their ids, into the book, where they are new or have changed. Returns
    /// at once: they are in the book after the next fold. To be called at the start and after each reload.
    pub fn note_department_names(&self, names: Vec<(Name, String)>) {
        let _ = self.requests.send(Request::Names(names)); // a keeper that is gone writes nothing more
    }

    async fn read(&self, windows: Range<Window>, grain: Grain) -> Result<Vec<UsageRow>, LedgerError> {
        for _ in 0..READINGS {
            let open = self.ask(Request::OpenRows).await?;
            if let Some(rows) = self.read_with(open, windows.clone(), grain).await? {
                return Ok(rows);
            }
        }
        Err(LedgerError::Unsteady(self.path.clone()))
    }

    /// The rows of the book and these; nothing if the book has meanwhile sealed an hour that is among these.
    async fn read_with(
        &self,
        open: OpenRows,
        windows: Range<Window>,
        grain: Grain,
    ) -> Result<Option<Vec<UsageRow>>, LedgerError> {
        let path = self.path.clone();
        let read = move || {
            let closed = read_book(&path, (&windows, &open), grain)?;
            Ok(closed.map(|closed| sum_rows(closed.into_iter().chain(shown(open.rows, &windows, grain)))))
        };
        self.aside(read).await
    }

    /// Reads on a thread of its own.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let read = move || drop(reply.send(read())); // who asked may have left
        let spawned = std::thread::Builder::new().name("ledger-reader".to_owned()).spawn(read);
        spawned.map_err(|error| LedgerError::file("start a thread to read", &self.path, error))?;
        answer.await.map_err(|_| LedgerError::Stopped)?
    }

    /// Syncs, folds and seals now rather than at the next second, so that the book holds what the tally does.
    pub async fn fold(&self) -> Result<(), LedgerError> {
        self.ask(Request::Fold).await?
    }

    pub(super) async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| LedgerError::Stopped)?;
        answer.await.map_err(|_| LedgerError::Stopped)
    }
}

/// What the book holds beside `open`, all of it as it was at one moment; nothing if an hour of `open` is sealed by then.
pub(super) fn read_book(
    path: &Path,
    (windows, open): (&Range<Window>, &OpenRows),
    grain: Grain,
) -> Result<Option<Vec<UsageRow>>, LedgerError> {
    read_beside(path, (open.epoch, open.floor), |pages| {
        pages.usage(&Asked { windows: windows.clone(), grain, except: (open.epoch, open.floor) })
    })
}

/// What departments used by the book and `open`, all of it as it was at one moment; nothing if an hour of `open` is sealed by
/// then.
fn read_use(path: &Path, ranges: &[Range<Window>], open: &OpenUse) -> Result<Option<Vec<DepartmentUse>>, LedgerError> {
    let except = (open.epoch, open.floor);
    let asked = |range: &Range<Window>| Asked { windows: range.clone(), grain: Grain::Whole, except };
    read_beside(path, except, |pages| {
        ranges.iter().map(|range| Ok(with_open(pages.department_use(&asked(range))?, range, open))).collect()
    })
}

fn with_open(mut uses: DepartmentUse, range: &Range<Window>, open: &OpenUse) -> DepartmentUse {
    for ((_, department), sums) in open.sums.iter().filter(|((window, _), _)| range.contains(window)) {
        uses.entry(department.clone()).or_default().add(sums.commands, sums.units);
    }
    uses
}

/// Reads the book as it is at one moment; nothing if an hour of this epoch from this window on is sealed by then.
fn read_beside<T>(
    path: &Path,
    (epoch, floor): (u32, Window),
    read: impl FnOnce(&Pages<'_>) -> Result<T, LedgerError>,
) -> Result<Option<T>, LedgerError> {
    let connection = open_for_reading(path)?;
    let moment = connection.unchecked_transaction().map_err(|error| LedgerError::book("read", path, error))?;
    let pages = Pages::new(path, &moment);
    if pages.epoch(epoch)?.is_some_and(|epoch| epoch.floor > floor) {
        return Ok(None);
    }
    read(&pages).map(Some)
}

/// The rows of a range, as they are shown.
fn shown(rows: Vec<UsageRow>, windows: &Range<Window>, grain: Grain) -> impl Iterator<Item = UsageRow> {
    let asked = rows.into_iter().filter(|row| windows.contains(&row.window));
    asked.map(move |row| UsageRow { window: grain.shown(row.window, windows), ..row })
}

/// A ledger's files, opened for reading by another process: live, killed or copied.
#[derive(Debug)]
pub struct LedgerFiles {
    path: PathBuf,
    connection: Connection,
    calendar: CalendarOffset,
    /// What the book was, if it was opened as a file that nobody changes.
    frozen: Option<FrozenBook>,
}

/// How often a reading is begun anew when the gateway seals or closes in the middle of it.
const READINGS: u32 = 100;

impl LedgerFiles {
    /// Opens the book at `path` and whatever tally lies beside it; changes neither.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let path = place::canonical(path)?;
        let (connection, frozen) = open_steadily(&path)?;
        let calendar = Pages::new(&path, &connection).calendar()?;
        Ok(Self { path, connection, calendar, frozen })
    }

    /// The calendar offset the ledger was kept in.
    pub fn calendar(&self) -> CalendarOffset {
        self.calendar
    }

    /// As [`LedgerReader::usage`].
    pub fn usage(&self, windows: Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        self.read_steadily(&windows, Grain::Hour)
    }

    /// As [`LedgerReader::usage_by_day`].
    pub fn usage_by_day(&self, windows: Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        self.read_steadily(&windows, Grain::Day)
    }

    /// As [`LedgerReader::usage_in_whole`].
    pub fn usage_in_whole(&self, windows: Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        self.read_steadily(&windows, Grain::Whole)
    }

    /// As [`LedgerReader::adjustments`].
    pub fn adjustments(&self) -> Result<Vec<AdjustmentRow>, LedgerError> {
        adjust::all(&self.connection).map_err(|error| LedgerError::book("read", &self.path, error))
    }

    /// The latest name of every department that was ever configured, by its id. No seal covers names.
    pub fn department_names(&self) -> Result<BTreeMap<String, String>, LedgerError> {
        Pages::new(&self.path, &self.connection).department_names()
    }

    fn read_steadily(&self, windows: &Range<Window>, grain: Grain) -> Result<Vec<UsageRow>, LedgerError> {
        let pages = Pages::new(&self.path, &self.connection);
        for _ in 0..READINGS {
            let before = pages.edition()?;
            let rows = self.read(&pages, windows, grain)?;
            if self.frozen.is_some_and(|frozen| frozen.has_changed(&self.path)) {
                break;
            }
            if pages.edition()? == before {
                return Ok(rows);
            }
        }
        Err(LedgerError::Unsteady(self.path.clone()))
    }

    fn read(&self, pages: &Pages<'_>, windows: &Range<Window>, grain: Grain) -> Result<Vec<UsageRow>, LedgerError> {
        let asked = |except| Asked { windows: windows.clone(), grain, except };
        let Some(image) = self.image()? else { return pages.usage(&asked(NOTHING)) };
        let epoch = image.header.epoch;
        let known = pages.epoch(epoch)?;
        if known.as_ref().is_some_and(|epoch| epoch.has_ended) {
            return pages.usage(&asked(NOTHING));
        }
        let floor = known.map_or(Window(0), |epoch| epoch.floor);
        let is_kept = lock::is_held(&self.path)?;
        if !is_kept && self.has_more_than(&image, floor)? {
            return pages.usage(&asked(NOTHING)); // an older copy of the tally, which the next start will set aside
        }
        let fold = match is_kept {
            true => fold_image(Vec::new(), &image, floor),
            false => fold_dead(Vec::new(), &image, floor),
        };
        let closed = pages.usage(&asked((epoch, floor)))?;
        Ok(sum_rows(closed.into_iter().chain(shown(fold.usage(windows.clone()), windows, grain))))
    }

    /// Whether the book holds more than a tally of a dead process.
    fn has_more_than(&self, image: &TallyImage, floor: Window) -> Result<bool, LedgerError> {
        let counted = fold_ended(Pages::new(&self.path, &self.connection).series()?, image, floor);
        let exceeds = rows::exceeds(&self.connection, &counted, image.header.epoch);
        exceeds.map_err(|error| LedgerError::book("read", &self.path, error))
    }

    /// The tally, if there is one that can be read. What changed hands while it was read is read again.
    fn image(&self) -> Result<Option<TallyImage>, LedgerError> {
        let path = self.path.with_extension(super::TALLY);
        let read = || read_file(&path).map_err(|error| LedgerError::file("read the tally", &path, error));
        for _ in 0..READINGS {
            let (Some(first), Some(second)) = (read()?, read()?) else { return Ok(None) };
            let (Ok(first), Ok(second)) = (TallyImage::parse(&first), TallyImage::parse(&second)) else {
                return Ok(None); // it will be set aside by the next start
            };
            let mut both = first.slots.iter().zip(&second.slots);
            if first.header.epoch == second.header.epoch && both.all(|(one, other)| one.state() == other.state()) {
                return Ok(Some(first));
            }
        }
        Err(LedgerError::Unsteady(path))
    }
}

/// No epoch is left out.
const NOTHING: (u32, Window) = (0, Window(u32::MAX));

fn read_file(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    use std::io::Read;
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
