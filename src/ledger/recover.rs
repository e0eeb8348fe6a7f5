//! Ends an epoch: the dead one that a start finds, and the living one that is closed.
//!
//! Guarantees: a tally is folded into the book before it is removed, and can be folded again if the process dies in
//! between; what was in flight becomes `interrupted`; a tally that is older than the book lowers no number of it; a file that cannot be read, or is another gateway's, is set aside
//! and never overwritten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::book::{Book, Save};
use super::disk::Disk;
use super::ending::Ending;
use super::error::LedgerError;
use super::fold::{Fold, Row, SeriesNames};
use super::pages::EpochState;
use super::tally::{Header, TallyImage, moves};
use crate::model::Window;

/// Brings what a dead process left at `path` into the book, and clears the way for a new tally.
pub(super) fn recover(book: &mut Book, disk: &dyn Disk, path: &Path, me: &Header) -> Result<(), LedgerError> {
    let Some(bytes) = read_if_there(path)? else { return Ok(()) };
    let image = match TallyImage::parse(&bytes) {
        Ok(image) if image.header.gateway == me.gateway => image,
        Ok(image) => return set_aside(disk, path, &format!("it belongs to gateway {:?}", image.header.gateway), me),
        Err(reason) => return set_aside(disk, path, &reason.to_string(), me),
    };
    let known = book.pages().epoch(image.header.epoch)?;
    let has_ended = known.as_ref().is_some_and(|epoch| epoch.has_ended);
    if !has_ended && end_dead_epoch(book, &image, known, me)? == DeadTally::Smaller {
        return set_aside(disk, path, "it holds less than the book", me);
    }
    disk.remove(path).map_err(|error| LedgerError::file("remove the recovered tally", path, error))
}

/// What the tally of a dead epoch holds, beside the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeadTally {
    /// All that the book does, and perhaps more.
    Whole,
    /// Less of something than the book.
    Smaller,
}

fn end_dead_epoch(
    book: &mut Book,
    image: &TallyImage,
    known: Option<EpochState>,
    me: &Header,
) -> Result<DeadTally, LedgerError> {
    book.begin_epoch(&image.header)?;
    let floor = known.map_or(Window(0), |epoch| epoch.floor);
    let counted = fold_ended(book.pages().series()?, image, floor);
    if book.has_more_than(&counted, image.header.epoch)? {
        end_by_larger(book, &counted, &image.header, me)?;
        return Ok(DeadTally::Smaller);
    }
    let fold = interrupted(counted, image, floor);
    let ending = if image.header.boot_id == me.boot_id { Ending::ProcessDied } else { Ending::MachineDied };
    tracing::warn!(
        epoch = image.header.epoch,
        ending = ?ending,
        last_sync = %image.header.synced_at,
        "the last gateway on this ledger did not close it; its counts are recovered, what was in flight is `interrupted`"
    );
    book.save(&Save {
        fold: &fold,
        in_flight: BTreeMap::new(),
        epoch: image.header.epoch,
        synced_at: image.header.synced_at,
        now: me.created,
        seal_before: None,
        ending: Some(ending),
    })?;
    Ok(DeadTally::Whole)
}

/// The tally is older than the book, or was made smaller: an older copy of it was put in its place. What was counted is not lowered
/// by that: of each number the larger one stays. What of the epoch is not known any more, its ending says.
fn end_by_larger(book: &mut Book, counted: &Fold, header: &Header, me: &Header) -> Result<(), LedgerError> {
    tracing::error!(
        epoch = header.epoch,
        tally_synced = %header.synced_at,
        "the tally beside the book holds less than the book: it is an older copy, or somebody has changed it. The larger of \
         each number is kept, and the epoch ends as `tally missing`, since its last counts may be missing. Find out who put \
         the tally there"
    );
    book.end_by_larger(counted, header, me.created)
}

/// The rows of a dead epoch from window `floor` on, with what was in flight as `interrupted`.
pub(super) fn fold_dead(known: Vec<(SeriesNames, Row)>, image: &TallyImage, floor: Window) -> Fold {
    interrupted(fold_ended(known, image, floor), image, floor)
}

/// The rows of a dead epoch, without what was in flight.
pub(super) fn fold_ended(known: Vec<(SeriesNames, Row)>, image: &TallyImage, floor: Window) -> Fold {
    let mut fold = fold_image(known, image, floor);
    for (position, words) in moves(&image.slots) {
        fold.absorb(position, &words, |at| image.slot(at).and_then(SeriesNames::of));
    }
    fold
}

fn interrupted(mut fold: Fold, image: &TallyImage, floor: Window) -> Fold {
    let header = &image.header;
    fold.interrupt(instead(header.synced_at, floor), header.synced_ns, |at| image.slot(at).and_then(SeriesNames::of));
    fold
}

/// The rows of an epoch from window `floor` on, without what is in flight.
pub(super) fn fold_image(known: Vec<(SeriesNames, Row)>, image: &TallyImage, floor: Window) -> Fold {
    let mut fold = Fold::new(known, floor);
    for (position, words) in image.slots.iter().enumerate().skip(1) {
        fold.absorb(position, words, |at| image.slot(at).and_then(SeriesNames::of));
    }
    fold
}

/// Where interrupted commands of sealed windows are counted: the window in which the epoch was last seen alive.
pub(super) fn instead(synced_at: Timestamp, floor: Window) -> Window {
    Window::of_unix_seconds(synced_at.as_second()).max(floor)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, LedgerError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LedgerError::file("read the tally", path, error)),
    }
}

fn set_aside(disk: &dyn Disk, path: &Path, reason: &str, me: &Header) -> Result<(), LedgerError> {
    let aside = aside(path, me.created);
    disk.rename(path, &aside).map_err(|error| LedgerError::file("set aside", path, error))?;
    tracing::error!(
        tally = %path.display(),
        aside = %aside.display(),
        reason,
        "the tally beside the book cannot be folded into it and was set aside; counts of its epoch may be missing from \
         the book. Keep the file, and start its own gateway on it if it is another's"
    );
    Ok(())
}

fn aside(path: &Path, now: Timestamp) -> PathBuf {
    path.with_extension(format!("tally-aside-{}", now.strftime("%Y%m%dT%H%M%S%f")))
}
