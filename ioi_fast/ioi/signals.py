"""What tells movers where to look: the token signal and the position signal (paper section 3.2).

Heads are given what they had on prompts with one signal or the other turned; how much of the logit
difference goes says which signal they carry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.calls.activation_patch import activation_patch
from ioi_fast.ioi.evaluation import resampled_shares
from ioi_fast.ioi.roles import with_roles
from ioi_fast.ioi.variants import longer_prefix_prompts, signal_prompts
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.tokenizer import TextCodec

TOKENS, POSITIONS = (1, 0, -1), (1, -1)
Heads = Sequence[object]


@dataclass(frozen=True, slots=True, eq=False)
class SignalTable:
    """Logit difference of every prompt by the token signal (rows +1, 0, −1) and the position signal
    (columns +1, −1) of what the heads were given."""

    heads: tuple[str, ...]
    role: str
    values: Tensor  # [3, 2, N]
    base: Tensor  # [N]

    @property
    def mean(self) -> Tensor:
        """Means over prompts, [3, 2]."""
        return self.values.double().mean(-1)

    @property
    def stderr(self) -> Tensor:
        """Standard errors of the means, [3, 2]."""
        return self.values.double().std(-1) / self.values.shape[-1] ** 0.5

    @property
    def fit(self) -> LinearFit:
        """The two signals as a sum, by least squares."""
        return LinearFit.of(self.mean, float(self.base.double().mean()))

    @property
    def fit_stderr(self) -> tuple[float, float]:
        """Standard errors of the fit's weights of position and token, over prompts."""
        each = [LinearFit.of(own, 1.0) for own in self.values.double().unbind(-1)]
        weights = torch.tensor([[one.position, one.token] for one in each], dtype=torch.float64)
        position, token = (weights.std(0) / len(each) ** 0.5).tolist()
        return position, token

    def drop(self, token: int, position: int) -> float:
        """Share of the base that goes with these signals."""
        base = float(self.base.double().mean())
        row, column = TOKENS.index(token), POSITIONS.index(position)
        return (base - float(self.mean[row, column])) / base


@dataclass(frozen=True, slots=True)
class LinearFit:
    """F ≈ position·S_pos + token·S_tok without a constant, with S_pos = ±1, S_tok in {1, 0, −1}."""

    position: float
    token: float
    error: float  # mean |F − fit| over the six, as a share of the base

    @classmethod
    def of(cls, mean: Tensor, base: float) -> LinearFit:
        """From means [3, 2] by token and position."""
        token = torch.tensor(TOKENS, dtype=mean.dtype)[:, None].expand(3, 2)
        position = torch.tensor(POSITIONS, dtype=mean.dtype).expand(3, 2)
        a = float((mean * position).sum() / (position * position).sum())
        b = float((mean * token).sum() / (token * token).sum())
        missed = (mean - a * position - b * token).abs().mean()
        return cls(a, b, float(missed) / abs(base))


def signal_table(
    model: GPT2,
    tokenizer: TextCodec,
    heads: Heads,
    n: int = 200,
    seed: int = 0,
    role: str = "END",
    forms: str | Sequence[int] = "mixed14",
    prepend_bos: bool = False,
    **running: object,
) -> SignalTable:
    """Patches heads together at a role from six sets of prompts, everything after recomputed.

    `role` is "END" for what inhibits (experiment of figure 9), "S2" for the heads from which that
    comes, or such as "END-1". The set (+1, +1) is the original itself. `running` goes to
    `activation_patch`. Raises ValueError as that and `signal_prompts` do. Source: Wang et al. 2022,
    section 3.2.

    >>> signal_table(model, model.tokenizer, ["7.3", "7.9", "8.6", "8.10"]).fit    # doctest: +SKIP
    """
    values = torch.empty(3, 2, n, dtype=torch.float32, device="cpu")
    base = values.new_empty(n)
    for token, position in _signals():
        drawn = {"forms": forms, "prepend_bos": prepend_bos}
        pairs = signal_prompts(tokenizer, n, seed, token=token, position=position, **drawn)
        pairs = with_roles(pairs, [role])
        result = activation_patch(model, pairs, "z", role, [list(heads)], **running)
        row, column = TOKENS.index(token), POSITIONS.index(position)
        values[row, column] = result.base + result.values[0]
        base = result.base
    return SignalTable(tuple(map(str, heads)), role, values, base)


def _signals() -> Iterator[tuple[int, int]]:
    return ((token, position) for token in TOKENS for position in POSITIONS)


@dataclass(frozen=True, slots=True, eq=False)
class PrefixShift:
    """Logit difference of every prompt, and with heads from the same behind a longer opener."""

    base: Tensor  # [N]
    shifted: Tensor  # [N]

    @property
    def change(self) -> tuple[float, float]:
        """Mean change and its standard error."""
        difference = (self.shifted - self.base).double()
        return float(difference.mean()), float(difference.std() / len(difference) ** 0.5)


def prefix_shift(
    model: GPT2,
    tokenizer: TextCodec,
    heads: Heads,
    n: int = 200,
    seed: int = 0,
    forms: str | Sequence[int] = "mixed14",
    prepend_bos: bool = False,
    role: str = "END",
    **running: object,
) -> PrefixShift:
    """Whether heads carry absolute positions: they are given at a role what they had on prompts
    whose roles all stand later, at the same distances (section 3.2)."""
    pairs = with_roles(longer_prefix_prompts(tokenizer, n, seed, forms, prepend_bos), [role])
    result = activation_patch(model, pairs, "z", role, [list(heads)], **running)
    return PrefixShift(result.base, result.base + result.values[0])


def share_of_drop(origin: SignalTable, carrier: SignalTable, token: int, position: int) -> float:
    """How much of what carriers lose with some signals goes already when the heads behind them are
    given those (section 3.2: at least 88 % of the position signal, under 8 % of the token's)."""
    return origin.drop(token, position) / carrier.drop(token, position)


def share_stderr(
    origin: SignalTable, carrier: SignalTable, token: int, position: int, seed: int = 0
) -> float:
    """Standard error of `share_of_drop` by 1,000 resamples of the prompts, which both share."""
    row, column = TOKENS.index(token), POSITIONS.index(position)
    drops = [one.base.double() - one.values[row, column].double() for one in (origin, carrier)]
    return float(resampled_shares(*drops, seed).std())
