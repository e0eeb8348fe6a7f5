//! Reads the ledger: inside the gateway through the keeper, outside the gateway from the files alone.
//!
//! Guarantees:
//! - Both ways return the same rows for the same facts, including counts of the tally that are not in the book yet.
//! - Neither way changes anything.
//! - Commands in flight are in no row. Commands in flight of a dead gateway are `interrupted`.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::model::{CalendarOffset, Name, Window};

use super::book::adjustments::{self, AdjustmentRow};
use super::book::book_reader::{BookReader, open_detecting_changes, open_for_reading};
use super::book::department_names::DatedName;
use super::book::hour_rows;
use super::book::read_only::FrozenBook;
use super::book::usage_query::{UsageResolution, UsageSelection};
use super::files::{book_path, lock};
use super::fold::{OpenRows, OpenUsage, sum_rows};
use super::keeper::recovery::{fold_dead, fold_ended, fold_image};
use super::keeper::requests::{KeeperRequest, RequestSender};
use super::tally::file::TallyImage;
use super::values::error::LedgerError;
use super::values::measures::{DepartmentUsage, LedgerTotals, LedgerView, UsageRow};

/// Reads the open ledger through the keeper. Cheap to clone; may be sent to any thread.
#[derive(Clone, Debug)]
pub struct LedgerReader {
    pub(crate) path: PathBuf,
    pub(crate) request_sender: RequestSender,
}

impl LedgerReader {
    /// Returns all totals at this moment, book and tally together.
    pub async fn totals(&self) -> Result<LedgerTotals, LedgerError> {
        self.request(KeeperRequest::Totals).await
    }

    /// Returns the data of a metrics page: all totals, and the usage of departments in each of the ranges of windows,
    /// at the same moment. Sends one request to the keeper; reads history on a separate thread.
    pub async fn view(&self, ranges: Vec<Range<Window>>) -> Result<LedgerView, LedgerError> {
        for _ in 0..READ_ATTEMPTS_MAX {
            let (totals, open) = self.request(KeeperRequest::TotalsAndUsage).await?;
            let (path, ranges) = (self.path.clone(), ranges.clone());
            if let Some(uses) = self.run_on_thread(move || read_department_usage(&path, &ranges, &open)).await? {
                return Ok(LedgerView { totals, department_usage: uses });
            }
        }
        Err(LedgerError::ChangedWhileRead(self.path.clone()))
    }

    /// Returns exact usage rows of the half-open range of windows, summed over epochs. The rows include counts of the
    /// tally that are not in the book yet. History is read on a separate thread: neither the keeper nor the caller's
    /// runtime waits.
    pub async fn usage_by_hour(&self, windows: Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        self.query(windows, UsageResolution::Hour, None).await
    }

    /// Like [`LedgerReader::usage_by_hour`], with whole days as rows of their first hour: for sums by day or longer.
    pub async fn usage_by_day(&self, windows: Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        self.query(windows, UsageResolution::Day, None).await
    }

    /// Like [`LedgerReader::usage_by_hour`], with the whole range as rows of its first hour: for sums without a time.
    pub async fn usage_total(&self, windows: Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        self.query(windows, UsageResolution::Whole, None).await
    }

    /// Like [`LedgerReader::usage_by_hour`], of one department. The time depends on its own usage and on the length of
    /// the range, which is meant to be some months, and not on the usage of others.
    pub async fn department_usage_by_hour(
        &self,
        department: &Name,
        windows: Range<Window>,
    ) -> Result<Vec<UsageRow>, LedgerError> {
        self.query(windows, UsageResolution::Hour, Some(department)).await
    }

    /// Like [`LedgerReader::usage_total`], of one department.
    pub async fn department_usage_total(
        &self,
        department: &Name,
        windows: Range<Window>,
    ) -> Result<Vec<UsageRow>, LedgerError> {
        self.query(windows, UsageResolution::Whole, Some(department)).await
    }

    /// Like [`LedgerFiles::compacted_before`]. Reads on a separate thread, as for history.
    pub async fn compacted_before(&self) -> Result<Window, LedgerError> {
        let path = self.path.clone();
        self.run_on_thread(move || LedgerFiles::open(&path)?.compacted_before()).await
    }

    /// Returns the path of the book.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns all corrections in the order of their creation. Reads on a separate thread, as for history.
    pub async fn adjustments(&self) -> Result<Vec<AdjustmentRow>, LedgerError> {
        let path = self.path.clone();
        self.run_on_thread(move || LedgerFiles::open(&path)?.adjustments()).await
    }

    /// Like [`LedgerFiles::department_names`]. Reads on a separate thread, as for history.
    pub async fn department_names(&self) -> Result<BTreeMap<String, String>, LedgerError> {
        let path = self.path.clone();
        self.run_on_thread(move || LedgerFiles::open(&path)?.department_names()).await
    }

    /// Sends the names of departments, by their ids, to the keeper, which writes new and changed names into the book.
    /// Returns at once: the names are in the book after the next fold. Must be called at the start and after each
    /// reload.
    pub fn update_department_names(&self, names: Vec<(Name, String)>) {
        // If the keeper has ended, nothing is written.
        let _ = self.request_sender.send(KeeperRequest::DepartmentNames(names));
    }

    async fn query(
        &self,
        windows: Range<Window>,
        resolution: UsageResolution,
        department: Option<&Name>,
    ) -> Result<Vec<UsageRow>, LedgerError> {
        for _ in 0..READ_ATTEMPTS_MAX {
            let mut open = self.request(KeeperRequest::OpenRows).await?;
            open.rows.retain(|row| department.is_none_or(|department| row.department == *department));
            if let Some(rows) = self.query_with(open, windows.clone(), (resolution, department.cloned())).await? {
                return Ok(rows);
            }
        }
        Err(LedgerError::ChangedWhileRead(self.path.clone()))
    }

    /// Returns the rows of the book and of `open`; `None` if the book has meanwhile sealed an hour of `open`.
    async fn query_with(
        &self,
        open: OpenRows,
        windows: Range<Window>,
        (resolution, department): (UsageResolution, Option<Name>),
    ) -> Result<Option<Vec<UsageRow>>, LedgerError> {
        let path = self.path.clone();
        let read = move || {
            let closed = read_usage(&path, (&windows, &open), (resolution, department))?;
            Ok(closed.map(|closed| sum_rows(closed.into_iter().chain(selected_rows(open.rows, &windows, resolution)))))
        };
        self.run_on_thread(read).await
    }

    /// Runs `read` on a separate thread.
    pub(crate) async fn run_on_thread<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let read = move || drop(reply.send(read())); // the requester may have dropped its receiver
        let spawned = std::thread::Builder::new().name("ledger-reader".to_owned()).spawn(read);
        spawned.map_err(|error| LedgerError::file("start a thread to read", &self.path, error))?;
        answer.await.map_err(|_| LedgerError::Stopped)?
    }

    /// Syncs, folds and seals now rather than at the next second, so that the book holds all counts of the tally.
    pub async fn fold_now(&self) -> Result<(), LedgerError> {
        self.request(KeeperRequest::Fold).await?
    }

    pub(crate) async fn request<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> KeeperRequest,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.request_sender.send(request(reply)).map_err(|_| LedgerError::Stopped)?;
        answer.await.map_err(|_| LedgerError::Stopped)
    }
}

/// Returns the book's rows that are not in `open`, read at one moment; `None` if an hour of `open` is sealed by then.
pub(crate) fn read_usage(
    path: &Path,
    (windows, open): (&Range<Window>, &OpenRows),
    (resolution, department): (UsageResolution, Option<Name>),
) -> Result<Option<Vec<UsageRow>>, LedgerError> {
    let except = (open.epoch, open.floor);
    read_at_one_moment(path, except, |book| {
        book.usage(&UsageSelection { windows: windows.clone(), resolution, except, department })
    })
}

/// Returns the usage of departments in the book and in `open`, read at one moment; `None` if an hour of `open` is
/// sealed by then.
fn read_department_usage(
    path: &Path,
    ranges: &[Range<Window>],
    open: &OpenUsage,
) -> Result<Option<Vec<DepartmentUsage>>, LedgerError> {
    let except = (open.epoch, open.floor);
    let selection = |range: &Range<Window>| UsageSelection {
        windows: range.clone(),
        resolution: UsageResolution::Whole,
        except,
        department: None,
    };
    read_at_one_moment(path, except, |book| {
        ranges.iter().map(|range| Ok(add_open_usage(book.department_usage(&selection(range))?, range, open))).collect()
    })
}

fn add_open_usage(mut uses: DepartmentUsage, range: &Range<Window>, open: &OpenUsage) -> DepartmentUsage {
    for ((_, department), sums) in open.sums.iter().filter(|((window, _), _)| range.contains(window)) {
        uses.entry(department.clone()).or_default().add(*sums);
    }
    uses
}

/// Reads the book at one moment; `None` if an hour of `epoch` from `floor` on is sealed by then.
fn read_at_one_moment<T>(
    path: &Path,
    (epoch, floor): (u32, Window),
    read: impl FnOnce(&BookReader<'_>) -> Result<T, LedgerError>,
) -> Result<Option<T>, LedgerError> {
    let connection = open_for_reading(path)?;
    let moment = connection.unchecked_transaction().map_err(|error| LedgerError::book("read", path, error))?;
    let book = BookReader::new(path, &moment);
    if book.epoch_state(epoch)?.is_some_and(|epoch| epoch.first_unsealed > floor) {
        return Ok(None);
    }
    read(&book).map(Some)
}

/// Selects the rows of a range, with the windows under which they are shown.
fn selected_rows(
    rows: Vec<UsageRow>,
    windows: &Range<Window>,
    resolution: UsageResolution,
) -> impl Iterator<Item = UsageRow> {
    let selection = rows.into_iter().filter(|row| windows.contains(&row.window));
    selection.map(move |row| UsageRow { window: resolution.row_window(row.window, windows), ..row })
}

/// A ledger's files, opened for reading by another process. The ledger may be live, killed or a copy.
#[derive(Debug)]
pub struct LedgerFiles {
    path: PathBuf,
    connection: Connection,
    calendar: CalendarOffset,
    /// The book's state at opening, if the book was opened as an immutable file.
    frozen: Option<FrozenBook>,
}

/// The most attempts of a read, when the gateway seals or closes in the middle of an attempt.
const READ_ATTEMPTS_MAX: u32 = 100;

impl LedgerFiles {
    /// Opens the book at `path`, and the tally beside it if there is one; changes neither.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let path = book_path::canonical_path(path)?;
        let (connection, frozen) = open_detecting_changes(&path)?;
        let calendar = BookReader::new(&path, &connection).calendar()?;
        Ok(Self { path, connection, calendar, frozen })
    }

    /// Returns the offset of the ledger's calendar.
    pub fn calendar(&self) -> CalendarOffset {
        self.calendar
    }

    /// Like [`LedgerReader::usage_by_hour`].
    pub fn usage_by_hour(&self, windows: Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        self.query_consistent(&windows, UsageResolution::Hour)
    }

    /// Like [`LedgerReader::usage_by_day`].
    pub fn usage_by_day(&self, windows: Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        self.query_consistent(&windows, UsageResolution::Day)
    }

    /// Like [`LedgerReader::usage_total`].
    pub fn usage_total(&self, windows: Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        self.query_consistent(&windows, UsageResolution::Whole)
    }

    /// Returns the horizon: the first hour that is kept as an hour. Compaction has replaced the hours before it by the
    /// sums of their days.
    pub fn compacted_before(&self) -> Result<Window, LedgerError> {
        BookReader::new(&self.path, &self.connection).compacted_before()
    }

    /// Like [`LedgerReader::adjustments`].
    pub fn adjustments(&self) -> Result<Vec<AdjustmentRow>, LedgerError> {
        adjustments::all_adjustments(&self.connection).map_err(|error| LedgerError::book("read", &self.path, error))
    }

    /// Returns the latest name of every department that was ever configured, by its id. No seal covers names.
    pub fn department_names(&self) -> Result<BTreeMap<String, String>, LedgerError> {
        BookReader::new(&self.path, &self.connection).department_names()
    }

    /// Like [`LedgerFiles::department_names`], with the time of each name.
    pub fn dated_department_names(&self) -> Result<BTreeMap<String, DatedName>, LedgerError> {
        BookReader::new(&self.path, &self.connection).dated_department_names()
    }

    /// Returns the identity of the ledger: the same for the life of the ledger and for all its copies, and not that of
    /// any other ledger. `None` before the first start of a gateway has recorded its epoch; such a ledger has no
    /// counts.
    pub fn identity(&self) -> Result<Option<String>, LedgerError> {
        BookReader::new(&self.path, &self.connection).identity()
    }

    /// Returns the canonical path of the book.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn query_consistent(
        &self,
        windows: &Range<Window>,
        resolution: UsageResolution,
    ) -> Result<Vec<UsageRow>, LedgerError> {
        let book = BookReader::new(&self.path, &self.connection);
        for _ in 0..READ_ATTEMPTS_MAX {
            let before = book.revision()?;
            let rows = self.query(&book, windows, resolution)?;
            if self.frozen.is_some_and(|frozen| frozen.has_changed(&self.path)) {
                break;
            }
            if book.revision()? == before {
                return Ok(rows);
            }
        }
        Err(LedgerError::ChangedWhileRead(self.path.clone()))
    }

    fn query(
        &self,
        book: &BookReader<'_>,
        windows: &Range<Window>,
        resolution: UsageResolution,
    ) -> Result<Vec<UsageRow>, LedgerError> {
        let selection = |except| UsageSelection { windows: windows.clone(), resolution, except, department: None };
        let Some(image) = self.tally_image()? else { return book.usage(&selection(NO_EXCEPTION)) };
        let epoch = image.header.epoch;
        let known = book.epoch_state(epoch)?;
        if known.as_ref().is_some_and(|epoch| epoch.has_ended) {
            return book.usage(&selection(NO_EXCEPTION));
        }
        let floor = known.map_or(Window(0), |epoch| epoch.first_unsealed);
        let is_kept = lock::is_held(&self.path)?;
        if !is_kept && self.exceeds_tally(&image, floor)? {
            return book.usage(&selection(NO_EXCEPTION)); // an older copy of the tally; the next start will set it aside
        }
        let fold = match is_kept {
            true => fold_image(Vec::new(), &image, floor),
            false => fold_dead(Vec::new(), &image, floor),
        };
        let closed = book.usage(&selection((epoch, floor)))?;
        Ok(sum_rows(closed.into_iter().chain(selected_rows(fold.usage(windows.clone()), windows, resolution))))
    }

    /// Returns whether the book holds more than the tally of a dead process.
    fn exceeds_tally(&self, image: &TallyImage, floor: Window) -> Result<bool, LedgerError> {
        let counted = fold_ended(BookReader::new(&self.path, &self.connection).series()?, image, floor);
        let exceeds = hour_rows::exceeds_fold(&self.connection, &counted, image.header.epoch);
        exceeds.map_err(|error| LedgerError::book("read", &self.path, error))
    }

    /// Returns the tally, if there is one that can be read. The file is read twice, and both reads
    /// are repeated if a slot changed its use in between.
    fn tally_image(&self) -> Result<Option<TallyImage>, LedgerError> {
        let path = self.path.with_extension(super::files::book_path::TALLY_EXTENSION);
        let read = || read_file(&path).map_err(|error| LedgerError::file("read the tally", &path, error));
        for _ in 0..READ_ATTEMPTS_MAX {
            let (Some(first), Some(second)) = (read()?, read()?) else { return Ok(None) };
            let (Ok(first), Ok(second)) = (TallyImage::parse(&first), TallyImage::parse(&second)) else {
                return Ok(None); // the next start will set it aside
            };
            let mut both = first.slots.iter().zip(&second.slots);
            if first.header.epoch == second.header.epoch && both.all(|(one, other)| one.state() == other.state()) {
                return Ok(Some(first));
            }
        }
        Err(LedgerError::ChangedWhileRead(path))
    }
}

/// A selection without an excluded epoch.
const NO_EXCEPTION: (u32, Window) = (0, Window(u32::MAX));

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
