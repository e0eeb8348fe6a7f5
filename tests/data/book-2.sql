CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    gateway TEXT NOT NULL,
    calendar_offset TEXT NOT NULL,
    head_number INTEGER NOT NULL DEFAULT 0,
    head_hash TEXT NOT NULL DEFAULT '',
    rolled_before INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO meta VALUES(1,'gateway-1','+08:00',9,'8d48e7840e356d8e7df86a64b8517b2c57467f847d7611e26526f5a6a36d56d5',498784);
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
INSERT INTO epoch VALUES(1,'gateway-1','b464303a-8679-4d6d-9c7a-7a2a01318733',31283,'2026-11-24T03:10:00Z','2026-11-28T17:10:00Z','2026-11-28T17:10:00Z','process died');
INSERT INTO epoch VALUES(2,'gateway-1','b464303a-8679-4d6d-9c7a-7a2a01318733',31283,'2026-11-28T17:10:00Z','2026-11-28T18:10:00Z','2026-11-28T18:10:00Z','clean');
CREATE TABLE outcome (
    code INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    refused INTEGER NOT NULL,
    blame TEXT NOT NULL
) STRICT;
INSERT INTO outcome VALUES(1,'ok',0,'none');
INSERT INTO outcome VALUES(2,'client_error',0,'caller');
INSERT INTO outcome VALUES(3,'server_error',0,'upstream');
INSERT INTO outcome VALUES(4,'unreachable',0,'upstream');
INSERT INTO outcome VALUES(5,'upstream_failed',0,'upstream');
INSERT INTO outcome VALUES(6,'timeout',0,'upstream');
INSERT INTO outcome VALUES(7,'aborted',0,'caller');
INSERT INTO outcome VALUES(8,'interrupted',0,'us');
INSERT INTO outcome VALUES(101,'malformed',1,'caller');
INSERT INTO outcome VALUES(102,'unauthenticated',1,'caller');
INSERT INTO outcome VALUES(103,'misdirected',1,'caller');
INSERT INTO outcome VALUES(104,'unknown_command',1,'caller');
INSERT INTO outcome VALUES(105,'forbidden',1,'caller');
INSERT INTO outcome VALUES(106,'rate_limited',1,'caller');
INSERT INTO outcome VALUES(107,'too_many_concurrent',1,'caller');
INSERT INTO outcome VALUES(108,'quota_exceeded',1,'caller');
INSERT INTO outcome VALUES(109,'overloaded',1,'us');
INSERT INTO outcome VALUES(110,'ledger_unavailable',1,'us');
INSERT INTO outcome VALUES(111,'too_large',1,'caller');
CREATE TABLE series (
    series INTEGER PRIMARY KEY,
    department TEXT NOT NULL,
    subsystem TEXT NOT NULL,
    command TEXT NOT NULL,
    UNIQUE (department, subsystem, command)
) STRICT;
INSERT INTO series VALUES(0,'department-1','cameras','command-1');
CREATE TABLE admission (
    "window" INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series,
    epoch INTEGER NOT NULL REFERENCES epoch,
    admitted INTEGER NOT NULL,
    units INTEGER NOT NULL,
    PRIMARY KEY ("window", series, epoch)
) STRICT, WITHOUT ROWID;
INSERT INTO admission VALUES(498855,0,1,1,3);
INSERT INTO admission VALUES(498857,0,1,2,6);
INSERT INTO admission VALUES(498857,0,2,1,3);
INSERT INTO admission VALUES(498858,0,2,1,3);
CREATE TABLE usage (
    "window" INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series,
    outcome INTEGER NOT NULL REFERENCES outcome,
    epoch INTEGER NOT NULL REFERENCES epoch,
    late INTEGER NOT NULL,
    commands INTEGER NOT NULL,
    units INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    PRIMARY KEY ("window", series, outcome, epoch, late)
) STRICT, WITHOUT ROWID;
INSERT INTO usage VALUES(498857,0,1,1,2,1,3,0,0,7200000000000);
INSERT INTO usage VALUES(498857,0,1,2,0,1,3,0,0,0);
INSERT INTO usage VALUES(498857,0,6,1,0,1,3,0,0,0);
INSERT INTO usage VALUES(498857,0,7,1,0,1,3,0,0,0);
INSERT INTO usage VALUES(498858,0,1,2,0,1,3,0,0,0);
CREATE TABLE in_flight (
    "window" INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series,
    epoch INTEGER NOT NULL REFERENCES epoch,
    commands INTEGER NOT NULL,
    units INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    PRIMARY KEY ("window", series, epoch)
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
INSERT INTO day_sum VALUES(498736,0,0,2,6,0,0,0);
INSERT INTO day_sum VALUES(498736,0,1,2,6,0,0,0);
INSERT INTO day_sum VALUES(498736,0,105,2,0,0,0,0);
INSERT INTO day_sum VALUES(498760,0,0,1,3,0,0,0);
INSERT INTO day_sum VALUES(498760,0,1,1,3,0,0,0);
INSERT INTO day_sum VALUES(498760,0,105,1,0,0,0,0);
INSERT INTO day_sum VALUES(498832,0,0,1,3,0,0,0);
INSERT INTO day_sum VALUES(498856,0,0,3,9,0,0,0);
INSERT INTO day_sum VALUES(498856,0,1,2,6,0,0,7200000000000);
INSERT INTO day_sum VALUES(498856,0,6,1,3,0,0,0);
INSERT INTO day_sum VALUES(498856,0,7,1,3,0,0,0);
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
INSERT INTO ever_sum VALUES(0,0,7,21,0,0,0);
INSERT INTO ever_sum VALUES(0,1,5,15,0,0,7200000000000);
INSERT INTO ever_sum VALUES(0,6,1,3,0,0,0);
INSERT INTO ever_sum VALUES(0,7,1,3,0,0,0);
INSERT INTO ever_sum VALUES(0,105,3,0,0,0,0);
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
INSERT INTO adjustment VALUES(1,'department-1',NULL,NULL,'2026-11',-5,'a test','finance','2026-11-28T17:10:00Z');
CREATE TABLE seal (
    number INTEGER PRIMARY KEY,
    format INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('hour', 'day', 'adjustment', 'migration')),
    epoch INTEGER REFERENCES epoch,
    "window" INTEGER,
    lines INTEGER NOT NULL,
    content TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL,
    sealed_at TEXT NOT NULL
) STRICT;
INSERT INTO seal VALUES(1,2,'hour',1,498747,3,'7c1e7b7f0e0ac0b31ec783efb81fd8ec912d81ea2562e98cc57f87ab53cb7d33','0000000000000000000000000000000000000000000000000000000000000000','d8239ff81b2e9bcc8ae4e1e0d8d6e51a8293e2ab5207d9b804b031a55e331e33','2026-11-24T15:10:00Z');
INSERT INTO seal VALUES(2,2,'hour',1,498759,3,'7c1e7b7f0e0ac0b31ec783efb81fd8ec912d81ea2562e98cc57f87ab53cb7d33','d8239ff81b2e9bcc8ae4e1e0d8d6e51a8293e2ab5207d9b804b031a55e331e33','0797ddce03c5ca4b88f7eae3ca8ea2df608ba2e5a71e51874a2e5f2ccce8bcde','2026-11-25T03:10:00Z');
INSERT INTO seal VALUES(3,2,'hour',1,498771,3,'7c1e7b7f0e0ac0b31ec783efb81fd8ec912d81ea2562e98cc57f87ab53cb7d33','0797ddce03c5ca4b88f7eae3ca8ea2df608ba2e5a71e51874a2e5f2ccce8bcde','458390790dd0cc152099b96c76c839e4f1a82af8bd21be60632fe529adfe919d','2026-11-25T15:10:00Z');
INSERT INTO seal VALUES(4,2,'day',NULL,498736,5,'bbbe72a294b072e857bf0309a76390c5dcd5e3a9582696646d6d1644390d63ba','458390790dd0cc152099b96c76c839e4f1a82af8bd21be60632fe529adfe919d','9905fafa463b86a0eb8bbcd5b693b5212f5f1dec4e10f55d3dce1ca7cda3bc35','2026-11-28T15:10:00Z');
INSERT INTO seal VALUES(5,2,'day',NULL,498760,4,'65eb2271d64f5e4d93f3660aaf612fc26906cda050d30403f5ce9930cd6599cf','9905fafa463b86a0eb8bbcd5b693b5212f5f1dec4e10f55d3dce1ca7cda3bc35','5d50cc806ed520fea3201b74cef2a8fbc17a2ed11afdf628b89479635b550766','2026-11-28T15:10:00Z');
INSERT INTO seal VALUES(6,2,'hour',1,498855,1,'ceb5e1ab92b1eb03619defdf3c5bfc0aee6899092a76648cfbcdc86b3ef25022','5d50cc806ed520fea3201b74cef2a8fbc17a2ed11afdf628b89479635b550766','3536448bc3c2afcfef58da2d4660bec8d2d08b667e18d07d8402e3cb2c520bb9','2026-11-28T17:10:00Z');
INSERT INTO seal VALUES(7,2,'adjustment',NULL,NULL,1,'cc1f0ebd3e8fa43a556d00f2f88d8ae8d2896c0e51b32c1f8e9e030b5b0b6db0','3536448bc3c2afcfef58da2d4660bec8d2d08b667e18d07d8402e3cb2c520bb9','92360001b5d6d1b836dd124b06f5a12e0e2a0ffa167ad3f6c885faaa395036a8','2026-11-28T17:10:00Z');
INSERT INTO seal VALUES(8,2,'hour',1,498857,4,'e269587a731d3b7146ac4c554910e31b8f25e0601b93055a1950ae7f373411fb','92360001b5d6d1b836dd124b06f5a12e0e2a0ffa167ad3f6c885faaa395036a8','62e3a30beed3d8783b7ffeae617a1847f69a3e5603c471476595fd073e322754','2026-11-28T18:10:00Z');
INSERT INTO seal VALUES(9,2,'hour',2,498857,2,'d63ba835cf0b0cfc9f21a8dbf5d8e50fef425e3f57c22b1f79309e3b0df719da','62e3a30beed3d8783b7ffeae617a1847f69a3e5603c471476595fd073e322754','8d48e7840e356d8e7df86a64b8517b2c57467f847d7611e26526f5a6a36d56d5','2026-11-28T18:10:00Z');
CREATE TABLE unsealed (
    "window" INTEGER NOT NULL,
    epoch INTEGER NOT NULL REFERENCES epoch,
    PRIMARY KEY ("window", epoch)
) STRICT, WITHOUT ROWID;
INSERT INTO unsealed VALUES(498858,2);
CREATE UNIQUE INDEX seal_of_hour ON seal (epoch, "window") WHERE kind = 'hour';
CREATE INDEX seal_of_window ON seal ("window", kind);
CREATE VIEW usage_hourly AS
SELECT strftime('%Y-%m-%dT%H:00:00Z', usage."window" * 3600, 'unixepoch') AS window_start,
       series.department, series.subsystem, series.command, outcome.name AS outcome,
       sum(usage.commands) AS commands, sum(usage.units) AS units,
       sum(usage.request_bytes) AS request_bytes, sum(usage.response_bytes) AS response_bytes,
       sum(usage.duration_ns) AS duration_ns
FROM usage JOIN series USING (series) JOIN outcome ON outcome.code = usage.outcome
WHERE usage."window" >= (SELECT rolled_before FROM meta)
GROUP BY usage."window", usage.series, usage.outcome
UNION ALL
SELECT strftime('%Y-%m-%dT%H:00:00Z', day_sum.day * 3600, 'unixepoch'),
       series.department, series.subsystem, series.command, outcome.name,
       day_sum.commands, day_sum.units, day_sum.request_bytes, day_sum.response_bytes, day_sum.duration_ns
FROM day_sum JOIN series USING (series) JOIN outcome ON outcome.code = day_sum.outcome
WHERE day_sum.day < (SELECT rolled_before FROM meta);
CREATE VIEW in_flight_hourly AS
SELECT strftime('%Y-%m-%dT%H:00:00Z', in_flight."window" * 3600, 'unixepoch') AS window_start,
       series.department, series.subsystem, series.command,
       sum(in_flight.commands) AS commands, sum(in_flight.units) AS units,
       sum(in_flight.request_bytes) AS request_bytes, sum(in_flight.response_bytes) AS response_bytes,
       sum(in_flight.duration_ns) AS duration_ns
FROM in_flight JOIN series USING (series)
GROUP BY in_flight."window", in_flight.series;
PRAGMA user_version = 2;
