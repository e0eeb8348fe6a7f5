//! The real binary under faults: kills, clocks, disks, files.

mod clock_jumps;
mod disk_errors;
mod disk_full;
mod lost_files;
mod process_kill;
