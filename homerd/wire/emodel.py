"""The E-model of ITU-T G.107 as far as a report allows it: R from loss and delay, MOS from R.

R = Ro - Is - Id - Ie,eff + A.  With every input at its default Ro - Is + A is 93.2 (G.107 table
3); what reports tell changes Id, the delay, and Ie,eff, codec and loss.  Sources: ITU-T G.107 B.4
(MOS), G.113 appendix I (codecs), Cole and Rosenbluth 2001 (the delay in two straight lines).
"""

from __future__ import annotations

BEST = 93.2
KNEE_MS = 177.3  # one-way delay above which people begin to talk into each other

# Equipment impairment Ie and robustness against loss Bpl, G.113 appendix I.
CODECS = {
    "PCMU": (0.0, 25.1),
    "PCMA": (0.0, 25.1),
    "G729": (11.0, 19.0),
    "G723": (15.0, 16.1),
    "GSM-EFR": (5.0, 10.0),
}
G711_WITHOUT_PLC = (0.0, 4.3)  # where lost packets are heard as silence

# How codecs are called besides their names in SDP.
_NAMES = {"G711U": "PCMU", "G711A": "PCMA", "G729A": "G729", "G729AB": "G729", "G7231": "G723"}


def impairment(codec: str, *, concealed: bool = True) -> tuple[float, float] | None:
    """(Ie, Bpl) of a codec by its name in SDP; None for one that G.113 has no values of.

    concealed: whether the receiver fills gaps, of G.711 alone.
    """
    name = codec.partition("/")[0].upper()
    name = _NAMES.get(name.replace(".", ""), name)
    if name in ("PCMU", "PCMA") and not concealed:
        return G711_WITHOUT_PLC
    return CODECS.get(name)


def delay_impairment(one_way_ms: float) -> float:
    """Id = 0.024 d + 0.11 (d - 177.3) where d > 177.3, d from mouth to ear."""
    return 0.024 * one_way_ms + 0.11 * max(one_way_ms - KNEE_MS, 0)


def loss_impairment(ie: float, bpl: float, loss_percent: float, burst_ratio: float = 1) -> float:
    """Ie,eff = Ie + (95 - Ie) * Ppl / (Ppl / BurstR + Bpl); BurstR is 1 for random loss."""
    return ie + (95 - ie) * loss_percent / (loss_percent / burst_ratio + bpl)


def r_factor(
    codec: str, loss_percent: float, one_way_ms: float = 0, *, concealed: bool = True
) -> float | None:
    """R of *codec* with random loss; None for one that G.113 has no values of."""
    known = impairment(codec, concealed=concealed)
    if known is None:
        return None
    return BEST - delay_impairment(one_way_ms) - loss_impairment(*known, loss_percent)


def mos(r: float) -> float:
    """The mean opinion score that stands for *r*, 1 to 4.5."""
    if r <= 0:
        return 1.0
    if r >= 100:
        return 4.5
    # The formula dips below 1 where R is less than 6.5.
    return max(1.0, 1 + 0.035 * r + 7e-6 * r * (r - 60) * (100 - r))
