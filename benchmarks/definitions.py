"""Where the literature defines an experiment in two ways, and how far apart the two are.

Writes docs/definitions.md from the bundled model: sizes are of that model and these prompts, and
say which choices matter, not what they would be elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ioi_fast import GPT2, Circuit, PromptPairs, ablate, ioi_prompts, load, path_patch
from ioi_fast.ioi.copying import copy_scores
from ioi_fast.ioi.repeats import repeat_scores, repeated_tokens

PAGE = Path(__file__).resolve().parent.parent / "docs" / "definitions.md"
PROMPTS = 64
MOVERS = ["1.6", "1.5", "1.2"]
_HEAD = """# Definitions that differ

Written by `python -P -m ioi_fast.benchmarks.definitions`: the size of a difference is the largest
over all heads of the bundled model, as a share of the largest figure of our definition, on {n}
prompts (mixed14, seed 0). It says which choices matter; on another model they have other sizes.

"""
_TAIL = """
Not measured here, since they are rules for choosing sets: minimality in the order of the released
code or of the printed table (`minimality_sets(order=)`), the greedy search that keeps what is worse
or the one that always adds (`greedy_search(rule=)`), one inserted sentence or two
(`adversarial(sentences=)`). F(C∖K) ablates K everywhere, F(M∖K) at the role position alone: this is
no choice but the definition of completeness. Published path patching freezes heads at q, k and v or
at z, which is the same; a mask of −1e5 or −∞, too. Where a library keeps a head at the union of its
positions over a batch, `Circuit` keeps it at each prompt's own, and at several roles where it is
given several. Where a form has prompts of several lengths, the released code also averages the
padding behind the shorter ones; `mean_by_form` leaves it out.

On random weights of GPT-2 small's shapes, `tests/test_transformer_lens_paths.py` and
`tests/test_transformer_lens_circuits.py` hold our side of this table against TransformerLens, and
`tests/test_published_code.py` against published code from a folder given by `--peer-path`.
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """A definition: what we do by default, what others do, and both results for every head."""

    what: str
    ours: str
    others: str
    measured: Callable[[GPT2, PromptPairs], tuple[Tensor, Tensor]]

    def size(self, model: GPT2, pairs: PromptPairs) -> float:
        """The largest difference as a share of the largest figure."""
        ours, others = (values.double() for values in self.measured(model, pairs))
        return float((ours - others).abs().max() / ours.abs().max())


def _paths(**other: object) -> Callable[[GPT2, PromptPairs], tuple[Tensor, Tensor]]:
    def measured(model: GPT2, pairs: PromptPairs) -> tuple[Tensor, Tensor]:
        return path_patch(model, pairs).effect, path_patch(model, pairs, **other).effect

    return measured


QUERIES = [f"{head}.q" for head in ("2.3", "2.5", "2.7")]
VALUES = [f"{head}.v" for head in ("3.7", "4.0", "5.5")]


def _positions(receivers: list[str], role: str) -> Callable:
    def measured(model: GPT2, pairs: PromptPairs) -> tuple[Tensor, Tensor]:
        at_role, everywhere = (
            path_patch(model, pairs, "heads", receivers, at).effect for at in (role, None)
        )
        return at_role, everywhere

    return measured


def _whole_layer(model: GPT2, pairs: PromptPairs) -> tuple[Tensor, Tensor]:
    every = [f"2.{head}.q" for head in range(model.config.n_head)]
    named, whole = (path_patch(model, pairs, "heads", one).effect for one in (QUERIES, every))
    return named, whole


def _new_prompts(model: GPT2, pairs: PromptPairs) -> tuple[Tensor, Tensor]:
    authors = ioi_prompts(model.tokenizer, len(pairs), 0, abc="authors")
    return path_patch(model, pairs).effect, path_patch(model, authors).effect


def _knock_out(model: GPT2, pairs: PromptPairs) -> tuple[Tensor, Tensor]:
    at_end, everywhere = (
        path_patch(
            model,
            pairs,
            knock_out={head: role for head in MOVERS},
            knock_out_source="mean_by_form",
        ).effect
        for role in ("END", "all")
    )
    return at_end, everywhere


def _source(other: str, base: object = "model") -> Callable:
    def measured(model: GPT2, pairs: PromptPairs) -> tuple[Tensor, Tensor]:
        layers, heads = model.config.n_layer, model.config.n_head
        every = [{f"{layer}.{head}": "END"} for layer in range(layers) for head in range(heads)]
        return tuple(
            ablate(model, pairs, every, source, base).effect for source in ("mean_by_form", other)
        )

    return measured


def _few_means(model: GPT2, pairs: PromptPairs) -> tuple[Tensor, Tensor]:
    """Means over many prompts, and over the evaluated batch's own."""
    many = ioi_prompts(model.tokenizer, 16 * len(pairs), 1)
    circuit = Circuit({head: "END" for head in MOVERS})
    return tuple(
        ablate(model, pairs, [{}], "mean_by_form", circuit, mean_pairs=means).base
        for means in (many, pairs)
    )


def _diagonal(model: GPT2, _: PromptPairs) -> tuple[Tensor, Tensor]:
    tokens = repeated_tokens(model, 16, model.config.n_positions // 2)
    return tuple(repeat_scores(model, tokens, rule).induction for rule in ("exact", "code"))


def _copies(model: GPT2, pairs: PromptPairs) -> tuple[Tensor, Tensor]:
    return tuple(copy_scores(model, pairs, context=one).copies for one in ("block0", "free"))


CHOICES = (
    Choice(
        "between sender and receiver",
        '`between="mlps"`: MLPs recomputed (the paper)',
        '`between="nothing"`: the write alone (edge patching)',
        _paths(between="nothing"),
    ),
    Choice(
        "position of queries",
        '`position="END"` (the paper)',
        "all positions (later implementations)",
        _positions(QUERIES, "END"),
    ),
    Choice(
        "position of values",
        '`position="IO"`: the token that is read (the paper)',
        "all positions (later implementations)",
        _positions(VALUES, "IO"),
    ),
    Choice(
        "receiving heads",
        "those that are named",
        "every head of their layers (an older implementation)",
        _whole_layer,
    ),
    Choice(
        "new prompts",
        '`abc="distinct"`: three distinct names outside the prompt',
        '`abc="authors"`: three chained flips',
        _new_prompts,
    ),
    Choice("knock-outs behind back-ups", "at END (the code)", "at all positions", _knock_out),
    Choice("means", '`source="mean_by_form"`', '`source="mean"`: over all forms', _source("mean")),
    Choice("ablation", '`source="mean_by_form"`', '`source="zero"`', _source("zero")),
    Choice(
        "prompts behind means, F(C) by prompt",
        "`mean_pairs` of 16 times as many",
        "the evaluated batch's own",
        _few_means,
    ),
    Choice("induction diagonal", "X entries", "X + 1 entries (the code)", _diagonal),
    Choice("copy scores", "after the first block", "of the token alone", _copies),
)


def lines() -> list[str]:
    """The table."""
    model = load("demo")
    pairs = ioi_prompts(model.tokenizer, PROMPTS, 0)
    found = ["| definition | here | elsewhere | difference |", "|---|---|---|---|"]
    for one in CHOICES:
        size = one.size(model, pairs)
        found.append(f"| {one.what} | {one.ours} | {one.others} | {size:.2g} |")
    return found


def main() -> int:
    """Writes the page."""
    PAGE.write_text(_HEAD.format(n=PROMPTS) + "\n".join(lines()) + "\n" + _TAIL)
    print(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
