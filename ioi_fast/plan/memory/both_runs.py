"""The tensors of both clean runs side by side, and what is kept of them (both_runs.py, new_run.py,
knock_outs.py).

Pure Python, no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.memory import runs
from ioi_fast.plan.memory.ledger import Ledger
from ioi_fast.plan.memory.reruns import Layer, Put
from ioi_fast.plan.memory.rows import Rows
from ioi_fast.plan.path_variants import Knocked, PathPrompt

if TYPE_CHECKING:
    from ioi_fast.plan.pair_sweep import PairPlan
    from ioi_fast.plan.path_patch import PathPlan


@dataclass(slots=True)
class NewRun:
    """new_run.NewRun: new as a difference on some cells of the original run."""

    config: GPT2Config
    cells: Rows
    tokens: Rows  # of the original run
    delta: int = 0

    def begin(self, ledger: Ledger) -> None:
        """The embeddings of both, and their difference."""
        ledger.passing(3 * self.cells.rows * self.config.n_embd)
        self.delta = ledger.take(self.cells.rows * self.config.n_embd)

    def step(
        self,
        ledger: Ledger,
        at_end: bool,
        orig_at_end: bool,
        heads_only: bool = False,
        knocked: Sequence[Knocked] = (),
    ) -> int:
        """A layer: what comes back are the changes of all sites."""
        D, cells = self.config.n_embd, self.cells
        lent = ledger.take(cells.rows * D)
        if at_end and not orig_at_end:
            lent += ledger.take(cells.prompts * D)
        elif not at_end and not cells.aligned:
            lent += ledger.take(cells.slots * D)
        puts, values = self._puts(ledger, knocked)
        live = 1.0
        for one in knocked:
            if one.site == "mlp_out":
                live = 0.0 if one.everywhere else 1 - cells.prompts / cells.rows
        heads = self.config.n_head
        layer = Layer(
            self.config, cells, self.tokens, 1, 1, heads, at_end, True, puts=puts, live=live
        )
        if heads_only:
            begin = ledger.held
            layer.attended(ledger)
            sites = ledger.held - begin
        else:
            sites = layer.run(ledger)
            # The difference after the layer takes the place of that before it.
            sites -= layer.out
            ledger.give(self.delta)
            self.delta = layer.out
        ledger.give(lent + values)
        return sites

    def _puts(self, ledger: Ledger, knocked: Sequence[Knocked]) -> tuple[dict[str, list[Put]], int]:
        """new_run._puts: how far new's own value is from what orig has, and what new has instead;
        beside them the values themselves."""
        rows = self.cells.rows * self.config.n_embd
        sites = {one.site for one in knocked}
        puts = {site: [Put(added=True), Put()] for site in sites}
        for _ in sites:
            ledger.take(2 * rows)
            ledger.passing(2 * rows)
        return puts, 2 * rows * len(sites)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is kept of both runs of a block, and what is knocked out of them."""

    config: GPT2Config
    orig: Rows
    new: Rows  # the tokens of new that run
    cells: Rows  # that waves read
    ends: int  # how many cells are END
    aligned: bool  # whether new runs as a difference
    everywhere: bool  # whether all its tokens are read
    until: tuple[int, int]  # the last place of new that is read
    rerun_cells: Rows | None = None  # the cells of reruns
    from_layer: int | None = None
    knocked: Sequence[Knocked] = ()
    source: str = "zero"  # of knock-outs
    clean_new: Rows | None = None  # where knock-outs take what it has

    @classmethod
    def of(
        cls,
        plan: PathPlan | PairPlan,
        prompts: Sequence[PathPrompt],
        from_layer: int | None,
        **knocked: object,
    ) -> Asked:
        """What waves over a block ask of its runs."""
        aligned = prompts[0].aligned
        new = [range(p.first_changed if aligned else 0, p.new_at + 1) for p in prompts]
        return cls(
            plan.config,
            Rows.up_to([prompt.end for prompt in prompts]),
            Rows.of(new),
            Rows.of([plan.patched(prompt) for prompt in prompts]),
            sum(prompt.at == prompt.end for prompt in prompts),
            aligned,
            plan.everywhere,
            plan.new_until,
            rerun_cells=Rows.of([plan.after(prompt) for prompt in prompts]),
            from_layer=from_layer,
            **knocked,
        )


def clean_runs(ledger: Ledger, asked: Asked, waves: bool) -> None:
    """both_runs.clean_runs: what is left is what was kept, and the final residual at END."""
    config, D = asked.config, asked.config.n_embd
    resid = runs.embed(ledger, config, asked.orig)
    keeper = None
    if waves:
        keeper = Keeper(asked)
        keeper.begin(ledger)
    clean = runs.NewByItself(config, asked.clean_new) if asked.clean_new is not None else None
    for at in range(config.n_layer):
        if clean is not None:
            clean.step(ledger)
        here = [one for one in asked.knocked if one.layer == at]
        ablated = _knocked_values(ledger, asked, asked.orig, here)
        at_end = at == config.n_layer - 1
        state = runs.layer(ledger, config, asked.orig, at_end, {one.site for one in here})
        kept = 0
        if keeper is not None:
            kept = keeper.layer(ledger, at, state, here)
        after = ledger.take(state.rows * D)
        runs.give(ledger, state)
        ledger.take(kept)
        ledger.give(resid + ablated)
        resid = after
    if clean is not None:
        clean.end(ledger)
    if keeper is not None:
        keeper.end(ledger)


def _knocked_values(ledger: Ledger, asked: Asked, rows: Rows, knocked: Sequence[Knocked]) -> int:
    """KnockOuts.on: the values of each site by rows; one more is made for each that is joined."""
    config, size = asked.config, rows.rows * asked.config.n_embd
    slots = rows.slots if rows is asked.new and not asked.aligned else asked.orig.slots
    held = ledger.held
    for count in Counter(one.site for one in knocked).values():
        given = (ledger, config, asked.source, rows.rows, slots, asked.clean_new)
        before = runs.value(*given)
        for _ in range(count - 1):
            value = runs.value(*given)
            joined = ledger.take(size)
            ledger.give(before + value)
            before = joined
    return ledger.held - held


@dataclass(slots=True)
class Keeper:
    """both_runs._Keeper: walks new beside orig and keeps what waves and reruns read."""

    asked: Asked
    new: NewRun | runs.NewByItself | None = None

    def begin(self, ledger: Ledger) -> None:
        """Where the new run starts."""
        asked = self.asked
        if asked.aligned:
            self.new = NewRun(asked.config, asked.new, asked.orig)
            self.new.begin(ledger)
        else:
            self.new = Apart(asked.config, asked.new)
            self.new.begin(ledger)

    def layer(self, ledger: Ledger, at: int, state: runs.State, knocked: Sequence[Knocked]) -> int:
        """What is kept of a layer; comes back what of the state itself is."""
        asked, config = self.asked, self.asked.config
        D, F, C = config.n_embd, config.d_mlp, asked.cells.rows
        if state.at_end and asked.ends < C:
            ledger.passing(2 * C * (D + F))  # those of cells that are not END are made zero
        ledger.take(C * (2 * D + F))
        until, half = asked.until
        if at <= until:
            self._new(ledger, state, at == until, not half, knocked)
        if asked.from_layer is None or at < asked.from_layer:
            return 0
        return kept_for_reruns(ledger, config, asked.rerun_cells, state)

    def _new(
        self,
        ledger: Ledger,
        state: runs.State,
        last: bool,
        heads_only: bool,
        knocked: Sequence[Knocked],
    ) -> None:
        """The change of z and of the MLP's output at the cells."""
        asked, C = self.asked, self.asked.cells.rows * self.asked.config.n_embd
        values = _knocked_values(ledger, asked, asked.new, knocked)
        heads_only = last and heads_only
        if not asked.aligned:
            sites = self.new.step(ledger, last, {one.site for one in knocked})
            ledger.passing(4 * C)
        elif state.at_end and not asked.ends:
            sites = 0
        else:
            ends = state.at_end or (last and not asked.everywhere)
            sites = self.new.step(ledger, ends, state.at_end, heads_only, knocked)
            picked = state.at_end or not (ends or asked.everywhere)
            ledger.passing((2 * C if picked else 0) + (C if heads_only else 0))
        ledger.give(sites + values)
        ledger.take(2 * C)

    def end(self, ledger: Ledger) -> None:
        """The new run goes."""
        ledger.give(self.new.delta)


@dataclass(slots=True)
class Apart:
    """both_runs._Apart: new by itself, up to the one cell of each prompt."""

    config: GPT2Config
    tokens: Rows
    delta: int = 0  # its residual

    def begin(self, ledger: Ledger) -> None:
        """The embeddings."""
        self.delta = runs.embed(ledger, self.config, self.tokens)

    def step(self, ledger: Ledger, last: bool, replaced: set[str]) -> int:
        """A layer of it: what comes back is held until its cells are read."""
        state = runs.layer(ledger, self.config, self.tokens, last, replaced)
        after = ledger.take(state.rows * self.config.n_embd)
        before, self.delta = self.delta, after
        return state.qkv + state.others + before


def kept_for_reruns(
    ledger: Ledger, config: GPT2Config, rerun_cells: Rows, state: runs.State
) -> int:
    """RerunCells.keep: rows of the cells; q, k, v stay as they are, at the end
    the MLP's input too."""
    D, F = config.n_embd, config.d_mlp
    ledger.take(rerun_cells.rows * D)
    if state.at_end:
        return state.qkv + rerun_cells.prompts * (D + F)
    ledger.take(rerun_cells.rows * (D + F) + (0 if rerun_cells.aligned else rerun_cells.slots * D))
    return state.qkv
