"""A second device that is none: tensors that say they are on a GPU and refuse to meet others.

They lie in the host's memory, so that Triton's interpreter runs on them, and obey a GPU's rules:
operands are together on it, but for numbers and for indices from the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

DEVICE = torch.device("cuda:0")
_INDEXED = ("__getitem__", "__setitem__")


class Apart(AssertionError):
    """Tensors of two devices in one operation."""


class Pretended(Tensor):
    """A tensor of the pretended device."""

    @property
    def device(self) -> torch.device:
        return DEVICE

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})

    def numpy(self, **_: object):
        raise Apart("numpy reads the host's memory alone")


class _Factories(TorchFunctionMode):
    """Makes tensors on the pretended device where it is asked for."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


@contextmanager
def pretend_device() -> Iterator[torch.device]:
    """While it is open, there is another device."""
    with _Factories():
        yield DEVICE


def on_host(value: object) -> object:
    """The tensor itself, without the pretence; anything else as it is."""
    with torch._C.DisableTorchFunction():
        return value.as_subclass(Tensor) if isinstance(value, Pretended) else value


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _mapped(value: object, change) -> object:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):  # named ones too, such as those of max
        return type(value)(_mapped(one, change) for one in value)
    return value


def _run(function, args: tuple, kwargs: dict) -> object:
    name = getattr(function, "__name__", "")
    asked = kwargs.get("device")
    if name == "to" and args[1:] and isinstance(args[1], (str, torch.device)):
        asked, args = args[1], (args[0], *args[2:])
    if name == "cpu":
        asked = "cpu"
    given = list(_tensors([args, kwargs]))
    here = any(isinstance(tensor, Pretended) for tensor in given)
    moves = name in ("to", "cpu", "copy_")
    if here and not moves:
        _check(function, name, args, given)
    kwargs = {key: _mapped(value, on_host) for key, value in kwargs.items() if key != "device"}
    out = function(*_mapped(args, on_host), **kwargs)
    if asked is not None:
        here = torch.device(asked).type == DEVICE.type
    elif name == "copy_":
        here = isinstance(args[0], Pretended)
    if not here:
        return out
    return _mapped(out, lambda tensor: tensor.as_subclass(Pretended))


def _check(function, name: str, args: tuple, given: list[Tensor]) -> None:
    if name in _INDEXED:
        if not isinstance(args[0], Pretended):
            raise Apart(f"{name}: a tensor on the host at indices from the device")
        given = list(_tensors(args[2:]))  # indices may come from the host
    strays = [list(t.shape) for t in given if not isinstance(t, Pretended) and t.dim()]
    if strays:
        raise Apart(f"{resolve_name(function) or name}: {strays} on the host, others on the device")
