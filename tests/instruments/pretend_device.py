"""GPUs that are none: tensors that say they are on one and refuse to meet others.

They lie in the host's memory, so that Triton's interpreter runs on them, and obey a GPU's rules:
operands are together on it, but for numbers and for indices from the host. Where none is named,
"cuda", it is the first, which is torch's current one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

DEVICE, SECOND = torch.device("cuda:0"), torch.device("cuda:1")
_INDEXED = ("__getitem__", "__setitem__")


class Apart(AssertionError):
    """Tensors of two devices in one operation."""


class Pretended(Tensor):
    """A tensor of a pretended device."""

    its_device = DEVICE

    @property
    def device(self) -> torch.device:
        return self.its_device

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})

    def numpy(self, **_: object):
        raise Apart("numpy reads the host's memory alone")


class _Factories(TorchFunctionMode):
    """Makes tensors on a pretended device where it is asked for."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


@contextmanager
def pretend_device() -> Iterator[torch.device]:
    """While it is open, there are other devices, of which it gives the first."""
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
    if name == "_has_compatible_shallow_copy_type":  # a module asks whether it may keep its own
        return False
    asked = kwargs.get("device")
    if name == "to" and args[1:] and isinstance(args[1], (str, torch.device)):
        # What stands behind it may say nothing: no type, or that nothing is waited for.
        more = [one for one in args[2:] if one is not None and not isinstance(one, bool)]
        asked, args = args[1], (args[0], *more)
    if name == "cpu":
        asked = "cpu"
    given = list(_tensors([args, kwargs]))
    device = next((tensor.device for tensor in given if isinstance(tensor, Pretended)), None)
    moves = name in ("to", "cpu", "copy_")
    if device is not None and not moves:
        _check(function, name, args, given)
    kwargs = {key: _mapped(value, on_host) for key, value in kwargs.items() if key != "device"}
    out = function(*_mapped(args, on_host), **kwargs)
    if asked is not None:
        asked = torch.device(asked)
        device = torch.device("cuda", asked.index or 0) if asked.type == DEVICE.type else None
    elif name == "copy_":
        device = args[0].device if isinstance(args[0], Pretended) else None
    return out if device is None else _mapped(out, lambda tensor: _placed(tensor, device))


def _placed(tensor: Tensor, device: torch.device) -> Pretended:
    placed = tensor.as_subclass(Pretended)
    placed.its_device = device
    return placed


def _check(function, name: str, args: tuple, given: list[Tensor]) -> None:
    if name in _INDEXED:
        if not isinstance(args[0], Pretended):
            raise Apart(f"{name}: a tensor on the host at indices from the device")
        # Indices may come from the host.
        given = [t for t in given if isinstance(t, Pretended)] + list(_tensors(args[2:]))
    strays = [list(t.shape) for t in given if not isinstance(t, Pretended) and t.dim()]
    if strays:
        raise Apart(f"{resolve_name(function) or name}: {strays} on the host, others on the device")
    devices = {str(t.device) for t in given if isinstance(t, Pretended)}
    if len(devices) > 1:
        raise Apart(f"{resolve_name(function) or name}: of {' and '.join(sorted(devices))}")
