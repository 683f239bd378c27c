"""Waves of one shape after another: the first is run, the second captured, and later ones replayed.

On a GPU a captured wave is one launch (a CUDA graph) instead of hundreds, which is what small waves
wait for. What a graph reads stands in tensors of its own, which every wave of the shape is copied
into. Nothing is kept beyond a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ioi_fast.clean_runs import CellSites
from ioi_fast.sites import Receiver
from ioi_fast.wave import Wave

Advance = Callable[[int], None]
Received = dict[Receiver | None, Tensor]  # by receiver; None is the final residual
# Runs a wave that reads and writes tensors of its own, and says how to run it again.
Capture = Callable[[Callable[[], Received]], Callable[[], Received]]


@dataclass(frozen=True, slots=True, eq=False)
class _Captured:
    """A wave as it is replayed: what it reads, how it runs, and how many layers that is."""

    inputs: CellSites
    again: Callable[[], Received]
    layers: int

    def run(self, sites: CellSites, advance: Advance) -> Received:
        for own, given in zip(self.inputs.of_waves(), sites.of_waves(), strict=True):
            own.copy_(given)
        received = self.again()
        advance(self.layers)
        return received


@dataclass(slots=True, eq=False)
class Replays:
    """The waves of a call by shape; without `capture` every one of them just runs.

    What comes back of a replay is overwritten by the next one.
    """

    capture: Capture | None
    _seen: set[tuple] = field(default_factory=set)
    _captured: dict[tuple, _Captured] = field(default_factory=dict)

    def run(self, wave: Wave, receivers: Sequence[Receiver] | None, advance: Advance) -> Received:
        """What a wave brings to its receivers, or to the final residual."""
        shape = (len(wave.sites.resid_mid[0]), tuple(one.index for one in wave.variants))
        # Which cells a knock-out freezes is not of the shape.
        if self.capture is None or wave.sites.frozen_mlp or shape not in self._seen:
            self._seen.add(shape)
            return _run(wave, receivers, advance)
        if shape not in self._captured:
            self._captured[shape] = self._capture(wave, receivers)
        return self._captured[shape].run(wave.sites, advance)

    def _capture(self, wave: Wave, receivers: Sequence[Receiver] | None) -> _Captured:
        own = replace(wave, sites=wave.sites.copied())
        again = self.capture(lambda: _run(own, receivers, lambda _: None))
        return _Captured(own.sites, again, len(own.layers(receivers)))


def _run(wave: Wave, receivers: Sequence[Receiver] | None, advance: Advance) -> Received:
    if receivers is None:
        return {None: wave.to_logits(advance)}
    return dict(wave.to_receivers(receivers, advance))
