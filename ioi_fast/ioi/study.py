"""A study: a model, its prompts and a circuit, which the paper's experiments share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.circuit_files import circuit_to_dict
from ioi_fast.asked.own_metrics import metric_name
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.ioi.circuits import members
from ioi_fast.ioi.dataset import abc_records, ioi_prompts, pair_records
from ioi_fast.ioi.records import sample_records
from ioi_fast.ioi.roles import NeedsRoles, with_roles
from ioi_fast.ioi.tellers import Tellers, tellers_of
from ioi_fast.ioi.verdicts import Scale, is_gpt2_small
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.results.revision import revision
from ioi_fast.tokenizer import TextCodec


class NeedsCircuit(ValueError):
    """An experiment asks for heads of a class, and the study has no such class."""


class NeedsTokenizer(ValueError):
    """An experiment draws prompts of its own, and the model has no tokenizer to write them with."""


class NeedsLayers(ValueError):
    """An experiment asks for more layers than the model has."""


# What an experiment raises when the study lacks something that it asks for.
LACKING = (NeedsCircuit, NeedsRoles, NeedsTokenizer, NeedsLayers)


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """What experiments are made on; `running` goes to every call (precision, backend, threads)."""

    model: GPT2
    pairs: PromptPairs
    mean_pairs: PromptPairs
    circuit: Circuit | None = None
    drawn: Mapping[str, object] = field(default_factory=dict)  # n, seed, forms, prepend_bos
    quick: bool = False
    running: Mapping[str, object] = field(default_factory=dict)
    own_wording: bool = True

    @classmethod
    def drawn_from(
        cls,
        model: GPT2,
        circuit: Circuit | None = None,
        *,
        n: int = 200,
        seed: int = 0,
        forms: str = "mixed14",
        prepend_bos: bool = False,
        quick: bool = False,
        **running: object,
    ) -> Study:
        """A study on n prompts, with means over four times as many others of each form."""
        how = {"forms": forms, "prepend_bos": prepend_bos}
        pairs = ioi_prompts(model.tokenizer, n, seed, **how)
        mean_pairs = _mean_prompts(model.tokenizer, pairs, seed + 1, prepend_bos)
        drawn = {"n": n, "seed": seed, **how}
        found = cls(model, pairs, mean_pairs, None, drawn, quick, running)
        return found if circuit is None else found.with_circuit(circuit)

    @classmethod
    def of_prompts(
        cls, model: GPT2, pairs: PromptPairs, circuit: Circuit | None = None, **settings: object
    ) -> Study:
        """A study on given prompts, whose new prompts are those behind the means.

        Prompts of any task are taken; what an experiment asks for beyond END, it says. `settings`
        are `quick` and what goes to every call, such as `metric`. What is drawn beside the prompts
        (signals, openers, sentences) is as many prompts as they are, with `prepend_bos` behind
        <|endoftext|> too. Raises NeedsRoles where the
        circuit has heads at roles that the prompts lack.
        """
        quick, running = bool(settings.pop("quick", False)), settings
        bos = bool(settings.pop("prepend_bos", False))
        drawn = {"n": len(pairs), "seed": 0, "prepend_bos": bos}
        found = cls(model, pairs, pairs, None, drawn, quick, running, own_wording=False)
        return found if circuit is None else found.with_circuit(circuit)

    @property
    def knocking_out(self) -> dict[str, object]:
        """How heads are knocked out: by means by form where forms are known, over mean_pairs."""
        by_form = self.pairs.forms is not None and self.mean_pairs.forms is not None
        return {"source": "mean_by_form" if by_form else "mean", "mean_pairs": self.mean_pairs}

    @property
    def looking(self) -> dict[str, object]:
        """What goes to `attention`, which has no metric and no bar."""
        return {k: v for k, v in self.running.items() if k not in ("progress", "metric")}

    @property
    def scale(self) -> Scale:
        """What makes this study's measures."""
        return Scale(len(self.pairs), is_gpt2_small(self.model), self.own_wording)

    @property
    def drawn_scale(self) -> Scale:
        """The same for measures on prompts that are drawn, whatever file the study's are from."""
        return Scale(int(self.drawn["n"]), is_gpt2_small(self.model), True)

    def check(self, roles: Iterable[str] = (), tokenizer: bool = False) -> None:
        """NeedsRoles where the prompts lack one of these, NeedsTokenizer where the model does."""
        with_roles(self.pairs, roles)
        if tokenizer and self.model.tokenizer is None:
            raise NeedsTokenizer("the model has no tokenizer, and prompts have to be written")

    def heads(self, *names: str) -> list[str]:
        """The heads of classes; NeedsCircuit where one is not there."""
        if self.circuit is None:
            raise NeedsCircuit(f"no heads of class {names[0]!r} are known: name a circuit")
        known = {name: members(self.circuit, name) for name in names}
        missing = [name for name, heads in known.items() if not heads]
        if missing:
            raise NeedsCircuit(f"the circuit has no heads of class {missing[0]!r}")
        return list(dict.fromkeys(str(head) for heads in known.values() for head in heads))

    def tellers(self) -> Tellers:
        """The S-inhibition heads, or who tells the movers instead; NeedsCircuit without any."""
        found = None if self.circuit is None else tellers_of(self.circuit)
        if found is None:
            raise NeedsCircuit(
                "no heads of class 'S-inhibition' are known, and none in their place"
            )
        return found

    def with_circuit(self, circuit: Circuit) -> Study:
        """The same study of a circuit, with the roles of its heads in the prompts."""
        roles = [role for _, role in circuit.nodes]
        pairs, mean_pairs = (with_roles(one, roles) for one in (self.pairs, self.mean_pairs))
        return replace(self, pairs=pairs, mean_pairs=mean_pairs, circuit=circuit)

    def key(self) -> str:
        """Hex SHA-256 of all that results depend on: an experiment with it need not run again."""
        said = {
            "weights": self.model.weight_hash(),
            "prompts": self.pairs.token_hash(),
            "means": self.mean_pairs.token_hash(),
            "circuit": None if self.circuit is None else circuit_to_dict(self.circuit),
            "drawn": dict(self.drawn),
            "quick": self.quick,
            "precision": self.running.get("precision", "fp32"),
            "version": version("ioi_fast"),
            "commit": revision(),
        }
        if "metric" in self.running:
            said["metric"] = metric_name(self.running["metric"])
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _mean_prompts(
    tokenizer: TextCodec, pairs: PromptPairs, seed: int, prepend_bos: bool
) -> PromptPairs:
    """Four other prompts for each of these, of its form, so that no form is without a mean."""
    records = []
    for form, count in zip(*pairs.forms.unique(return_counts=True), strict=True):
        records += sample_records(4 * int(count), 100 * seed + int(form), [int(form)])
    return pair_records(tokenizer, records, abc_records(records, seed), prepend_bos)
