//! The tables of the book and the views for finance. `docs/ledger.md` describes the columns.
//!
//! Guarantees: [`all_statements`] returns the complete schema of the present format. `schema_check` compares books with
//! it.

/// The newest format of the book, in its `user_version`.
pub(crate) const BOOK_FORMAT: u32 = 4;

/// Creates a book of format [`BOOK_FORMAT`], together with [`SCHEMA_ADDED_IN_4`] and [`SCHEMA_SEALS`].
pub(crate) const SCHEMA: &str = "
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    gateway TEXT NOT NULL,
    calendar_offset TEXT NOT NULL,
    head_number INTEGER NOT NULL DEFAULT 0,
    head_hash TEXT NOT NULL DEFAULT '',
    rolled_before INTEGER NOT NULL DEFAULT 0
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
    late INTEGER NOT NULL,
    commands INTEGER NOT NULL,
    units INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    PRIMARY KEY (\"window\", series, outcome, epoch, late)
) STRICT, WITHOUT ROWID;
CREATE TABLE in_flight (
    \"window\" INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series,
    epoch INTEGER NOT NULL REFERENCES epoch,
    commands INTEGER NOT NULL,
    units INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    PRIMARY KEY (\"window\", series, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE day_sum (
    day INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series,
    outcome INTEGER NOT NULL,
    commands INTEGER NOT NULL,
    units INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    PRIMARY KEY (day, series, outcome)
) STRICT, WITHOUT ROWID;
CREATE TABLE ever_sum (
    series INTEGER NOT NULL REFERENCES series,
    outcome INTEGER NOT NULL,
    commands INTEGER NOT NULL,
    units INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    PRIMARY KEY (series, outcome)
) STRICT, WITHOUT ROWID;
CREATE TABLE adjustment (
    number INTEGER PRIMARY KEY,
    department TEXT NOT NULL,
    subsystem TEXT,
    command TEXT,
    period TEXT NOT NULL,
    units INTEGER NOT NULL CHECK (units <> 0),
    reason TEXT NOT NULL,
    who TEXT NOT NULL,
    made_at TEXT NOT NULL
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
WHERE usage.\"window\" >= (SELECT rolled_before FROM meta)
GROUP BY usage.\"window\", usage.series, usage.outcome
UNION ALL
SELECT strftime('%Y-%m-%dT%H:00:00Z', day_sum.day * 3600, 'unixepoch'),
       series.department, series.subsystem, series.command, outcome.name,
       day_sum.commands, day_sum.units, day_sum.request_bytes, day_sum.response_bytes, day_sum.duration_ns
FROM day_sum JOIN series USING (series) JOIN outcome ON outcome.code = day_sum.outcome
WHERE day_sum.day < (SELECT rolled_before FROM meta);
CREATE VIEW in_flight_hourly AS
SELECT strftime('%Y-%m-%dT%H:00:00Z', in_flight.\"window\" * 3600, 'unixepoch') AS window_start,
       series.department, series.subsystem, series.command,
       sum(in_flight.commands) AS commands, sum(in_flight.units) AS units,
       sum(in_flight.request_bytes) AS request_bytes, sum(in_flight.response_bytes) AS response_bytes,
       sum(in_flight.duration_ns) AS duration_ns
FROM in_flight JOIN series USING (series)
GROUP BY in_flight.\"window\", in_flight.series;
";

/// The additions of format 4: waived units, and the names of departments.
pub(crate) const SCHEMA_ADDED_IN_4: &str = "
CREATE TABLE waived (
    \"window\" INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series,
    epoch INTEGER NOT NULL REFERENCES epoch,
    late INTEGER NOT NULL,
    commands INTEGER NOT NULL,
    units INTEGER NOT NULL,
    PRIMARY KEY (\"window\", series, epoch, late)
) STRICT, WITHOUT ROWID;
CREATE TABLE department_name (
    number INTEGER PRIMARY KEY,
    department TEXT NOT NULL,
    name TEXT NOT NULL,
    since TEXT NOT NULL
) STRICT;
";

/// The table of seals (the hash chain).
pub(crate) const SCHEMA_SEALS: &str = "
CREATE TABLE seal (
    number INTEGER PRIMARY KEY,
    format INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('hour', 'day', 'epoch', 'adjustment', 'migration')),
    epoch INTEGER REFERENCES epoch,
    \"window\" INTEGER,
    lines INTEGER NOT NULL,
    content TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL,
    sealed_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX seal_of_hour ON seal (epoch, \"window\") WHERE kind = 'hour';
CREATE UNIQUE INDEX seal_of_epoch ON seal (epoch) WHERE kind = 'epoch';
CREATE INDEX seal_of_window ON seal (\"window\", kind);
";

/// Returns the statements that create a book: one for each table, view and index.
pub(crate) fn all_statements() -> impl Iterator<Item = &'static str> {
    [SCHEMA, SCHEMA_ADDED_IN_4, SCHEMA_SEALS]
        .into_iter()
        .flat_map(|text| text.split(';'))
        .map(str::trim)
        .filter(|text| !text.is_empty())
}
