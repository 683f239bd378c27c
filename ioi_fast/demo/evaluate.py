"""How well a model does Indirect Object Identification, form by form, on what the bundled model
never saw in training.

Works with any callable tokens [N, T] -> logits [N, T, V]: `ioi_fast.GPT2`, or transformers' model
behind a lambda.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ioi_fast.demo.stories import HELD_OUT_TEMPLATES, held_out_ios
from ioi_fast.ioi.dataset import abc_records, pair_records
from ioi_fast.ioi.records import IOIPrompt, sample_records
from ioi_fast.ioi.templates import FORM_SETS, TEMPLATES, form_name
from ioi_fast.ioi.words import NAMES
from ioi_fast.prompts import PromptPairs
from ioi_fast.tokenizer import TextCodec

LogitsModel = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Score:
    """Figures over n prompts; `accuracy` is the share with a positive logit difference.

    `logit_diff` is the mean of logit[IO] - logit[S] at END and `stderr` its standard error,
    `probability` the mean probability of IO, `top1` the share of prompts whose most likely token is
    IO.
    """

    n: int
    accuracy: float
    logit_diff: float
    stderr: float
    probability: float
    top1: float


def end_logits(model: LogitsModel, pairs: PromptPairs, batch: int = 128) -> Tensor:
    """Logits [N, V] at END of the original prompts, float32."""
    rows = []
    with torch.no_grad():
        for start in range(0, len(pairs), batch):
            tokens = pairs.orig[start : start + batch]
            at = pairs.end[start : start + batch]
            rows.append(model(tokens)[torch.arange(len(tokens)), at].float())
    return torch.cat(rows)


def score(model: LogitsModel, pairs: PromptPairs) -> Score:
    """Accuracy, logit difference and probability on some prompts.

    Raises ValueError if a logit that is read is not finite.

    Example:
        >>> score(ioi_fast.load("demo"), pairs).accuracy
        1.0
    """
    logits = end_logits(model, pairs)
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("model gave logits that are not finite")
    rows = torch.arange(len(pairs))
    difference = (logits[rows, pairs.answers] - logits[rows, pairs.wrong_answers]).double()
    spread = float(difference.std()) if len(pairs) > 1 else 0.0
    return Score(
        n=len(pairs),
        accuracy=float((difference > 0).double().mean()),
        logit_diff=float(difference.mean()),
        stderr=spread / len(pairs) ** 0.5,
        probability=float(logits.softmax(-1)[rows, pairs.answers].double().mean()),
        top1=float((logits.argmax(-1) == pairs.answers).double().mean()),
    )


def held_out_records(n: int, seed: int, form: int) -> list[IOIPrompt]:
    """Prompts of one form whose IO never was the IO of that S in training."""
    held_out = {s: sorted(ios) for s, ios in held_out_ios().items()}
    rng = random.Random(f"held-out prompts {seed} {form}")
    records = []
    for record in sample_records(n, seed, [form]):
        s = rng.choice(NAMES)
        records.append(replace(record, io=rng.choice(held_out[s]), s1=s, s2=s))
    return records


def form_table(
    model: LogitsModel, tokenizer: TextCodec, per_form: int = 200, seed: int = 0
) -> dict[int, Score]:
    """Score of each of the thirty forms on held-out name pairs."""
    table = {}
    for form in FORM_SETS["all30"]:
        records = held_out_records(per_form, seed, form)
        pairs = pair_records(tokenizer, records, abc_records(records, seed))
        table[form] = score(model, pairs)
    return table


def is_held_out(form: int) -> bool:
    """Whether no prompt of the form's template was in the training data."""
    return form % len(TEMPLATES) in HELD_OUT_TEMPLATES


def render_table(table: dict[int, Score]) -> str:
    """The table by form in Markdown."""
    lines = [
        "| form | template | accuracy | logit difference | ± | P(IO) | IO most likely |",
        "|---|---|---|---|---|---|---|",
    ]
    for form, found in table.items():
        kind = "held out" if is_held_out(form) else "trained"
        lines.append(
            f"| {form_name(form)} | {kind} | {found.accuracy:.1%} | {found.logit_diff:.2f} "
            f"| {found.stderr:.2f} | {found.probability:.2f} | {found.top1:.1%} |"
        )
    return "\n".join(lines)
