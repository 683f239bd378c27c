"""A study: a model, its prompts and a circuit, which the paper's experiments share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from ioi_fast.circuit import Circuit
from ioi_fast.circuit_files import circuit_to_dict
from ioi_fast.ioi.dataset import ioi_prompts
from ioi_fast.ioi.finding import Scale
from ioi_fast.ioi.published import is_gpt2_small
from ioi_fast.model import GPT2
from ioi_fast.prompts import PromptPairs


class NeedsCircuit(ValueError):
    """An experiment asks for heads of a class, and the study has no such class."""


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
        """A study on n prompts, with means over four times as many others."""
        how = {"forms": forms, "prepend_bos": prepend_bos}
        pairs = ioi_prompts(model.tokenizer, n, seed, **how)
        mean_pairs = ioi_prompts(model.tokenizer, 4 * n, seed + 1, **how)
        drawn = {"n": n, "seed": seed, **how}
        return cls(model, pairs, mean_pairs, circuit, drawn, quick, running)

    @classmethod
    def of_prompts(
        cls, model: GPT2, pairs: PromptPairs, circuit: Circuit | None = None, **settings: object
    ) -> Study:
        """A study on given prompts, whose new prompts are those behind the means.

        What is drawn beside them (signals, openers, sentences) is as many prompts as they are.
        """
        quick, running = bool(settings.pop("quick", False)), settings
        return cls(model, pairs, pairs, circuit, {"n": len(pairs), "seed": 0}, quick, running)

    @property
    def knocking_out(self) -> dict[str, object]:
        """How heads are knocked out: by means by form where forms are known, over mean_pairs."""
        by_form = self.pairs.forms is not None and self.mean_pairs.forms is not None
        return {"source": "mean_by_form" if by_form else "mean", "mean_pairs": self.mean_pairs}

    @property
    def scale(self) -> Scale:
        """What makes this study's measures."""
        return Scale(len(self.pairs), is_gpt2_small(self.model))

    def heads(self, *names: str) -> list[str]:
        """The heads of classes; NeedsCircuit where one is not there."""
        known = {} if self.circuit is None else self.circuit.classes
        missing = [name for name in names if name not in known]
        if missing:
            raise NeedsCircuit(f"no heads of class {missing[0]!r} are known: name a circuit")
        return [str(head) for name in names for head in known[name]]

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
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
