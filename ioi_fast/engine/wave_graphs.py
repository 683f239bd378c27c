"""Waves of one shape after another: the first is run, the second captured, and later ones replayed.

On a GPU a captured wave is one launch (a CUDA graph) instead of hundreds, which is what small waves
wait for. What a graph reads stands in tensors of its own, which every wave of the shape is copied
into. They are kept with the model, so that calls that are alike share them. Unproven on a GPU, it
is off until IOI_FAST_CUDA_GRAPHS=1 asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ioi_fast.asked.receivers import Receiver
from ioi_fast.engine.both_runs import CellSites
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.wave import Wave
from ioi_fast.results.outcome import Advance

Received = dict[Receiver | None, Tensor]  # by receiver; None is the final residual
# Runs a wave that reads and writes tensors of its own, and says how to run it again.
Capture = Callable[[Callable[[], Received]], Callable[[], Received]]


MOST_GRAPHS = 4  # graphs that a model keeps at a time


@dataclass(frozen=True, slots=True, eq=False)
class _Captured:
    """A wave as it is replayed: all that it reads and how it runs, which live as long as this."""

    wave: Wave
    again: Callable[[], Received]
    layers: int

    def run(self, sites: CellSites, advance: Advance) -> Received:
        for own, given in zip(self.wave.sites.of_waves(), sites.of_waves(), strict=True):
            own.copy_(given)
        received = self.again()
        advance(self.layers)
        return received


@dataclass(slots=True, eq=False)
class WaveGraphs:
    """The waves of a model by shape; without `capture` every one of them just runs.

    What comes back of a replay is overwritten by the next one.
    """

    capture: Capture | None
    _seen: list[tuple] = field(default_factory=list)
    _captured: dict[tuple, _Captured] = field(default_factory=dict)

    @classmethod
    def of(cls, engine: Engine) -> WaveGraphs:
        """Those of a model on a backend, kept with its packed weights."""
        ops = engine.ops
        if ops.capture is None:
            return cls(None)
        return engine.model.made.packed.setdefault(("replays", ops.packing), cls(ops.capture))

    def run(self, wave: Wave, receivers: Sequence[Receiver] | None, advance: Advance) -> Received:
        """What a wave brings to its receivers, or to the final residual."""
        # Which cells a knock-out freezes is not of the shape.
        if self.capture is None or wave.sites.frozen_mlp:
            return _run(wave, receivers, advance)
        asked = None if receivers is None else tuple(receivers)
        cells = tuple(rows.shape for rows in wave.sites.of_waves())
        shape = (wave.between, asked, tuple(wave.variants), cells)
        if shape not in self._seen:
            self._seen = [*self._seen[1 - 4 * MOST_GRAPHS :], shape]
            return _run(wave, receivers, advance)
        if shape not in self._captured:
            while len(self._captured) >= MOST_GRAPHS:
                del self._captured[next(iter(self._captured))]
            self._captured[shape] = self._capture(wave, receivers)
        return self._captured[shape].run(wave.sites, advance)

    def _capture(self, wave: Wave, receivers: Sequence[Receiver] | None) -> _Captured:
        own = replace(wave, sites=wave.sites.copied())
        again = self.capture(lambda: _run(own, receivers, lambda _: None))
        return _Captured(own, again, len(own.layers(receivers)))


def _run(wave: Wave, receivers: Sequence[Receiver] | None, advance: Advance) -> Received:
    if receivers is None:
        return {None: wave.to_logits(advance)}
    return dict(wave.to_receivers(receivers, advance))
