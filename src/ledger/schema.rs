//! The tables of the book and the view for finance. `docs/ledger.md` says what each column means.

/// The newest format of the book, in its `user_version`.
pub(super) const FORMAT: u32 = 1;

/// Makes a book of format [`FORMAT`].
pub(super) const SCHEMA: &str = "
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    gateway TEXT NOT NULL,
    calendar_offset TEXT NOT NULL
) STRICT;
CREATE TABLE epoch (
    epoch INTEGER PRIMARY KEY,
    gateway TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    process_id INTEGER NOT NULL,
    started_at TEXT NOT NULL,
    last_sync_at TEXT NOT NULL,
    ended_at TEXT,
    ending TEXT CHECK (ending IN ('clean', 'process died', 'machine died', 'tally missing'))
) STRICT;
CREATE TABLE outcome (
    code INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    refused INTEGER NOT NULL,
    blame TEXT NOT NULL
) STRICT;
CREATE TABLE series (
    series INTEGER PRIMARY KEY,
    department TEXT NOT NULL,
    subsystem TEXT NOT NULL,
    command TEXT NOT NULL,
    UNIQUE (department, subsystem, command)
) STRICT;
CREATE TABLE admission (
    \"window\" INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series,
    epoch INTEGER NOT NULL REFERENCES epoch,
    admitted INTEGER NOT NULL,
    units INTEGER NOT NULL,
    PRIMARY KEY (\"window\", series, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage (
    \"window\" INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series,
    outcome INTEGER NOT NULL REFERENCES outcome,
    epoch INTEGER NOT NULL REFERENCES epoch,
    commands INTEGER NOT NULL,
    units INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    PRIMARY KEY (\"window\", series, outcome, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE seal (
    number INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL REFERENCES epoch,
    \"window\" INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL,
    sealed_at TEXT NOT NULL,
    UNIQUE (epoch, \"window\")
) STRICT;
CREATE TABLE unsealed (
    \"window\" INTEGER NOT NULL,
    epoch INTEGER NOT NULL REFERENCES epoch,
    PRIMARY KEY (\"window\", epoch)
) STRICT, WITHOUT ROWID;
CREATE VIEW usage_hourly AS
SELECT strftime('%Y-%m-%dT%H:00:00Z', usage.\"window\" * 3600, 'unixepoch') AS window_start,
       series.department, series.subsystem, series.command, outcome.name AS outcome,
       sum(usage.commands) AS commands, sum(usage.units) AS units,
       sum(usage.request_bytes) AS request_bytes, sum(usage.response_bytes) AS response_bytes,
       sum(usage.duration_ns) AS duration_ns
FROM usage JOIN series USING (series) JOIN outcome ON outcome.code = usage.outcome
GROUP BY usage.\"window\", usage.series, usage.outcome;
";
