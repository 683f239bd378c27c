"""What plans of path patches and of pair sweeps share: both runs, patched cells, totals.

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.blocks import PromptBlocks
from ioi_fast.plan.flops import run_flops
from ioi_fast.plan.path_variants import Knocked, PathPrompt


@dataclass(frozen=True, slots=True)
class LayerWork:
    """Rows and FLOPs of one layer: of the two runs, of the wave, and of what follows receivers."""

    layer: int
    orig_rows: int
    new_rows: int
    wave_rows: int
    after_rows: int
    flops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PathsPlan:
    """A plan whose first phase is a wave of senders, of whatever receivers follow.

    Subclasses say what their `variants` are, how far the new run is read (`new_until`), the work of
    a layer (`_layer`) and how many variants are read out of each prompt (`read_out`).
    """

    config: GPT2Config
    prompts: tuple[PathPrompt, ...]
    everywhere: bool  # whether every position is patched
    between: str
    vocabulary: int  # tensors of every logit at END that the metric takes, 0 for none
    knocked: tuple[Knocked, ...] = ()
    prompt_blocks: PromptBlocks
    peak_bytes: int | None = None  # of memory, where a budget has counted it

    @property
    def live(self) -> list[PathPrompt]:
        """Prompts in which a patch can matter."""
        return [prompt for prompt in self.prompts if prompt.live] if self.variants else []

    def patched(self, prompt: PathPrompt) -> range:
        """Patched cells of a prompt that can differ."""
        return range(prompt.first_changed if self.everywhere else prompt.at, prompt.at + 1)

    def cells(self, prompt: PathPrompt) -> int:
        """How many those are."""
        return len(self.patched(prompt))

    def after(self, prompt: PathPrompt) -> range:
        """Tokens of a prompt on which what follows the receivers is recomputed."""
        return range(prompt.first_changed if self.everywhere else prompt.at, prompt.end + 1)

    def layers(self) -> list[LayerWork]:
        """The work of each layer: every product that the definition makes unavoidable."""
        return [self._layer(layer) for layer in range(self.config.n_layer)]

    def runs(self, layer: int) -> tuple[int, int, int]:
        """Rows of the original and of the new run in a layer, and the FLOPs of both."""
        config, live, (until, mlp) = self.config, self.live, self.new_until
        orig_rows = sum(p.end + 1 for p in self.prompts)
        flops = run_flops(config, layer == config.n_layer - 1, orig_rows, len(self.prompts))
        new_rows = sum(p.new_rows for p in live) if layer <= until else 0
        if new_rows:
            at_end = layer == until and not self.everywhere
            flops += run_flops(config, at_end, new_rows, len(live), layer < until or bool(mlp))
        return orig_rows, new_rows, flops

    @property
    def readout_flops(self) -> int:
        """Final LayerNorm to logits: one direction a row, or the whole vocabulary at END."""
        rows = self.read_out * len(self.live) + len(self.prompts)
        return 2 * rows * self.config.n_embd * (self.config.vocab_size if self.vocabulary else 1)

    @property
    def flops(self) -> int:
        """All products together."""
        return sum(work.flops for work in self.layers()) + self.readout_flops

    @property
    def clean_flops(self) -> int:
        """Those of both clean runs, which are fp32 in every precision."""
        return sum(self.runs(layer)[2] for layer in range(self.config.n_layer))

    def totals(self, blocks: str) -> list[str]:
        """The last lines of a plan's table."""
        return [
            f"read-out {self.readout_flops / 1e9:.2f} GFLOP "
            f"({'every logit at END' if self.vocabulary else 'answer columns only'})",
            f"floor    {self.flops / 1e9:.2f} GFLOP: what the definition makes unavoidable",
            memory_line(self.peak_bytes, blocks),
        ]


def rows_table(layers: Sequence[LayerWork], after: bool) -> list[str]:
    """Lines of a table of work by layer, with or without what follows receivers."""
    table = [["layer", "orig rows", "new rows", "wave rows", "after rows", "GFLOP"]]
    for work in layers:
        rows = (work.orig_rows, work.new_rows, work.wave_rows, work.after_rows)
        table.append([f"{work.layer}", *(f"{n:,}" for n in rows), f"{work.flops / 1e9:.2f}"])
    if not after:
        table = [[*row[:4], row[5]] for row in table]
    return [" ".join([f"{row[0]:>5}", *(f"{cell:>10}" for cell in row[1:])]) for row in table]


def memory_line(peak_bytes: int | None, blocks: str) -> str:
    """The line of a plan that says how much memory it takes, and in which blocks."""
    peak = "" if peak_bytes is None else f"{peak_bytes / 2**20:.0f} MiB at the peak, "
    return f"memory   {peak}in {blocks}"
