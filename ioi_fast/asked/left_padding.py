"""Padding in front of prompts, which a GPT-2 reads as text: found and refused.

Padding behind END is never read. In front it takes the first positions, so that every other token
of its prompt stands at a wrong one and attends to it: another prompt than was meant.
"""

from __future__ import annotations

from torch import Tensor

from ioi_fast.asked.prompt_fields import behind_end

# The end of text of GPT-2's own vocabulary, with which its prompts are padded.
GPT2_EOS = 50256
# How often a leading run may come about in tokens drawn at random and still be called padding.
_BY_CHANCE = 1e-3


def check_not_padded_in_front(
    name: str, tokens: Tensor, end: Tensor, eos: int | None = GPT2_EOS
) -> None:
    """Raises ValueError naming a prompt that is padded in front of its first token.

    Padding is one id that leads prompts of [N, T] tokens by runs of unlike length, none at all
    among them. Of the end of text that is enough. Any other id must stand nowhere else up to END
    and lead one prompt at least three times, and oftener than tokens drawn at random would: texts
    may begin with the same word, or with one word twice.
    """
    length_N = _leading_run(tokens, end)
    first_N = tokens[:, 0]
    likely = first_N[(length_N > 2) | (first_N == (-1 if eos is None else eos))]
    for padding in likely.unique().tolist():
        run_N = length_N.where(first_N == padding, 0)
        if int(run_N.min()) == int(run_N.max()):
            continue
        if padding == eos or _is_padding(padding, run_N, tokens, end):
            prompt, least = int(run_N.argmax()), int(run_N.argmin())
            raise ValueError(
                f"{name} must not be padded in front: prompt {prompt} begins with "
                f"{int(run_N[prompt])} times the id {padding}, prompt {least} with "
                f"{int(run_N[least]) or 'none'}. Padding stands behind END: pad on the right, and "
                "give every position without the padding"
            )


def _leading_run(tokens: Tensor, end: Tensor) -> Tensor:
    """How many times each prompt has its first id before another comes, [N]; 0 if none does."""
    inside = ~behind_end(tokens, end)
    length_N = ((tokens == tokens[:, :1]) & inside).long().cumprod(1).sum(1)
    return length_N.where(length_N <= end, 0)


def _is_padding(padding: int, run_N: Tensor, tokens: Tensor, end: Tensor) -> bool:
    """Whether runs of an id that some prompts begin with are nothing that texts would hold."""
    inside = ~behind_end(tokens, end)
    if int(((tokens == padding) & inside).sum()) > int(run_N.sum()):
        return False
    repeats = int(run_N.max()) - max(int(run_N.min()), 1)
    ids = tokens[inside].unique()
    by_chance = len(run_N) * len(ids) ** -float(repeats)
    if padding in (int(ids[0]), int(ids[-1])):  # as special tokens of a vocabulary are
        by_chance *= 2 / len(ids)
    return repeats > 1 and by_chance < _BY_CHANCE
