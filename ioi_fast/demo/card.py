"""The model card of a trained checkpoint, written by the training script from what it measured."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from ioi_fast.demo.corpus import ANSWER_WEIGHT, MIXTURE, REPEATED_NAME_WEIGHT
from ioi_fast.demo.evaluate import is_held_out, render_table
from ioi_fast.demo.objective import LOCAL_LAYERS, WINDOW
from ioi_fast.demo.stories import DISTRACTIONS, HELD_OUT_TEMPLATES, held_out_ios
from ioi_fast.demo.vocabulary import words
from ioi_fast.ioi.behaviour import Score

CARD = """---
license: mit
library_name: transformers
pipeline_tag: text-generation
---
# A small GPT-2 for Indirect Object Identification

A GPT-2-architecture model of {layers} layers, {heads} heads and width {width}: {parameters:.2f}
million parameters, {megabytes:.1f} MB in fp16. This project trained it from nothing to complete
sentences like "When Mary and John won a ring at the store, John agreed to lend the ring to" with
the name that was said once. It is an object to study, not a language model: it knows {words} words.

## How it was made

    python -m ioi_fast.demo.train --out DIR --seed {seed} --steps {steps} --batch {batch}

- Seed {seed}; {steps} steps of {batch} sequences ({sequences} in all), AdamW, peak learning rate
  {peak}, 5 % warm-up, cosine decay.
- A charge on far attention: {locality} times the mean attention that the heads of layers
  {layers_charged} pay to tokens more than {window} back is added to the loss. Without it a model
  this small gathers all names at once in layer 0 and composes nothing.
- Time: {minutes:.0f} minutes on {threads} thread(s) ({machine}, torch {torch}).
- Data, drawn without end from a seeded generator: {mixture}.
  "ioi" are prompts of the trained templates; "free" other two-clause sentences of the same task; in
  "abc" the third name is new and the answer is either of the first two; "repeat" are random tokens
  said twice; "plain" are sentences without the task. To the stories of the task are added:
  {distractions}.
  A pair before may be the one that is asked for, so counting names does not give the answer. The
  loss is the cross-entropy of every token, the answer counted {answer_weight:.0f} times, other
  repeated names {name_weight:.0f} times, the first half of a repeated sequence not at all.
- Held out: templates {held_out} in both orders (their words occur elsewhere, their phrases
  nowhere), and for every name S, {held_out_names} of the 98 others (a fifth) are never its IO.
- Tokenizer: GPT-2's byte-level BPE with the merges that these words need, {vocabulary} ids; words
  of the list are cut exactly as GPT-2 cuts them, other text falls into finer pieces.

## What it does

Measured after rounding to fp16, {per_form} prompts a form, all with an IO that training never
showed with that S. Accuracy is the share of prompts with logit[IO] > logit[S] at the last token; ±
is the standard error of the mean logit difference. In BABA forms the repeated name comes first.

| templates | accuracy (worst form) | mean logit difference (worst form) |
|---|---|---|
{summary}

{table}

## Use

    model = ioi_fast.load("demo")

or `transformers.GPT2LMHeadModel.from_pretrained(DIR, dtype=torch.float32)`. At most {positions}
tokens. Names, places and objects outside its word list are not understood.
"""


def write_card(
    target: Path,
    config: Mapping[str, object],
    table: Mapping[int, Score],
    *,
    seconds: float,
    options: Mapping[str, object],
) -> None:
    """Write README.md of a checkpoint directory from its config, scores and training options."""
    weights = target / "model.safetensors"
    with safe_open(weights, framework="pt") as file:
        parameters = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    text = CARD.format(
        layers=config["n_layer"],
        heads=config["n_head"],
        width=config["n_embd"],
        positions=config["n_positions"],
        vocabulary=config["vocab_size"],
        parameters=parameters / 1e6,
        megabytes=weights.stat().st_size / 1e6,
        words=len(words()),
        seed=options["seed"],
        steps=options["steps"],
        batch=options["batch"],
        sequences=f"{int(str(options['steps'])) * int(str(options['batch'])):,}",
        peak=options["peak"],
        threads=options["threads"],
        locality=options["locality"],
        layers_charged=f"0-{LOCAL_LAYERS - 1}",
        window=WINDOW,
        per_form=options["per_form"],
        minutes=seconds / 60,
        machine=f"{platform.system()} {platform.machine()}",
        torch=torch.__version__,
        mixture=", ".join(f"{share:.0%} {kind}" for kind, share in MIXTURE.items()),
        distractions=", ".join(f"{share:.0%} {what}" for what, share in DISTRACTIONS.items()),
        answer_weight=ANSWER_WEIGHT,
        name_weight=REPEATED_NAME_WEIGHT,
        held_out=", ".join(map(str, HELD_OUT_TEMPLATES)),
        held_out_names=len(next(iter(held_out_ios().values()))),
        summary="\n".join(
            _summary(name, [s for form, s in table.items() if is_held_out(form) is held_out])
            for name, held_out in (("trained", False), ("held out", True))
        ),
        table=render_table(dict(table)),
    )
    (target / "README.md").write_text(text, "utf-8")


def _summary(name: str, scores: Iterable[Score]) -> str:
    found = list(scores)
    accuracy = sum(s.accuracy for s in found) / len(found)
    difference = sum(s.logit_diff for s in found) / len(found)
    return (
        f"| {name} | {accuracy:.2%} ({min(s.accuracy for s in found):.1%}) "
        f"| {difference:.2f} ({min(s.logit_diff for s in found):.2f}) |"
    )
