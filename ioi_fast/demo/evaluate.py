"""How well a model does Indirect Object Identification, form by form, on what the bundled model
never saw in training.

Works with any callable tokens [N, T] -> logits [N, T, V]: `ioi_fast.GPT2`, or transformers' model
behind a lambda.
"""

from __future__ import annotations

import random
from dataclasses import replace

from ioi_fast.demo.stories import HELD_OUT_TEMPLATES, held_out_ios
from ioi_fast.ioi.behaviour import LogitsModel, Score, score
from ioi_fast.ioi.dataset import abc_records, pair_records
from ioi_fast.ioi.records import IOIPrompt, sample_records
from ioi_fast.ioi.templates import FORM_SETS, TEMPLATES, form_name
from ioi_fast.ioi.words import NAMES
from ioi_fast.tokenizer import TextCodec


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
