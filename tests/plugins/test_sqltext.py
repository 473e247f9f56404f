"""SQL of scripts, made fit for another store."""

from __future__ import annotations

import sqlite3

import pytest

from homerd_plugins._sqltext import MYSQL, POSTGRES, SQLITE, TextError, Translator


def keys(table: str) -> list[list[str]]:
    return [["id"], ["a", "b"]]


@pytest.mark.parametrize(
    ("text", "sqlite", "postgres"),
    [
        (
            "INSERT INTO `t` (a,b,n) VALUES ('x',5,1) ON DUPLICATE KEY UPDATE n=n+VALUES(n)",
            "INSERT INTO \"t\" (a, b, n) VALUES ('x', 5, 1) ON CONFLICT DO UPDATE SET n = t.n + excluded.n",
            "INSERT INTO \"t\" (a, b, n) VALUES ('x', 5, 1) ON CONFLICT(a, b) DO UPDATE SET n = t.n + excluded.n",
        ),
        (
            "INSERT INTO t (n) VALUES (1) ON DUPLICATE KEY UPDATE n=n+1",
            "INSERT INTO t (n) VALUES (1) ON CONFLICT DO UPDATE SET n = t.n + 1",
            "INSERT INTO t (n) VALUES (1)",
        ),
        (
            "INSERT IGNORE INTO t (a) VALUES (1)",
            "INSERT OR IGNORE INTO t (a) VALUES (1)",
            "INSERT INTO t (a) VALUES (1) ON CONFLICT DO NOTHING",
        ),
        (
            "REPLACE INTO t (id,a) VALUES (1,2)",
            "INSERT OR REPLACE INTO t (id, a) VALUES (1, 2)",
            "INSERT INTO t (id, a) VALUES (1, 2) ON CONFLICT(id) DO UPDATE SET a = excluded.a",
        ),
        (
            "INSERT DELAYED INTO t SET a=1, b='x';",
            "INSERT INTO t (a, b) VALUES (1, 'x')",
            "INSERT INTO t (a, b) VALUES (1, 'x')",
        ),
        ("TRUNCATE TABLE t", "DELETE FROM t", "TRUNCATE TABLE t"),
        (
            "SELECT FROM_UNIXTIME(5), UNIX_TIMESTAMP()",
            "SELECT DATETIME(5, 'unixepoch', 'localtime'), CAST(STRFTIME('%s', 'now') AS INTEGER)",
            "SELECT TO_TIMESTAMP(5), CAST(EXTRACT(EPOCH FROM CURRENT_TIMESTAMP) AS BIGINT)",
        ),
        (
            "DELETE FROM t WHERE d < DATE_SUB(NOW(), INTERVAL 10 DAY)",
            "DELETE FROM t WHERE d < DATETIME(DATETIME('now', 'localtime'), (-(10)) || ' days')",
            "DELETE FROM t WHERE d < (CURRENT_TIMESTAMP - INTERVAL '10 DAY')",
        ),
        (
            "DELETE FROM t WHERE d = UTC_DATE() - INTERVAL 1 WEEK",
            "DELETE FROM t WHERE d = DATE(DATE('now'), (-((1) * 7)) || ' days')",
            "DELETE FROM t WHERE d = CAST(CURRENT_TIMESTAMP AT TIME ZONE 'UTC' AS DATE) - INTERVAL '1 WEEK'",
        ),
        (
            "DELETE FROM t WHERE a=1 LIMIT 5",
            "DELETE FROM t WHERE rowid IN (SELECT rowid FROM t WHERE a = 1 LIMIT 5)",
            "DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE a = 1 LIMIT 5)",
        ),
        (
            "SELECT IF(a>1,'x',\"y\"), IFNULL(a,0), CONCAT(a,'-') FROM t LIMIT 5,10",
            "SELECT IIF(a > 1, 'x', 'y'), COALESCE(a, 0), a || '-' FROM t LIMIT 10 OFFSET 5",
            "SELECT CASE WHEN a > 1 THEN 'x' ELSE 'y' END, COALESCE(a, 0), a || '-' FROM t LIMIT 10 OFFSET 5",
        ),
        (
            "SELECT DATE_FORMAT(d,'%Y-%m-%d %H:%i') FROM t WHERE HOUR(d)=5",
            "SELECT STRFTIME('%Y-%m-%d %H:%M', d) FROM t WHERE CAST(STRFTIME('%H', d) AS INTEGER) = 5",
            "SELECT TO_CHAR(CAST(d AS TIMESTAMP), 'YYYY-MM-DD HH24:MI') FROM t"
            " WHERE CAST(EXTRACT(HOUR FROM CAST(d AS TIMESTAMP)) AS INT) = 5",
        ),
        ("SET NAMES utf8", "", ""),
    ],
)
def test_mysqls_ways_in_other_stores(text, sqlite, postgres):
    assert Translator(MYSQL, SQLITE, keys).fit(text) == sqlite
    assert Translator(MYSQL, POSTGRES, keys).fit(text) == postgres


def test_a_shape_is_translated_once_however_many_values_it_is_seen_with():
    translator = Translator(MYSQL, SQLITE)
    texts = [f"INSERT INTO t (a, d) VALUES ('v{n}', FROM_UNIXTIME({n}))" for n in range(500)]
    assert translator.fit(texts[7]) == (
        "INSERT INTO t (a, d) VALUES ('v7', DATETIME(7, 'unixepoch', 'localtime'))"
    )
    assert translator.fit(texts[499]).startswith(
        "INSERT INTO t (a, d) VALUES ('v499', DATETIME(499,"
    )
    for text in texts:
        translator.fit(text)
    assert translator.translated == 1


def test_a_format_is_part_of_the_shape():
    translator = Translator(MYSQL, POSTGRES)
    shown = [translator.fit(f"SELECT DATE_FORMAT(d,'{form}'),'%Y' FROM t") for form in ("%Y", "%m")]
    assert shown == [
        "SELECT TO_CHAR(CAST(d AS TIMESTAMP), 'YYYY'), '%Y' FROM t",
        "SELECT TO_CHAR(CAST(d AS TIMESTAMP), 'MM'), '%Y' FROM t",
    ]


@pytest.mark.parametrize("target", [SQLITE, POSTGRES])
@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r"O\'Neil", "O'Neil"),
        ("O''Neil", "O'Neil"),
        (r"a\\", "a\\"),
        (r"a\\\' OR 1=1 -- ", "a\\' OR 1=1 -- "),
        (r"say \"x\"", 'say "x"'),
        ("100%", "100%"),
        ("hm0lit", "hm0lit"),
        ("?", "?"),
    ],
)
def test_a_literal_keeps_its_value_whatever_is_in_it(target, written, value):
    text = Translator(MYSQL, target).fit(f"SELECT '{written}', NOW()")
    assert text.startswith("SELECT '" + value.replace("'", "''") + "', ")


@pytest.mark.parametrize("source", [SQLITE, POSTGRES])
def test_a_script_that_speaks_the_stores_own_sql_is_left_as_it_is(source):
    translator = Translator(source, source)
    text = "insert into \"T\" values ('a', 'C:\\dir', x'00', 5, e.\"n\") -- it's"
    assert translator.fit(text + " ;") == text
    assert translator.translated == 0


def test_mysqls_text_is_seen_behind_an_address_that_was_changed():
    translator = Translator(SQLITE, SQLITE)
    assert translator.fit("INSERT IGNORE INTO t VALUES (1)") == "INSERT OR IGNORE INTO t VALUES (1)"


def test_what_cannot_be_read_goes_as_it_is_and_is_not_tried_for_each_value():
    translator = Translator(MYSQL, SQLITE)
    for n in range(10):
        assert translator.fit(f"FROB THE (KNOB '{n}'") == f"FROB THE (KNOB '{n}'"
    assert (translator.translated, translator.untranslated) == (1, 1)


def test_shapes_are_forgotten_rather_than_kept_without_bound():
    translator = Translator(SQLITE, SQLITE)
    for n in range(2500):
        translator.fit(f"insert into t_{n} values (1)")
    assert len(translator._shapes) <= 1000


def test_a_quote_that_is_never_closed_is_an_error():
    with pytest.raises(TextError, match="a quote is never closed: 'a"):
        Translator(MYSQL, SQLITE).fit("SELECT 'a")


def test_bytes_that_are_no_utf8_become_replacement_characters():
    assert Translator(SQLITE, SQLITE).fit("SELECT 'a\udcff'") == "SELECT 'a\ufffd'"


def test_sqlite_carries_out_what_it_is_given():
    store = sqlite3.connect(":memory:")
    translator = Translator(MYSQL, SQLITE)
    for text in (
        "CREATE TABLE `t` (`id` int(11) NOT NULL AUTO_INCREMENT, `k` varchar(20), `n` int DEFAULT '0',"
        " `d` datetime, PRIMARY KEY (`id`), UNIQUE KEY `k` (`k`), KEY `n` (`n`)) ENGINE=InnoDB",
        "INSERT INTO t (k,n,d) VALUES ('x',1,'2020-03-01 12:00:00') ON DUPLICATE KEY UPDATE n=n+1",
        "INSERT INTO t (k,n,d) VALUES ('x',1,NOW()) ON DUPLICATE KEY UPDATE n=n+VALUES(n)",
        "INSERT INTO t (k,n,d) SELECT 'y', UNIX_TIMESTAMP(FROM_UNIXTIME(1000)), '2020-01-01' FROM t WHERE k='x'",
    ):
        store.execute(translator.fit(text))
    query = "SELECT k, n, DATE_ADD(d, INTERVAL 1 MONTH), DATE_SUB(d, INTERVAL 90 MINUTE) FROM t ORDER BY k"
    assert store.execute(translator.fit(query)).fetchall() == [
        ("x", 2, "2020-04-01 12:00:00", "2020-03-01 10:30:00"),
        ("y", 1000, "2020-02-01 00:00:00", "2019-12-31 22:30:00"),
    ]
