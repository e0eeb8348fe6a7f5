//! The departments: every call goes over mTLS through the gateway.

mod camera_bureau;
mod desk;
mod officers;
mod readers;
mod recogniser;
mod warehouse;

use std::time::Duration;

use tallygate::lifecycle::DrainWatcher;
use tokio::sync::mpsc;

use crate::subsystems::Taken;

pub(crate) use desk::{Answers, Office};

/// Starts all departments, which call until `closing` begins. The seeds are fixed, so every run is the same.
pub(crate) fn open(
    office: &Office,
    closing: &DrainWatcher,
    taken: mpsc::Receiver<Taken>,
    growth: Duration,
) -> anyhow::Result<()> {
    camera_bureau::open(office, closing)?;
    recogniser::open(office, closing, taken)?;
    officers::open(office, closing)?;
    warehouse::open(office, closing, growth)?;
    readers::open(office, closing)
}
