"""R and MOS against worked values of ITU-T G.107."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from homerd.wire import emodel


@pytest.mark.parametrize(
    ("r", "mos"),
    [(93.2, 4.409), (90, 4.339), (80, 4.024), (70, 3.597), (60, 3.100), (50, 2.575)],
)
def test_scores_are_those_of_the_standard(r, mos):
    assert emodel.mos(r) == pytest.approx(mos, abs=0.001)


@pytest.mark.parametrize(("r", "mos"), [(-5, 1.0), (0, 1.0), (3, 1.0), (100, 4.5), (120, 4.5)])
def test_scores_stay_within_their_scale(r, mos):
    assert emodel.mos(r) == mos


@pytest.mark.parametrize(
    ("one_way", "impairment"), [(0, 0), (150, 3.600), (200, 7.297), (300, 20.697)]
)
def test_delay_is_felt_more_above_the_knee(one_way, impairment):
    assert emodel.delay_impairment(one_way) == pytest.approx(impairment, abs=0.001)


@pytest.mark.parametrize(
    ("codec", "concealed", "loss", "impairment", "r", "mos"),
    [
        ("PCMU", True, 0, 0, 93.2, 4.409),
        ("pcma", True, 1, 3.640, 89.56, 4.328),
        ("G.711U", False, 1, 17.925, 75.275, 3.834),
        ("PCMA/8000", True, 5, 15.781, 77.419, 3.923),
        ("G729A", True, 2, 19.000, 74.2, 3.787),
    ],
)
def test_loss_costs_what_the_codec_cannot_conceal(codec, concealed, loss, impairment, r, mos):
    known = emodel.impairment(codec, concealed=concealed)
    assert emodel.loss_impairment(*known, loss) == pytest.approx(impairment, abs=0.001)
    told = emodel.r_factor(codec, loss, concealed=concealed)
    assert told == pytest.approx(r, abs=0.01)
    assert emodel.mos(told) == pytest.approx(mos, abs=0.001)


@pytest.mark.parametrize(
    ("codec", "concealed", "ie", "bpl"),
    [
        ("PCMU", True, 0, 25.1),
        ("PCMA", False, 0, 4.3),
        ("G729", True, 11, 19),
        ("G.723.1", True, 15, 16.1),
        ("GSM-EFR", True, 5, 10),
    ],
)
def test_codecs_have_the_values_of_g113(codec, concealed, ie, bpl):
    assert emodel.impairment(codec, concealed=concealed) == (ie, bpl)


def test_loss_in_bursts_costs_more():
    assert emodel.loss_impairment(0, 25.1, 5, burst_ratio=2) > emodel.loss_impairment(0, 25.1, 5)


def test_delay_and_loss_add_up():
    assert emodel.r_factor("PCMA", 1, 150) == pytest.approx(93.2 - 3.640 - 3.600, abs=0.001)


def test_quality_of_a_codec_without_known_impairment_is_not_guessed():
    assert emodel.r_factor("opus", 0) is None


def test_the_manual_has_these_numbers():
    text = (Path(__file__).parents[2] / "docs/parts/qos.yaml").read_text()
    rows = re.findall(
        r"^  \| (PCMA|G729) \| (\d+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M
    )
    assert len(rows) == 7
    for codec, loss, one_way, r, mos in rows:
        reckoned = emodel.r_factor(codec, int(loss), int(one_way))
        assert (f"{reckoned:.2f}", f"{emodel.mos(reckoned):.3f}") == (r, mos)
    for names, ie, bpl in re.findall(
        r"^  \| .*?\| (`.+?`) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M
    ):
        for name in re.findall(r"`([^`]+)`", names):
            assert emodel.impairment(name) == (float(ie), float(bpl)), name
    assert f"R = {emodel.BEST} - Id - Ie,eff" in text
    assert f"0.11 (d - {emodel.KNEE_MS})" in text
