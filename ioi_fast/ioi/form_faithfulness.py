"""Faithfulness of GPT-2 small's circuit form by form, on the public prompt files: 60 figures.

With means over many prompts of one form, knock-outs leave no noise of a batch: the figures repeat
to a hundredth of a percentage point, which makes them the best single test of knock-outs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.prompt_files import load_prompts
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.ioi.circuits import published_circuit
from ioi_fast.ioi.evaluation import evaluate
from ioi_fast.ioi.published_figures import published_share
from ioi_fast.ioi.verdicts import is_gpt2_small, verdict
from ioi_fast.model.gpt2 import GPT2

ORDERS, TEMPLATES = ("ABBA", "BABA"), range(15)
_FILE = "ioi_{}_template_{}_prompts.json"


@dataclass(frozen=True, slots=True)
class FormShare:
    """One form: F(M), F(C) and 100·F(C)/F(M) beside the published figure."""

    order: str
    template: int
    bos: bool
    prompts: int
    model: float
    circuit: float
    published: float
    verdict: str  # "agrees", "differs" or "not applicable to this model"

    @property
    def percent(self) -> float:
        """100·F(C)/F(M), a ratio of means."""
        return 100 * self.circuit / self.model

    @property
    def form(self) -> str:
        """Such as "ABBA 3"."""
        return f"{self.order} {self.template}"


def form_files(folder: str | os.PathLike[str]) -> dict[tuple[str, int], Path]:
    """The prompt files of a folder by order and template; ValueError if there is none."""
    found = {
        (order, template): path
        for order in ORDERS
        for template in TEMPLATES
        if (path := Path(folder) / _FILE.format(order, template)).is_file()
    }
    if not found:
        raise ValueError(f"{folder} must hold files like {_FILE.format('ABBA', 0)}, got none")
    return found


def form_faithfulness(
    model: GPT2,
    folder: str | os.PathLike[str],
    per_form: int = 50,
    circuit: Circuit | None = None,
    **running: object,
) -> Iterator[FormShare]:
    """Each form of a folder of public prompt files, without <|endoftext|> in front and with it.

    The first `per_form` prompts of a file are evaluated, and the means are over their own new
    prompts. `running` goes to `ablate`. Raises ValueError naming a file that holds fewer, and as
    `load_prompts` does. Source: Wang et al. 2022, section 4; figures of auto-circuit.

    >>> for one in form_faithfulness(model, "prompts"):    # doctest: +SKIP
    ...     print(one.form, one.percent, one.published, one.verdict)
    """
    circuit = published_circuit() if circuit is None else circuit
    files = form_files(folder)
    for bos in (False, True):
        for (order, template), path in files.items():
            pairs = _first(load_prompts(path, model.tokenizer, prepend_bos=bos), per_form, path)
            found = evaluate(model, pairs, circuit, [[]], source="mean", **running).faithfulness
            published = published_share(bos, order, template)
            yield FormShare(
                order,
                template,
                bos,
                len(pairs),
                found.model,
                found.circuit,
                published.published,
                verdict(published.accepts(100 * found.share), is_gpt2_small(model)),
            )


def _first(pairs: PromptPairs, count: int, path: Path) -> PromptPairs:
    if len(pairs) < count:
        raise ValueError(f"{path} must hold at least {count} prompts, got {len(pairs)}")
    return pairs.select(slice(count))
