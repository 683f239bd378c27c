"""How well a model does Indirect Object Identification, as it is and with a sentence in the way.

Works with any callable tokens [N, T] -> logits [N, T, V]: `ioi_fast.GPT2`, or transformers' model
behind a lambda.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.ioi.dataset import ioi_prompts
from ioi_fast.ioi.variants import adversarial_prompts
from ioi_fast.own_settings import own_settings
from ioi_fast.tokenizer import TextCodec

LogitsModel = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Score:
    """Figures over n prompts; `accuracy` is the share with a positive logit difference.

    `logit_diff` is the mean of logit[IO] - logit[S] at END and `stderr` its standard error,
    `probability` the mean probability of IO and `probability_stderr` its standard error, `top1` the
    share of prompts whose most likely token is IO.
    """

    n: int
    accuracy: float
    logit_diff: float
    stderr: float
    probability: float
    top1: float
    probability_stderr: float = 0.0

    @property
    def accuracy_stderr(self) -> float:
        """Standard error of `accuracy`, a share of n."""
        return (self.accuracy * (1 - self.accuracy) / self.n) ** 0.5


@own_settings()
def end_logits(model: LogitsModel, pairs: PromptPairs, batch: int = 128) -> Tensor:
    """Logits [N, V] at END of the original prompts, float32."""
    rows = []
    with torch.no_grad():
        for start in range(0, len(pairs), batch):
            tokens = pairs.orig[start : start + batch]
            at = pairs.end[start : start + batch]
            rows.append(model(tokens)[torch.arange(len(tokens)), at].float())
    return torch.cat(rows)


@own_settings()
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
    probability = logits.softmax(-1)[rows, pairs.answers].double()
    return Score(
        n=len(pairs),
        accuracy=float((difference > 0).double().mean()),
        logit_diff=float(difference.mean()),
        stderr=_stderr(difference),
        probability=float(probability.mean()),
        top1=float((logits.argmax(-1) == pairs.answers).double().mean()),
        probability_stderr=_stderr(probability),
    )


def _stderr(values: Tensor) -> float:
    """Of a mean; 0 of a single value."""
    return float(values.std()) / len(values) ** 0.5 if len(values) > 1 else 0.0


def adversarial(
    model: LogitsModel,
    tokenizer: TextCodec,
    n: int = 500,
    seed: int = 0,
    forms: str | Sequence[int] = "mixed14",
    prepend_bos: bool = False,
    sentences: int = 1,
) -> dict[str, Score]:
    """Scores on plain prompts, and with `sentences` about S or about IO between their clauses.

    Keys are "plain", "S" and "IO"; the three have the same originals. One sentence is what the
    paper shows, two are what its code inserts. Raises ValueError as `adversarial_prompts` does.
    Source: Wang et al. 2022, section 4.4.

    >>> adversarial(model, model.tokenizer)["IO"].logit_diff    # doctest: +SKIP
    """
    drawn = (tokenizer, n, seed, forms, prepend_bos)
    found = {"plain": score(model, ioi_prompts(*drawn))}
    for name in ("S", "IO"):
        found[name] = score(model, adversarial_prompts(*drawn, insert=name, sentences=sentences))
    return found
