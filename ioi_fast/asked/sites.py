"""The sites of a layer, a row each: where a run can have another value, such as z or mlp_out."""

from __future__ import annotations

from dataclasses import dataclass

# Where in its layer a site stands.
BEFORE, IN_HEADS, BETWEEN, MLP_OUTPUT = range(4)


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a layer where a run can have another value.

    It stands before the attention, in its heads, between them and the MLP, or is the MLP's output.
    """

    name: str
    at: int
    patched: bool  # `activation_patch` takes it
    received: bool  # paths lead to it
    by_slots: bool = False  # runs have it as [N, T, H, K], all others by rows
    spreads: bool = False  # changed at one token it changes what all later ones read

    @property
    def of_heads(self) -> bool:
        """Whether each head has its own; else it is as wide as the residual stream."""
        return self.at == IN_HEADS


SITES = {
    site.name: site
    for site in (
        Site("z", IN_HEADS, patched=True, received=False),
        Site("q", IN_HEADS, patched=True, received=True, by_slots=True),
        Site("k", IN_HEADS, patched=True, received=True, by_slots=True, spreads=True),
        Site("v", IN_HEADS, patched=True, received=True, by_slots=True, spreads=True),
        Site("resid_pre", BEFORE, patched=True, received=False),
        Site("resid_mid", BETWEEN, patched=True, received=False),
        Site("attn_out", BETWEEN, patched=True, received=False),
        Site("mlp_in", BETWEEN, patched=False, received=True),
        Site("mlp_out", MLP_OUTPUT, patched=True, received=False),
    )
}
PATCHED = tuple(site.name for site in SITES.values() if site.patched)
INPUTS = tuple(site.name for site in SITES.values() if site.received and site.of_heads)
