"""What is asked, as data: each public call becomes one of these before any work is done."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ioi_fast.asked.circuit import Circuit, read_roles
from ioi_fast.asked.nodes import Head, Node, Sender, listed, parse_node, parse_senders
from ioi_fast.asked.positions import Position, check_matches_by_token, parse_position, role_position
from ioi_fast.asked.prompts import END, PromptPairs
from ioi_fast.asked.receivers import Receiver, parse_receivers
from ioi_fast.asked.sites import INPUTS, PATCHED, SITES
from ioi_fast.asked.sources import SOURCES
from ioi_fast.model.config import GPT2Config

BETWEEN = ("mlps", "nothing")


@dataclass(frozen=True, slots=True, eq=False)
class Ablation:
    """A node whose output is replaced at a position."""

    node: Node
    position: Position

    @property
    def site(self) -> tuple[str, int]:
        """The output that is replaced, and its layer."""
        return ("z" if isinstance(self.node, Head) else "mlp_out", self.node.layer)

    def __str__(self) -> str:
        return f"{self.node}@{self.position.name}"


@dataclass(frozen=True, slots=True, eq=False)
class KnockOut:
    """Ablations that are in force in every run, and what the outputs are replaced by."""

    ablations: tuple[Ablation, ...]
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class PathPatch:
    """Paths from each sender to the receivers (None: the logits at END)."""

    senders: tuple[Sender, ...]
    receivers: tuple[Receiver, ...] | None
    position: Position
    between: str
    knock_out: KnockOut


@dataclass(frozen=True, slots=True, eq=False)
class ActivationPatch:
    """A site replaced by the new run's, once per cell (place, position).

    A place is a sender at head sites, a layer at stream sites; cells stand in the row-major order
    of `shape`: (layer, head), (layer, token, head), (place,) or (place, token).
    """

    site: str
    cells: tuple[tuple[Sender | int, Position], ...]
    shape: tuple[int, ...]
    position_name: str

    @property
    def labels(self) -> tuple[str, ...]:
        """What each cell is, as 9.9, resid_pre3 or 9.9@14."""
        places = [f"{self.site}{p}" if isinstance(p, int) else str(p) for p, _ in self.cells]
        if self.position_name != "each":
            return tuple(places)
        names = [position.name for _, position in self.cells]
        return tuple(f"{place}@{name}" for place, name in zip(places, names, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Ablations:
    """Variants of ablations over the model or over a circuit."""

    variants: tuple[tuple[Ablation, ...], ...]
    source: str
    circuit: Circuit | None

    @property
    def labels(self) -> tuple[str, ...]:
        """What each variant ablates, as 9.9@END+mlp0@all; "nothing" for an empty one."""
        return tuple("+".join(str(one) for one in v) or "nothing" for v in self.variants)


@dataclass(frozen=True, slots=True, eq=False)
class PairSweep:
    """Paths from every head to each of these inputs of every later head."""

    inputs: tuple[str, ...]
    between: str
    position: Position


def check_choice(value: object, choices: Collection[str], argument: str) -> str:
    """The value, or a ValueError naming the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(choices)}, got {value!r}")
    return value


def parse_path_patch(
    pairs: PromptPairs,
    config: GPT2Config,
    *,
    senders: object,
    receivers: object,
    position: object,
    between: object,
    knock_out: Mapping | None,
    knock_out_source: object,
) -> PathPatch:
    """The validated intervention of a `path_patch` call; raises TypeError or ValueError."""
    chosen = parse_receivers(receivers, config)
    if isinstance(position, str) and position == "auto":
        position = _position_of(chosen)
    elif chosen is None and position is None:
        # Only END reaches the logits at END while attention is frozen.
        position = END
    source = check_choice(knock_out_source, SOURCES, "knock_out_source")
    ablations = parse_ablations({} if knock_out is None else knock_out, pairs, config, "knock_out")
    return PathPatch(
        senders=parse_senders(senders, config),
        receivers=chosen,
        position=parse_position(position, pairs),
        between=check_choice(between, BETWEEN, "between"),
        knock_out=KnockOut(ablations, source),
    )


def _position_of(receivers: tuple[Receiver, ...] | None) -> str:
    """END, where the logits and the queries behind them are read; ValueError for others."""
    for receiver in receivers or ():
        if receiver.site != "q":
            raise ValueError(
                f"position: {receiver} needs a role, an int, a tensor or None for all. The "
                "default, END, serves the logits and queries alone: keys and values at END are "
                "read by END and by nothing else, which leaves effects near 0, and an MLP works at "
                "every token"
            )
    return END


def parse_pair_sweep(
    pairs: PromptPairs, *, inputs: object, between: object, position: object
) -> PairSweep:
    """The validated intervention of a `pair_sweep` call; raises TypeError or ValueError."""
    entries = listed(inputs, "inputs must be a list of 'q', 'k' and 'v'")
    chosen = tuple(check_choice(one, INPUTS, "inputs") for one in entries)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"inputs must differ, got {list(chosen)}")
    between = check_choice(between, BETWEEN, "between")
    return PairSweep(chosen, between, parse_position(position, pairs))


def parse_ablations(
    variant: object, pairs: PromptPairs, config: GPT2Config, argument: str
) -> tuple[Ablation, ...]:
    """Ablations from {"9.9": role, list of roles or "all", "mlp0": …}, one for each role.

    Raises TypeError or ValueError.
    """
    if not isinstance(variant, Mapping):
        raise TypeError(f"{argument} must be a dict like {{'9.9': 'END'}}, got {variant!r}")
    ablations: dict[Node, list[Ablation]] = {}
    for key, given in variant.items():
        node = parse_node(key, config, argument)
        if node in ablations:
            raise ValueError(f"{argument}: {node} is there twice")
        own = f"{argument}[{node}]"
        roles = read_roles(given, own, "a role, 'all'")
        if "all" in roles[1:] or roles[0] == "all" != roles[-1]:
            raise ValueError(f"{own}: 'all' stands alone, got {given!r}")
        ablations[node] = [Ablation(node, _ablation_position(role, pairs, own)) for role in roles]
    return tuple(ablation for own in ablations.values() for ablation in own)


def _ablation_position(role: str, pairs: PromptPairs, argument: str) -> Position:
    if role == "all":
        return Position("all", None, None)
    return role_position(role, pairs, argument)


def parse_variants(
    pairs: PromptPairs, config: GPT2Config, variants: object, source: object, base: object
) -> Ablations:
    """The validated intervention of an `ablate` call; raises TypeError or ValueError."""
    if isinstance(variants, (Mapping, str)) or not isinstance(variants, Iterable):
        raise TypeError(f"variants must be a list of dicts, got {variants!r}")
    variants = list(variants)
    if not variants:
        raise ValueError("variants must have at least one variant, got an empty list")
    circuit = _parse_base(base, pairs, config)
    parsed = tuple(
        parse_ablations(variant, pairs, config, f"variants[{index}]")
        for index, variant in enumerate(variants)
    )
    _check_distinct_variants(parsed)
    source = check_choice(source, SOURCES, "source")
    return Ablations(variants=parsed, source=source, circuit=circuit)


def _check_distinct_variants(variants: tuple[tuple[Ablation, ...], ...]) -> None:
    """Raises ValueError naming two variants that are equal, in whatever order they are written."""
    seen: dict[frozenset, int] = {}
    for index, variant in enumerate(variants):
        first = seen.setdefault(frozenset((one.node, one.position.name) for one in variant), index)
        if first != index:
            written = _written(variant)
            raise ValueError(
                f"variants must differ, got {written} as variants[{first}] and variants[{index}]"
            )


def _written(variant: tuple[Ablation, ...]) -> dict[str, str | list[str]]:
    """A variant as it was given."""
    roles: dict[str, list[str]] = {}
    for one in variant:
        roles.setdefault(str(one.node), []).append(one.position.name)
    return {node: own[0] if len(own) == 1 else own for node, own in roles.items()}


def _parse_base(base: object, pairs: PromptPairs, config: GPT2Config) -> Circuit | None:
    if isinstance(base, Circuit):
        base.check(pairs, config)
        return base
    if not isinstance(base, str) or base != "model":
        raise ValueError(f"base must be 'model' or a Circuit, got {base!r}")
    return None


def parse_activation_patch(
    pairs: PromptPairs, config: GPT2Config, *, site: object, position: object, heads: object
) -> ActivationPatch:
    """The validated intervention of an `activation_patch` call; raises TypeError or ValueError."""
    check_choice(site, PATCHED, "site")
    if not SITES[site].of_heads:
        if heads is not None:
            raise ValueError(f"heads must be None at site {site!r}, got {heads!r}")
        places: tuple[Sender | int, ...] = tuple(range(config.n_layer))
        shape: tuple[int, ...] = (config.n_layer,)
    else:
        places = parse_senders("heads" if heads is None else heads, config, "heads")
        for sender in places:
            if sender.mlps:
                raise ValueError(f"heads: {sender} is not a head; site {site!r} belongs to heads")
        chosen = heads is not None and not isinstance(heads, str)
        shape = (len(places),) if chosen else (config.n_layer, config.n_head)
    if not (isinstance(position, str) and position == "each"):
        one = parse_position(position, pairs)
        return ActivationPatch(site, tuple((place, one) for place in places), shape, one.name)
    check_matches_by_token(pairs, "position: 'each' matches")
    tokens = [parse_position(t, pairs) for t in range(pairs.orig.shape[1])]
    # (layer, head) becomes (layer, token, head): a token's heads stand together.
    width = len(places) // shape[0]
    rows = [places[start : start + width] for start in range(0, len(places), width)]
    cells = tuple((place, token) for row in rows for token in tokens for place in row)
    return ActivationPatch(site, cells, (shape[0], len(tokens), *shape[1:]), "each")


def heads_of(senders: tuple[Sender, ...]) -> tuple[Head, ...]:
    """The heads of single-head senders, in order; raises ValueError for groups and MLPs."""
    for sender in senders:
        if len(sender.nodes) != 1 or not sender.heads:
            raise ValueError(f"heads: expected single heads, got {sender}")
    return tuple(sender.heads[0] for sender in senders)
