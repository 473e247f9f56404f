"""The rows by which homer-app finds the tables of Homer 7."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.errors import ConfigError, ScriptErrors
from homerd_plugins._homer7 import TYPES, table_of_type
from homerd_plugins._homer_app import MAPPINGS, correlation_of, fields_of, tell_homer_app

# As homer-app 7 makes it.
TABLE = """
CREATE TABLE mapping_schema (
    id serial PRIMARY KEY, guid uuid, profile varchar(100) NOT NULL, hepid int NOT NULL,
    hep_alias varchar(100), partid int NOT NULL, version int NOT NULL, retention int NOT NULL,
    partition_step int NOT NULL, create_index json, create_table text, correlation_mapping json,
    fields_mapping json, mapping_settings json, schema_mapping json, schema_settings json,
    create_date timestamptz NOT NULL DEFAULT current_timestamp)
"""


def test_every_table_that_is_written_has_a_row(postgres):
    postgres.rows(TABLE)
    made = tell_homer_app(postgres.url("postgres"))
    assert {table_of_type(number) for number in TYPES} <= set(made)
    found = postgres.rows(
        "SELECT hepid, profile, hep_alias, partid FROM mapping_schema ORDER BY 1, id"
    )
    assert found == [
        (*key, alias, 10) for key, alias in sorted(MAPPINGS.items(), key=lambda each: each[0][0])
    ]
    ids = postgres.rows(
        "SELECT DISTINCT field->>'id' FROM mapping_schema, json_array_elements(fields_mapping) AS field"
        " WHERE hepid = 1 AND profile = 'call'"
    )
    assert {("sid",), ("data_header.callid",), ("protocol_header.srcIp",), ("raw",)} <= set(ids)


def test_a_second_time_adds_nothing_and_an_edited_row_stays(postgres):
    postgres.rows(TABLE)
    postgres.rows(
        "INSERT INTO mapping_schema (profile, hepid, partid, version, retention, partition_step,"
        " fields_mapping) VALUES ('call', 1, 10, 7, 1, 1, '[]')"
    )
    assert "hep_proto_1_call" not in tell_homer_app(postgres.url("postgres"))
    assert tell_homer_app(postgres.url("postgres")) == []
    assert postgres.rows(
        "SELECT version, fields_mapping FROM mapping_schema WHERE hepid = 1 AND profile = 'call'"
    ) == [(7, [])]


@pytest.mark.parametrize("number", [1, 5, 54, 100])
def test_fields_have_what_homer_app_reads(number):
    fields = fields_of(number)
    assert [field["position"] for field in fields] == list(range(1, len(fields) + 1))
    assert len({field["id"] for field in fields}) == len(fields)
    for field in fields:
        assert {"id", "name", "type", "index", "form_type", "hide"} <= field.keys()
    json.dumps(fields)


def test_a_call_leads_to_its_logs_reports_and_other_legs():
    found = correlation_of(1, "call")
    assert [(each["lookup_id"], each["lookup_field"]) for each in found] == [
        (100, "sid"),
        (5, "sid"),
        (35, "sid"),
        (1, "sid"),
        (1, "data_header->>'callid'"),
    ]


def test_what_cannot_be_told_says_what_would_help(postgres):
    with pytest.raises(ConfigError, match=r"no table mapping_schema in .*-create-table-db-config"):
        tell_homer_app(postgres.url("postgres"))
    with pytest.raises(
        ConfigError, match=r"homer_app_db: .*password authentication failed"
    ) as away:
        tell_homer_app(postgres.url("postgres", password="wrong"))
    assert "\n" not in str(away.value)


def script(extra: str) -> str:
    return (
        'loadmodule "sipcapture"\nmodparam("sipcapture", "capture_on", 1)\n'
        f"{extra}\nrequest_route {{ sip_capture(); drop; }}\n"
    )


def test_the_daemon_tells_it_when_it_starts(postgres):
    postgres.rows(TABLE)
    url = postgres.url("postgres")
    text = script(
        f'modparam("sipcapture", "schema", "homer7")\nmodparam("sipcapture", "db_url", "{url}")\n'
        f'modparam("sipcapture", "homer_app_db", "{url}")'
    )
    worker = Worker(load(Path("test.cfg"), text=text))
    worker.start()
    end = time.monotonic() + 30
    while postgres.rows("SELECT count(*) FROM mapping_schema") != [(len(MAPPINGS),)]:
        assert time.monotonic() < end
        time.sleep(0.02)
    worker.stop()


@pytest.mark.parametrize("url", ["mysql://h/homer_config", "homer_config"])
def test_another_store_is_refused_by_check(url):
    with pytest.raises(ScriptErrors) as refused:
        load(Path("test.cfg"), text=script(f'modparam("sipcapture", "homer_app_db", "{url}")'))
    assert "homer_app_db: expected" in refused.value.diagnostics[0].message
