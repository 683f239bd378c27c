"""Where the roles of a file stand in its clean prompts: as word_idxs says, else at the names.

Invariant: at IO, S1 and S2 stands the token whose logit is read, and every role is of one prompt
what it is of the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from ioi_fast.asked.prompt_files.json_records import ANSWERS, Record, shown
from ioi_fast.asked.prompt_files.whole_words import Stretch, whole_words
from ioi_fast.asked.prompts import END
from ioi_fast.tokenizer import TextCodec

# Roles whose token must be the answer or the wrong answer of the clean prompt.
_NAMED = {"IO": "answers", "S1": "wrong_answers", "S2": "wrong_answers"}
# The share of prompts in which a single answer may stand without being a name of theirs.
_BY_CHANCE = 1 / 8


class CleanPrompt:
    """One clean prompt: its record, its ids without BOS, and the ids of both answers."""

    def __init__(
        self, record: Record, ids: list[int], answers: Sequence[int], tokenizer: TextCodec
    ) -> None:
        self.record, self.ids, self.tokenizer = record, ids, tokenizer
        self.answers = dict(zip(ANSWERS, answers, strict=True))
        self._whole: dict[str, list[Stretch]] = {}

    @property
    def last(self) -> int:
        """Position of the last token."""
        return len(self.ids) - 1

    def standing(self, key: str) -> list[Stretch]:
        """Where the word of an answer stands, in whatever form."""
        if key not in self._whole:
            word = getattr(self.record, key)
            self._whole[key] = whole_words(self.tokenizer, self.ids, word, self.record.clean)
        return self._whole[key]

    def places(self, key: str) -> list[int]:
        """Positions of an answer; ValueError where its word stands as other tokens."""
        for stretch in self.standing(key):
            problem = self._other_form(key, stretch)
            if problem is not None:
                raise ValueError(f"{self.record.where}: {problem}")
        return [stretch.start for stretch in self.standing(key)]

    def misplaced(self, role: str, key: str, at: int) -> str | None:
        """Why a role at a position is not at its answer, None where it is."""
        for stretch in self.standing(key):
            if stretch.start == at:
                return self._other_form(key, stretch)
        there, wanted = shown(self.tokenizer.decode([self.ids[at]])), getattr(self.record, key)
        return f"word_idxs {role} is {at}, where the clean prompt has {there}, not {shown(wanted)}"

    def _other_form(self, key: str, stretch: Stretch) -> str | None:
        """Why the token whose logit is read is not the one that stands here, None where it is.

        Without its space, as at the start of a text, a name is the same name; an answer without
        the space that its name has in the prompt is another token than the one that is meant.
        """
        text, there = getattr(self.record, key), self.ids[stretch.start : stretch.stop]
        if len(there) > 1:
            pieces = shown([self.tokenizer.decode([token]) for token in there])
            return (
                f"{key}: {shown(text)} stands in the clean prompt as the {len(there)} tokens "
                f'{pieces}, and a role is one token (give "word_idxs" for positions of your own, '
                "{} for END alone)"
            )
        if there == [self.answers[key]] or text.startswith(" "):
            return None
        stands = shown(self.tokenizer.decode(there))
        otherwise = ""
        if not self._goes_on(key):
            otherwise = ' (if it is meant, give "word_idxs" without IO, S1 and S2)'
        return (
            f"{key}: {shown(text)} is another token than {stands}, which stands in the clean "
            f"prompt: write {stands}, as it stands there{otherwise}"
        )

    def _goes_on(self, key: str) -> bool:
        """Whether an answer would go on with the last word: "to" and "Mary", its space lost."""
        return self.record.clean[-1:].isalpha() and getattr(self.record, key)[:1].isalpha()

    def check_not_glued(self) -> None:
        """Raise ValueError for an answer whose space is lost: "to" and "Mary", where " Mary" stands
        in the prompt."""
        for key in filter(self._goes_on, ANSWERS):
            for stretch in self.standing(key):
                if stretch.stop - stretch.start == 1 and (why := self._other_form(key, stretch)):
                    raise ValueError(f"{self.record.where}: {why}")


def _names_are_meant(prompts: list[CleanPrompt]) -> bool:
    """Whether the answers are names that stand in the prompts, in one of them or in most.

    A single answer may stand in a prompt by chance, where most prompts of a file hold none of
    theirs: "The capital of Singapore is".
    """
    single = 0
    for prompt in prompts:
        io, s = (len(prompt.standing(key)) for key in ANSWERS)
        if io + s > 1:
            return True
        single += io + s
    return single > len(prompts) * _BY_CHANCE


def clean_roles(
    prompts: list[CleanPrompt], word_indices: dict[str, int] | None
) -> list[dict[str, int]]:
    """Role -> token position in each clean prompt, BOS not counted; ValueError names the record."""
    for prompt in prompts:
        prompt.check_not_glued()
    if word_indices is not None:
        for prompt in prompts:
            _check_given(prompt, word_indices)
        if END in word_indices:
            _check_end(prompts, word_indices[END])
            return [dict(word_indices) for _ in prompts]
        return [{**word_indices, END: prompt.last} for prompt in prompts]
    if not _names_are_meant(prompts):
        return [{END: prompt.last} for prompt in prompts]
    return [_found(prompt) for prompt in prompts]


def _found(prompt: CleanPrompt) -> dict[str, int]:
    """The roles of IOI, at the names."""
    record = prompt.record
    io, s = (prompt.places(key) for key in ANSWERS)
    if not io or len(s) < 2:
        raise ValueError(
            f"{record.where}: the clean prompt must hold the answer {shown(record.answers)} as a "
            f"word and the wrong answer {shown(record.wrong_answers)} twice, got {len(io)} and "
            f'{len(s)} (or give "word_idxs" for positions of your own, {{}} for END alone)'
        )
    return {"IO": io[0], "S1": s[0], "S1+1": s[0] + 1, "S2": s[-1], END: prompt.last}


def _check_given(prompt: CleanPrompt, given: dict[str, int]) -> None:
    """Raise ValueError naming the record unless word_idxs can be meant for this prompt."""
    problem = _misfit(prompt, given)
    if problem is None:
        return
    earlier = {role: index - 1 for role, index in given.items()}
    if _misfit(prompt, earlier) is None:
        problem += (
            ": counted with BOS? All of them fit one token earlier, and word_idxs must be counted "
            "without BOS: take 1 from each"
        )
    raise ValueError(f"{prompt.record.where}: {problem}")


def _misfit(prompt: CleanPrompt, given: dict[str, int]) -> str | None:
    """Why word_idxs can't be meant for this prompt, None where it can."""
    for role, index in given.items():
        if index > prompt.last:
            name = "end" if role == END else shown(role)[1:-1]
            return f'"clean" has {len(prompt.ids)} tokens, word_idxs {name} is {shown(index)}'
    for role, key in _NAMED.items():
        problem = prompt.misplaced(role, key, given[role]) if role in given else None
        if problem is not None:
            return problem
    return None


def _check_end(prompts: list[CleanPrompt], end: int) -> None:
    """One `end` serves prompts of one length; of others it would cut the longer ones short."""
    if len({prompt.last for prompt in prompts}) == 1:
        return
    for prompt in prompts:
        if prompt.last != end:
            raise ValueError(
                f'{prompt.record.where}: "clean" has {len(prompt.ids)} tokens, word_idxs end is '
                f"{end}, and other prompts have other lengths: leave end away, END is then the "
                "last token of each prompt"
            )
