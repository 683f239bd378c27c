"""What `PromptPairs` takes for each of its fields: checked, and copied as dense tensors on the CPU.

Every function raises TypeError or ValueError naming the field, what was expected and what came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from ioi_fast.outside.dense_tensors import why_not_dense

Integers = Tensor | numpy.ndarray | Sequence
END = "END"
# Words that stand for positions where a role could stand.
NO_ROLES = ("", "all", "auto", "each")


def read_integers(name: str, value: Integers) -> Tensor:
    """A contiguous int64 copy on the CPU; TypeError unless the value holds integers."""
    if isinstance(value, (list, tuple)) and not value:
        # Torch takes an empty list for floats.
        return torch.zeros(0, dtype=torch.int64, device="cpu")
    if isinstance(value, numpy.ndarray):
        value = numpy.array(value, order="C")  # torch takes no reversed views
    try:
        given = value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        came = type(value).__name__
        raise TypeError(
            f"{name} must hold integers of one shape, got a {came} that does not ({error})"
        ) from error
    if (other := why_not_dense(given)) is not None:
        raise TypeError(f"{name} must hold integers in a dense tensor, got {other}")
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        kind = str(given.dtype).removeprefix("torch.")
        raise TypeError(f"{name} must hold integers, got {kind} of shape {list(given.shape)}")
    if _has_bool(value):  # torch takes True among integers for 1
        raise TypeError(f"{name} must hold integers, got a bool among them")
    return given.detach().to("cpu", torch.int64, copy=True).contiguous()


def _has_bool(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_has_bool, value))
    return isinstance(value, bool)


def read_tokens(name: str, value: Integers) -> Tensor:
    """Ids [N, T] of at least one token."""
    if isinstance(value, (list, tuple)) and not value:
        raise ValueError(f"{name} must hold at least one prompt, got none")
    tokens = read_integers(name, value)
    if tokens.dim() != 2 or tokens.shape[0] < 1 or tokens.shape[1] < 1:
        raise ValueError(
            f"{name} must have shape [prompts, tokens], both at least 1, got {list(tokens.shape)}"
        )
    return tokens


def behind_end(tokens: Tensor, end: Tensor) -> Tensor:
    """What stands behind END, bool [N, T]."""
    return torch.arange(tokens.shape[1], device=end.device) > end[:, None]


def rows_of_fields(fields: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Prompts [N, T] and ends [N] of all fields below each other, -1 where a field is narrower."""
    width = max(tokens.shape[1] for tokens, _ in fields.values())
    rows = [functional.pad(t, (0, width - t.shape[1]), value=-1) for t, _ in fields.values()]
    return torch.cat(rows), torch.cat([end for _, end in fields.values()])


def checked_to_end(name: str, tokens: Tensor, end: Tensor) -> Tensor:
    """Tokens whose ids up to END are checked; negative padding, which no model takes, is 0."""
    behind = behind_end(tokens, end)
    _check_not_negative(name, tokens.masked_fill(behind, 0))
    return torch.where(behind, tokens.clamp(min=0), tokens).contiguous()


def read_ids(name: str, value: Integers, n: int) -> Tensor:
    """One integer for each of n prompts, none negative."""
    ids = read_integers(name, value)
    if ids.shape != (n,):
        raise ValueError(
            f"{name} must have one entry for each of {n} prompts, got shape {list(ids.shape)}"
        )
    _check_not_negative(name, ids)
    return ids


def _check_not_negative(name: str, ids: Tensor) -> None:
    if int(ids.min()) < 0:
        row = int((ids < 0).nonzero()[0, 0])
        what = "positions" if name.endswith("]") else "ids"
        least = int(ids.min())
        raise ValueError(f"{name} must hold {what} of at least 0, got {least} (prompt {row})")


def read_positions(
    name: str, value: Mapping[str, Integers], n: int, tokens: int
) -> dict[str, Tensor]:
    """Positions by role, each in 0..END of its own prompt."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of role -> positions, got {type(value).__name__}")
    if END not in value:
        raise ValueError(f'{name} must hold "END", got {sorted(map(str, value))}')
    roles: dict[str, Tensor] = {}
    for role, at in value.items():
        if not isinstance(role, str):
            raise TypeError(f"{name} must have strings as roles, got {role!r}")
        if role in NO_ROLES:
            raise ValueError(f"{name}: {role!r} can't be a role, it has a meaning of its own")
        roles[role] = read_ids(f'{name}["{role}"]', at, n)
    end = roles[END]
    if int(end.max()) >= tokens:
        row = int(end.argmax())
        raise ValueError(
            f'{name}["END"] must lie inside its prompt of {tokens} tokens, got {int(end[row])} '
            f"(prompt {row})"
        )
    for role, at in roles.items():
        if bool((at > end).any()):
            row = int((at > end).nonzero()[0, 0])
            raise ValueError(
                f'{name}["{role}"] must not lie behind END, got {int(at[row])} in prompt {row} '
                f"whose END is {int(end[row])}"
            )
    return roles


def same_roles(positions: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """new in the order of positions; ValueError unless both name the same roles."""
    if set(new) != set(positions):
        raise ValueError(
            f"new_positions must name the roles of positions {sorted(positions)}, got {sorted(new)}"
        )
    return {role: new[role] for role in positions}


def read_extra(value: object, n: int) -> dict[str, Tensor] | None:
    """Tensors with one row for each of n prompts, by name; numbers of a list become float32."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"extra must be a dict of name -> [{n}, …], got {type(value).__name__}")
    extra: dict[str, Tensor] = {}
    for name, given in value.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"extra must have texts as names, got {name!r}")
        rows = _dense(f"extra[{name!r}]", given)
        if rows.dim() < 1 or rows.shape[0] != n:
            raise ValueError(
                f"extra[{name!r}] must have one row for each of {n} prompts, got shape "
                f"{list(rows.shape)}"
            )
        extra[name] = rows
    return extra


def _dense(name: str, value: object) -> Tensor:
    """A contiguous copy on the CPU, in the value's own type."""
    if isinstance(value, numpy.ndarray):
        value = numpy.array(value, order="C")
    try:
        given = value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        came = type(value).__name__
        raise TypeError(f"{name} must be a tensor of numbers, got a {came} ({error})") from error
    if (other := why_not_dense(given)) is not None:
        raise TypeError(f"{name} must be a dense tensor, got {other}")
    if given.is_floating_point() and not isinstance(value, (Tensor, numpy.ndarray)):
        given = given.float()  # whatever this process makes of a list of floats
    return given.detach().to("cpu", copy=True).contiguous()
