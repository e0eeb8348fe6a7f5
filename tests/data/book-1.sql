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
    "window" INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series,
    epoch INTEGER NOT NULL REFERENCES epoch,
    admitted INTEGER NOT NULL,
    units INTEGER NOT NULL,
    PRIMARY KEY ("window", series, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage (
    "window" INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series,
    outcome INTEGER NOT NULL REFERENCES outcome,
    epoch INTEGER NOT NULL REFERENCES epoch,
    commands INTEGER NOT NULL,
    units INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    PRIMARY KEY ("window", series, outcome, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE seal (
    number INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL REFERENCES epoch,
    "window" INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL,
    sealed_at TEXT NOT NULL,
    UNIQUE (epoch, "window")
) STRICT;
CREATE TABLE unsealed (
    "window" INTEGER NOT NULL,
    epoch INTEGER NOT NULL REFERENCES epoch,
    PRIMARY KEY ("window", epoch)
) STRICT, WITHOUT ROWID;
CREATE VIEW usage_hourly AS
SELECT strftime('%Y-%m-%dT%H:00:00Z', usage."window" * 3600, 'unixepoch') AS window_start,
       series.department, series.subsystem, series.command, outcome.name AS outcome,
       sum(usage.commands) AS commands, sum(usage.units) AS units,
       sum(usage.request_bytes) AS request_bytes, sum(usage.response_bytes) AS response_bytes,
       sum(usage.duration_ns) AS duration_ns
FROM usage JOIN series USING (series) JOIN outcome ON outcome.code = usage.outcome
GROUP BY usage."window", usage.series, usage.outcome;
INSERT INTO outcome VALUES (1,'ok',0,'none'),(2,'client_error',0,'caller'),(3,'server_error',0,'upstream'),(4,'unreachable',0,'upstream'),(5,'upstream_failed',0,'upstream'),(6,'timeout',0,'upstream'),(7,'aborted',0,'caller'),(8,'interrupted',0,'us');
INSERT INTO outcome VALUES (101,'malformed',1,'caller'),(102,'unauthenticated',1,'caller'),(103,'misdirected',1,'caller'),(104,'unknown_command',1,'caller'),(105,'forbidden',1,'caller'),(106,'rate_limited',1,'caller'),(107,'too_many_concurrent',1,'caller'),(108,'quota_exceeded',1,'caller'),(109,'overloaded',1,'us'),(110,'ledger_unavailable',1,'us'),(111,'too_large',1,'caller');
INSERT INTO meta VALUES (1, 'gateway-1', '+08:00');
INSERT INTO epoch VALUES (1, 'gateway-1', 'boot', 41, '2026-10-01T00:00:00Z', '2026-10-01T02:10:00Z', '2026-10-01T02:10:00Z', 'clean');
INSERT INTO series VALUES (0, 'unknown', 'unknown', 'unknown'), (1, 'police', 'cameras', 'read');
INSERT INTO admission VALUES (497760, 1, 1, 7, 21), (497761, 1, 1, 2, 6), (497762, 1, 1, 1, 3);
INSERT INTO usage VALUES (497760, 1, 1, 1, 6, 18, 60, 600, 6000), (497760, 1, 7, 1, 1, 3, 1, 2, 3), (497761, 1, 1, 1, 2, 6, 20, 200, 2000), (497762, 1, 1, 1, 1, 3, 10, 100, 1000);
INSERT INTO unsealed VALUES (497762, 1);
INSERT INTO seal VALUES (1, 1, 497760, 3, '0000000000000000000000000000000000000000000000000000000000000000', 'a90cba8b611488bd435783cf82498b9feffdfb4219bb09bb2c3b66c35916b267', '2026-10-14T01:01:00Z');
INSERT INTO seal VALUES (2, 1, 497761, 2, 'a90cba8b611488bd435783cf82498b9feffdfb4219bb09bb2c3b66c35916b267', 'cf514c4d56bec526369f59803dd8baf92684fd0e25fecf6ff7a1113c9e5effee', '2026-10-14T02:01:00Z');
PRAGMA user_version = 1;
