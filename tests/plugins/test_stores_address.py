"""Addresses of databases: what is wrong with one is said, and nothing of it shown."""

from __future__ import annotations

import re

import pytest

from homerd_plugins._stores import Address

FORM = "driver://user:password@host:port/database"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysq://a:secret@h/d", 'there is no store for mysq: did you mean "mysql"?'),
        ("oracle://a:secret@h/d", "there is no store for oracle: use sqlite, postgres or mysql"),
        ("mysql://a:secret@h:port/d", f"the port is no number: expected {FORM}"),
        ("mysql://a:secret@[::1]:port/d", f"the port is no number: expected {FORM}"),
        ("mysql://a:secret@h", f"no database is named: expected {FORM}"),
        ("postgres://a:sec/ret@h/", f"no database is named: expected {FORM}"),
        ("mysql://a:secret", f"no database is named: expected {FORM}"),
        ("/var/lib/homer.db", f"expected sqlite://PATH or {FORM}"),
    ],
)
def test_an_address_that_means_no_store_is_refused_with_its_fault(url, said):
    with pytest.raises(ValueError, match=re.escape(said)) as fault:
        Address.of(url)
    assert "secret" not in str(fault.value)
