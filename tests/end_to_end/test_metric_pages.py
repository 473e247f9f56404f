"""Each page that Prometheus reads: no flood makes it grow without end, and promtool finds it in order."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import missing
from shipped import INVITE, OK, Shipped

from homerd.api import HttpRequest, render_metrics
from homerd.core import telemetry
from homerd.core.program import load
from homerd.core.worker import Worker
from homerd.wire.hep import Frame

BUDGET = 20
COUNT = 'prom_counter_inc("calls_total", 1, "$ua", $rm);'
DECLARED = "name=calls_total; label=ua:method; help=Calls."


def series(page, name):
    """Its lines, and the sum of their values."""
    found = re.findall(rf"^{name}(?:{{.*}})? ([0-9.]+)$", page, re.M)
    return len(found), sum(map(float, found))


def flooded(text, times=200):
    """A worker over a script, after so many INVITEs of as many user agents."""
    worker = Worker(load(Path("x.cfg"), text=text), deliver=False)
    worker.start()
    for number in range(times):
        payload = INVITE.replace(b"Phone, 1", b"x%d" % number)
        frame = Frame(3, 2, 17, b"\1\1\1\1", b"\2\2\2\2", 1, 2, 0, 0, 1, payload=payload)
        worker.engine.feed(frame)
    return worker


def page_of_prometheus(times=200):
    worker = flooded(
        'loadmodule "pv"\nloadmodule "prometheus"\n'
        f'modparam("prometheus", "prom_counter", "{DECLARED}")\n'
        f'modparam("prometheus", "max_series", {BUDGET})\nrequest_route {{ {COUNT} }}',
        times,
    )
    return telemetry.page(worker).body.decode(), "calls_total"


def page_of_xhttp_prom(times=200):
    modules = "".join(f'loadmodule "{name}"\n' for name in ("pv", "sl", "xhttp", "xhttp_prom"))
    worker = flooded(
        f'{modules}modparam("xhttp_prom", "prom_counter", "{DECLARED}")\n'
        f'modparam("xhttp_prom", "max_series", {BUDGET})\nrequest_route {{ {COUNT} }}\n'
        "event_route[xhttp:request] { prom_dispatch(); }",
        times,
    )
    ask = worker.program.registry.plugin("xhttp").answer
    ends = ((), b"", 2, b"\x7f\0\0\1", 4000, b"\x7f\0\0\1", 9060)
    return ask(HttpRequest("GET", "/metrics", *ends)).body.decode(), "kamailio_calls_total"


@pytest.mark.parametrize("page_of", [page_of_prometheus, page_of_xhttp_prom])
def test_the_budget_of_the_scripts_metrics_holds_and_loses_nothing(page_of):
    page, name = page_of()
    # one more: "other"
    assert series(page, name) == (BUDGET + 1, 200)
    assert f'{name}{{ua="other",method="other"}} {200 - BUDGET}' in page


@given(st.lists(st.binary(max_size=40), max_size=40))
def test_what_comes_adds_no_series_to_homerds_own(garbage):
    worker = Worker(load(Path("x.cfg"), text="request_route { drop; }"), deliver=False)
    worker.start()
    worker.engine.handle([(data, None) for data in garbage], None)
    names = [sample.name for sample in telemetry.own(worker)]
    # reasons and routes are of short lists
    assert all(names.count(name) <= 16 for name in names)
    worker.stop()


def checked(page):
    """What promtool says of a page."""
    if shutil.which("promtool") is None:
        missing("prometheus")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page.encode(), capture_output=True, timeout=60
    )
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("page_of", [page_of_prometheus, page_of_xhttp_prom])
def test_promtool_finds_the_page_in_order(page_of):
    assert checked(page_of(3)[0]) == (0, "")


def test_promtool_finds_the_page_of_every_switch_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = (
        "METHOD",
        "RESPONSE",
        "ERRORS",
        "KPI",
        "USERAGENT",
        "MALICIOUS",
        "PACKETS",
        "RTP",
        "RTCP",
    )
    run = Shipped("DO_PROMETHEUS", *(f"DO_METRIC_{block}" for block in blocks))
    run.feed(INVITE, OK, OK.replace(b"200", b"503"))
    run.feed(b'{"report_blocks":[{"ia_jitter":1}]}', type=5)
    run.worker.advance(60)
    page = telemetry.page(run.worker).body.decode()
    assert "homer_rtcp_jitter 1" in page
    assert checked(page) == (0, "")


def test_promtool_reads_the_page_of_heplify_and_only_dislikes_its_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Shipped("DO_METRIC_HEPLIFY")
    run.feed(INVITE, OK)
    samples = run.worker.program.registry.plugin("prometheus").metrics()
    status, said = checked(render_metrics(samples).decode())
    assert (status, said.splitlines()) == (
        3,
        ['heplify_method_response counter metrics should have "_total" suffix'],
    )
