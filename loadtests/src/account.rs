//! Accounts and their balance: the same commands, counted in several places, must give the same numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Number of commands per key: `dept-1` for successful commands, `dept-1 rate_refusal` for other outcomes.
///
/// Each other outcome has a key of its own. A failure is therefore a separate line and cannot balance by accident.
pub type Account = BTreeMap<String, u64>;

/// Adds one account to another.
pub fn add(into: &mut Account, from: &Account) {
    for (key, count) in from {
        *into.entry(key.clone()).or_default() += count;
    }
}

/// The number of all commands in an account.
pub fn total(account: &Account) -> u64 {
    account.values().sum()
}

/// Several accounts of the same commands, side by side. The others are compared with the first.
#[derive(Clone, Debug)]
pub struct Balance {
    columns: Vec<(&'static str, Account)>,
}

impl Balance {
    /// The client's account, which is the reference: every other account must be equal to it.
    pub fn of_client(account: Account) -> Self {
        Self { columns: vec![("client", account)] }
    }

    /// Adds the account of another place that counted the same commands.
    pub fn and(mut self, place: &'static str, account: Account) -> Self {
        self.columns.push((place, account));
        self
    }

    /// Whether all accounts have the same numbers.
    pub fn is_equal(&self) -> bool {
        self.columns.windows(2).all(|pair| pair[0].1 == pair[1].1)
    }

    fn keys(&self) -> BTreeSet<&String> {
        self.columns.iter().flat_map(|(_, account)| account.keys()).collect()
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, key: &str) -> fmt::Result {
        let counts: Vec<_> = self.columns.iter().map(|(_, account)| account.get(key).copied().unwrap_or(0)).collect();
        let differs = if counts.iter().all(|count| *count == counts[0]) { "" } else { "  <- differs" };
        writeln!(f, "{}{differs}", line(key, counts.iter().map(ToString::to_string)))
    }
}

fn line(first: &str, cells: impl Iterator<Item = String>) -> String {
    cells.fold(format!("{first:<28}"), |line, cell| format!("{line} {cell:>14}"))
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", line("commands", self.columns.iter().map(|(place, _)| (*place).to_owned())))?;
        for key in self.keys() {
            self.row(f, key)?;
        }
        write!(f, "{}", line("total", self.columns.iter().map(|(_, account)| total(account).to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(counts: &[(&str, u64)]) -> Account {
        counts.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
    }

    #[test]
    fn books_balance_only_if_all_counts_are_equal() {
        let client = account(&[("dept-1", 3), ("dept-2", 4)]);
        let cases = [
            (account(&[("dept-1", 3), ("dept-2", 4)]), true),
            (account(&[("dept-1", 4), ("dept-2", 3)]), false),
            (account(&[("dept-1", 3)]), false),
            (account(&[("dept-1", 3), ("dept-2", 4), ("dept-2 aborted", 1)]), false),
            (account(&[]), false),
        ];
        for (other, equal) in cases {
            let balance = Balance::of_client(client.clone()).and("upstream", other);
            assert_eq!(balance.is_equal(), equal, "{balance}");
            assert_eq!(balance.to_string().contains("differs"), !equal, "{balance}");
        }
    }
}
