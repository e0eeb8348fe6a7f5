//! The CPU time of a process and its children, as the kernel accounts for it (proc(5), `/proc/PID/stat`).

use std::ops::Sub;

use anyhow::{Context, Result};

/// Microseconds per tick of `/proc`: Linux reports 100 ticks per second to user space on every machine (USER_HZ).
const TICK_MICROSECONDS: u64 = 10_000;

/// CPU time in microseconds. The sum is exact to one tick; the split into user and system is the kernel's estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Time in user space.
    pub user_us: u64,
    /// Time in the kernel.
    pub system_us: u64,
}

impl Cpu {
    /// User and system time together.
    pub fn total_us(self) -> u64 {
        self.user_us + self.system_us
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            user_us: self.user_us.saturating_sub(earlier.user_us),
            system_us: self.system_us.saturating_sub(earlier.system_us),
        }
    }
}

/// The CPU time of a process and its live children (such as nginx's workers) so far.
pub fn used_by(id: u32) -> Result<Cpu> {
    let own = stat_of(id)?;
    let children = children_of(id)?;
    Ok(children.iter().chain([&own]).fold(Cpu::default(), |sum, stat| Cpu {
        user_us: sum.user_us + stat.cpu.user_us,
        system_us: sum.system_us + stat.cpu.system_us,
    }))
}

/// The fields that are read from a `stat` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    cpu: Cpu,
}

fn stat_of(id: u32) -> Result<Stat> {
    let file = format!("/proc/{id}/stat");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {file}: has the proxy ended?"))?;
    parse(&text).with_context(|| format!("understanding {file}"))
}

fn children_of(id: u32) -> Result<Vec<Stat>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").context("listing /proc")? {
        let name = entry?.file_name();
        let Some(other) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        children.extend(stat_of(other).ok().filter(|stat| stat.parent == id)); // processes may end during the scan
    }
    Ok(children)
}

/// Parses the fields after the program's name. The name is in brackets and may contain any character.
fn parse(stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_ascii_whitespace().collect();
    let number = |position: usize| fields.get(position)?.parse::<u64>().ok();
    let (parent, user, system) = (number(1)?, number(11)?, number(12)?); // ppid, utime, stime: fields 4, 14, 15
    let cpu = Cpu { user_us: user * TICK_MICROSECONDS, system_us: system * TICK_MICROSECONDS };
    Some(Stat { parent: u32::try_from(parent).ok()?, cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_line_is_parsed_for_any_program_name() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194560 1 2 3 4 150 25 6 7 20 0 1 0 100 1 2";
        let cpu = Cpu { user_us: 1_500_000, system_us: 250_000 };
        assert_eq!(parse(stat), Some(Stat { parent: 7, cpu }));
        assert_eq!(parse("42 (a) S 7"), None);
    }

    #[test]
    fn cpu_time_of_this_process_is_readable() {
        assert!(used_by(std::process::id()).is_ok());
    }
}
