"""The paper's published figures by experiment, with what is accepted beside each of them.

Rows are named as their measures are printed, or for what they are of where a name has a head or a
role in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ioi_fast.ioi.verdicts import AmongHeads, Near, Published, Within

PUBLISHED: Mapping[str, Mapping[str, Published]] = {
    "F": {
        "logit difference F(M)": Near(3.56, 0.15),
        "accuracy": Near(0.993, 0.005),
        "probability of IO": Near(0.49, 0.03),
    },
    "E1": {
        "largest drops": AmongHeads("9.9, 9.6, 10.0"),
        "largest rises": AmongHeads("10.7, 11.10"),
    },
    "E2": {"attention from END to IO": Near(0.59, 0.05)},
    "E3": {
        "correlation of a name mover": Within("> 0.81", low=0.78),
        "correlation of a negative name mover": Within("negative", high=0.0),
    },
    "E4": {
        "copy score, all heads": Within("< 0.2", high=0.22),
        "negative, all heads": Within("0.12", high=0.16),
        "copy score of a name mover": Within("> 0.95", low=0.93),
        "negative copy score of a negative name mover": Within("0.98", low=0.94),
    },
    "E6": {"largest drops": AmongHeads("7.3, 7.9, 8.6, 8.10")},
    "E7": {
        "change of attention to IO": Within("falls", high=0.0),
        "change of attention to S1": Within("rises", low=0.0),
    },
    "E8": {"attention to S2": Near(0.51, 0.05)},
    "E9": {
        "F with token +1, position +1": Near(3.55, 0.35),
        "F with token +1, position -1": Near(-0.99, 0.35),
        "F with token +0, position +1": Near(2.45, 0.35),
        "F with token +0, position -1": Near(-1.96, 0.35),
        "F with token -1, position +1": Near(1.77, 0.35),
        "F with token -1, position -1": Near(-3.16, 0.35),
        "weight of the position signal": Near(2.31, 0.25),
        "weight of the token signal": Near(0.99, 0.2),
    },
    "E10": {"change of F": Near(0.01, 0.15)},
    "E11": {"largest drops": AmongHeads("0.1, 3.0, 5.5, 6.9")},
    "E12": {"largest drops": AmongHeads("5.9, 5.8, 0.10")},
    "E13": {},  # no head was found to matter
    "E14": {
        "share of the position signal": Within("≥ 0.88", low=0.75),
        "share of the token signal": Within("< 0.08", high=0.15),
    },
    "E15": {"largest drops": AmongHeads("4.11, 2.2")},
    "E16": {
        "change of F": Within("−0.05", low=-0.15, high=0.05),
        "heads of more than 2 % that grew": AmongHeads(
            "10.10, 10.6, 10.2, 10.1, 11.2, 9.7, 9.0, 11.9", least=7
        ),
    },
    "E17": {
        "previous token": AmongHeads("4.11, 2.2"),
        "induction": AmongHeads("5.5, 6.9"),
        "duplicate token": AmongHeads("3.0, 0.1"),
        "copying of what came next": AmongHeads("5.5, 6.9"),
    },
    "E19": {
        "F without MLP 0": Within("its sign turns", high=0.0),
        "F without all others": Near(-1.1, 0.7),
    },
    "E20": {
        "F(C)/F(M)": Within("0.87", low=0.75, high=1.1),
        "|F(M) − F(C)| of the naive circuit": Within("0.1", high=0.7),
    },
    "E21": {
        "random sets, mean": Within("0.45", low=0.2, high=0.7),
        "random sets, largest": Within("1.97", high=2.5),
        "greedy, largest": Within("3.09", low=2.5),
    },
    "E22": {
        "heads worth at least 1 % of F(M)": Within("26", low=24),
        "the least of them": Within("0.011", low=0.005),
    },
    "E24": {
        "logit difference as it is": Near(3.55, 0.3),
        "probability of IO as it is": Near(0.49, 0.06),
        "S above IO as it is": Near(0.007, 0.01),
        "logit difference with S once more": Near(3.64, 0.3),
        "probability of IO with S once more": Near(0.59, 0.06),
        "S above IO with S once more": Near(0.004, 0.011),
        "logit difference with IO once more": Near(1.23, 0.4),
        "probability of IO with IO once more": Near(0.36, 0.06),
        "S above IO with IO once more": Near(0.234, 0.07),
    },
}

# 100·F(C)/F(M) of GPT-2 small by template, with and without <|endoftext|> in front (auto-circuit's
# repetition of the released code).
_SHARES = {
    (False, "ABBA"): "86.49 80.72 83.32 91.42 75.28 81.17 61.94 57.41 84.04 79.22 84.04 89.66 "
    "76.80 81.14 72.38",
    (False, "BABA"): "115.65 110.64 114.99 123.69 142.08 124.64 101.44 108.35 132.28 135.30 98.98 "
    "119.48 144.59 112.72 100.47",
    (True, "ABBA"): "89.93 83.51 91.71 98.55 79.78 89.12 77.12 74.35 96.33 91.64 93.10 94.52 79.84 "
    "78.65 75.51",
    (True, "BABA"): "121.23 114.97 119.44 131.17 154.67 137.20 107.38 113.96 133.82 136.47 107.78 "
    "123.03 146.78 122.05 112.42",
}
_TOLERANCE = 0.01  # percentage points


def published_share(bos: bool, order: str, template: int) -> Near:
    """100·F(C)/F(M) of a form, which is met within a hundredth of a percentage point.

    >>> published_share(False, "ABBA", 0)
    Near(published=86.49, tolerance=0.01)
    """
    return Near(float(_SHARES[bos, order].split()[template]), _TOLERANCE)
