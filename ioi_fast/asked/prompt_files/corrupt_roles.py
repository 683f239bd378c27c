"""Where the roles of a clean prompt stand in its corrupt prompt, which has other words."""

from __future__ import annotations

from ioi_fast.asked.prompt_files.records import Record
from ioi_fast.model.tokenizer import TextCodec, plain_ids


def corrupt_roles(
    record: Record,
    clean: list[int],
    corrupt: list[int],
    tokenizer: TextCodec,
    roles: dict[str, int],
) -> dict[str, int]:
    """Role -> token position in the corrupt prompt, BOS not counted; `load_prompts` has the rule.

    Raises ValueError naming the record for a role that would stand before the prompt.
    """
    if len(clean) == len(corrupt):
        return roles
    if record.clean.count(" ") == record.corrupt.count(" "):
        old = _words(tokenizer, record.clean, clean)
        new = _words(tokenizer, record.corrupt, corrupt)
        if old is not None and new is not None:
            return {role: _same_word(role, roles, old, new) for role in roles}
    moved = {role: at + len(corrupt) - len(clean) for role, at in roles.items()}
    for role, at in moved.items():
        if at < 0:
            raise ValueError(
                f'{record.where}: "corrupt" has {len(corrupt)} tokens and "clean" {len(clean)}, so '
                f"{role} has no counterpart {len(clean) - 1 - roles[role]} tokens before the last"
            )
    return moved


def _words(tokenizer: TextCodec, text: str, ids: list[int]) -> list[int] | None:
    """Last token position of each word; None if the tokenizer does not cut at spaces."""
    first, *others = text.split(" ")
    pieces = [plain_ids(tokenizer, word) for word in (first, *(f" {word}" for word in others))]
    spelt = [token for piece in pieces for token in piece]
    front = len(spelt) - len(ids)  # a BOS that is written out stands before `ids`
    if spelt[front:] != ids:
        return None
    lasts, total = [], -front
    for piece in pieces:
        total += len(piece)
        lasts.append(total - 1)
    return lasts


def _same_word(role: str, roles: dict[str, int], old: list[int], new: list[int]) -> int:
    """Where a role's token goes, counted from the last token of its word."""
    base, _, step = role.rpartition("+")
    if step == "1" and roles.get(base) == roles[role] - 1:
        return _same_word(base, roles, old, new) + 1
    word = next(i for i, last in enumerate(old) if last >= roles[role])
    start = new[word - 1] + 1 if word else 0
    return max(start, new[word] - (old[word] - roles[role]))
