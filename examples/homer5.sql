-- Tables of the statistics and alarms that homer5.cfg writes, for SQLite.
CREATE TABLE IF NOT EXISTS alarm_config (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, startdate TEXT, stopdate TEXT, type TEXT NOT NULL UNIQUE,
    value INTEGER NOT NULL DEFAULT 0, notify INTEGER NOT NULL DEFAULT 0, email TEXT NOT NULL DEFAULT '',
    createdate TEXT, active INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE IF NOT EXISTS alarm_data (
    id INTEGER PRIMARY KEY, create_date TEXT NOT NULL, type TEXT NOT NULL DEFAULT '',
    total INTEGER NOT NULL DEFAULT 0, source_ip TEXT NOT NULL DEFAULT '0.0.0.0',
    description TEXT NOT NULL DEFAULT '', status INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE IF NOT EXISTS alarm_data_mem (
    id INTEGER PRIMARY KEY, create_date TEXT NOT NULL, type TEXT NOT NULL DEFAULT '',
    total INTEGER NOT NULL DEFAULT 0, source_ip TEXT NOT NULL DEFAULT '0.0.0.0',
    description TEXT NOT NULL DEFAULT '', status INTEGER NOT NULL DEFAULT 1, UNIQUE (type, source_ip)
);
CREATE TABLE IF NOT EXISTS stats_data (
    id INTEGER PRIMARY KEY, from_date TEXT NOT NULL, to_date TEXT NOT NULL, type TEXT NOT NULL DEFAULT '',
    total INTEGER NOT NULL, UNIQUE (from_date, to_date, type)
);
CREATE TABLE IF NOT EXISTS stats_ip (
    id INTEGER PRIMARY KEY, from_date TEXT NOT NULL, to_date TEXT NOT NULL, method TEXT NOT NULL,
    source_ip TEXT NOT NULL, total INTEGER NOT NULL, UNIQUE (from_date, to_date, method, source_ip)
);
CREATE TABLE IF NOT EXISTS stats_method (
    id INTEGER PRIMARY KEY, from_date TEXT NOT NULL, to_date TEXT NOT NULL, method TEXT NOT NULL,
    auth INTEGER NOT NULL DEFAULT 0, cseq TEXT NOT NULL DEFAULT '', totag INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL, UNIQUE (from_date, to_date, method, auth, totag, cseq)
);
CREATE TABLE IF NOT EXISTS stats_useragent (
    id INTEGER PRIMARY KEY, from_date TEXT NOT NULL, to_date TEXT NOT NULL, useragent TEXT NOT NULL,
    method TEXT NOT NULL, total INTEGER NOT NULL, UNIQUE (from_date, to_date, method, useragent)
);
