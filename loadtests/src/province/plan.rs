//! The configuration of a province: subsystems, departments, callers and grants beside the eight departments that call.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::pki::HOST;

/// Commands per subsystem.
const COMMANDS: usize = 10;
/// Grants per department, each for all commands of one subsystem.
const GRANTS: usize = 2;

/// The sizes of a province.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub subsystems: usize,
    pub departments: usize,
    pub callers: usize,
    /// Included files with departments.
    pub files: usize,
    pub upstream: SocketAddr,
}

impl Plan {
    /// Rejects sizes that leave a department without a caller, or a file without a department.
    pub fn check(&self) -> Result<()> {
        ensure!(self.callers >= self.departments, "there are fewer callers than departments");
        ensure!((1..=self.departments).contains(&self.files), "there are more files than departments");
        ensure!(self.subsystems > 0, "there is no subsystem");
        Ok(())
    }

    /// The id of a department.
    pub fn department(position: usize) -> String {
        format!("department-{position:05}")
    }

    /// The id of the first subsystem that a department may call.
    pub fn subsystem_of(&self, department: usize) -> String {
        format!("subsystem-{:03}", department * 7 % self.subsystems)
    }

    /// The main file with the whole configuration in it.
    pub fn in_one_file(&self, main: &str) -> String {
        let all = 0..self.departments;
        let lists = [
            ("departments", self.departments(all.clone())),
            ("subsystems", self.subsystems()),
            ("grants", self.grants(all)),
        ];
        lists.iter().fold(main.to_owned(), |text, (list, items)| {
            text.replacen(&format!("\n{list}:\n"), &format!("\n{list}:\n{items}"), 1)
        })
    }

    /// Writes the included files to `folder`; returns the main file that includes them.
    pub fn in_many_files(&self, main: &str, folder: &Path) -> Result<String> {
        for list in ["departments.d", "subsystems.d"] {
            std::fs::create_dir(folder.join(list)).with_context(|| format!("making {list} in {}", folder.display()))?;
        }
        let subsystems = format!("subsystems:\n{}", self.subsystems());
        std::fs::write(folder.join("subsystems.d/all.yaml"), subsystems)?;
        for file in 0..self.files {
            std::fs::write(folder.join(Self::file(file)), self.team(file))?;
        }
        Ok(format!("include: [departments.d/*.yaml, subsystems.d/*.yaml]\n{main}"))
    }

    /// The path of the included file at `position`.
    pub fn file(position: usize) -> String {
        format!("departments.d/{position:04}.yaml")
    }

    /// The text of the included file with index `file`.
    pub fn team(&self, file: usize) -> String {
        let share = file * self.departments / self.files..(file + 1) * self.departments / self.files;
        format!("departments:\n{}grants:\n{}", self.departments(share.clone()), self.grants(share))
    }

    fn departments(&self, positions: Range<usize>) -> String {
        let mut text = String::new();
        for position in positions {
            let id = Self::department(position);
            let _ = writeln!(text, "  - id: {id}\n    name: Department {position:05} of the Province\n    callers:");
            let callers = position * self.callers / self.departments..(position + 1) * self.callers / self.departments;
            for caller in callers {
                let _ = writeln!(text, "      - uri: spiffe://province.example/{id}/caller/{caller:06}");
            }
            let _ = writeln!(text, "    limits: {{ rate: 2000/s, burst: 4000, concurrent: 500 }}");
            let _ = writeln!(text, "    quota: {{ per: month, units: 50000000, warn: [80, 90] }}");
        }
        text
    }

    fn subsystems(&self) -> String {
        let mut text = String::new();
        for position in 0..self.subsystems {
            let _ = writeln!(text, "  - id: subsystem-{position:03}\n    hosts: [{HOST}]"); // the called host
            let _ = writeln!(text, "    path: /subsystem-{position:03}");
            let _ = writeln!(text, "    upstreams: [{{ url: \"http://{}\" }}]\n    commands:", self.upstream);
            for command in 0..COMMANDS {
                let _ = writeln!(text, "      - id: object.command-{command}");
                let _ = writeln!(text, "        match: {{ method: GET, path: \"/v1/objects-{command}/{{id}}\" }}");
            }
        }
        text
    }

    fn grants(&self, positions: Range<usize>) -> String {
        let mut text = String::new();
        for position in positions {
            for number in 0..GRANTS {
                let (id, subsystem) = (Self::department(position), self.subsystem_of(position + number));
                let _ = writeln!(text, "  - {{ department: {id}, subsystem: {subsystem}, commands: [\"object.*\"] }}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let upstream = SocketAddr::from(([127, 0, 0, 1], 9001));
        Plan { subsystems: 3, departments: 7, callers: 17, files: 2, upstream }
    }

    const MAIN: &str = "ledger: { path: l.db }\nlisteners: []\ndepartments:\n  - { id: dept-1, callers: [{ dns: d }] }\n\
                        subsystems:\n  - { id: cameras }\ngrants:\n  - { department: dept-1 }\n";

    #[test]
    fn one_file_and_many_files_compile_equally() {
        let folder = tempfile::tempdir().expect("a folder");
        let one = plan().in_one_file(MAIN);
        plan().in_many_files(MAIN, folder.path()).expect("files");
        let many: String = (0..2).map(|file| plan().team(file)).collect();
        for text in [&one, &many] {
            assert_eq!(text.matches("- uri: ").count(), 17);
            assert_eq!(text.matches("- id: department-").count(), 7);
            assert_eq!(text.matches("- { department: department-").count(), 14);
        }
        assert_eq!(one.matches("- id: subsystem-").count(), 3);
        assert!(Plan { callers: 6, ..plan() }.check().is_err() && plan().check().is_ok());
    }
}
