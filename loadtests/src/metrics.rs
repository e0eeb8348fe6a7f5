//! Reads `tallygate_commands_total` from `/metrics`, summed over all labels except department and outcome.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::account::Account;
use crate::{http, ledger};

const FAMILY: &str = "tallygate_commands_total{";

/// All commands in the metrics.
pub fn account(admin: SocketAddr) -> Result<Account> {
    let text = http::get(admin, "/metrics")?;
    let mut account = Account::new();
    for line in text.lines().filter_map(|line| line.strip_prefix(FAMILY)) {
        let (key, count) =
            sample(line).with_context(|| format!("understanding this line of /metrics: {FAMILY}{line}"))?;
        if count > 0 {
            *account.entry(key).or_default() += count;
        }
    }
    Ok(account)
}

/// Key and value of a sample. The label values are ids, which need no escapes.
fn sample(line: &str) -> Option<(String, u64)> {
    let (labels, value) = line.split_once('}')?;
    let label =
        |name: &str| labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'));
    Some((ledger::key(label("department")?, label("outcome")?), value.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_parsed_with_labels_in_any_order() {
        let ok = r#"command="snapshot.read",department="dept-1",outcome="ok",subsystem="cameras"} 12500"#;
        assert_eq!(sample(ok), Some(("dept-1".to_owned(), 12_500)));
        let refused = r#"outcome="rate_limited",department="dept-2"} 3"#;
        assert_eq!(sample(refused), Some(("dept-2 rate_limited".to_owned(), 3)));
        assert_eq!(sample(r#"department="dept-2"} 3"#), None);
        assert_eq!(sample(r#"department="dept-2",outcome="ok"} 3.5"#), None);
    }
}
