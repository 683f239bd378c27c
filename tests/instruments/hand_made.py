"""A model made by hand that does the task with seven heads and no other, and prompts for it.

The residual has a subspace for every message. Two large constants fix the scale of each LayerNorm,
so that what lies beside them passes through unchanged; MLPs are empty. The heads are those of the
paper's circuit, one a class:

0.0  previous token: every token gets the name before it
0.1  duplicate token: a name gets the position of its first mention, or its own
1.0  induction: a name gets the position of the token behind its first mention, or that of the first
2.0  S-inhibition: END gets what the last name was told, and that name's own position
3.0  name mover: END attends to names that are not named by 2.0, and writes them
4.0  negative name mover: the same, with the sign turned and less of it
4.1  backup name mover: the same as 3.0, but not for names that END has already

All other heads write noise that is too weak to matter.
"""

from __future__ import annotations

import random

import torch

from ioi_fast import GPT2, Circuit, GPT2Config, PromptPairs
from ioi_fast.ioi import circuits
from ioi_fast.model.weights import Block, Weights

NAMES, PLACES = 20, 14
AND, WENT, STOP, GAVE, IT, TO, START = range(NAMES, NAMES + 7)
_SIZES = {
    "constant": 2,
    "name": NAMES,
    "place": PLACES,
    "previous": NAMES,
    "first": PLACES,
    "behind": PLACES,
    "not first": PLACES,
    "not behind": PLACES,
    "out": NAMES,
    "is name": 1,
    "is end": 1,
    "is start": 1,
}
_STARTS = dict(zip(_SIZES, torch.tensor([0, *_SIZES.values()]).cumsum(0).tolist(), strict=False))
CONFIG = GPT2Config(
    n_layer=5,
    n_head=3,
    n_embd=156,
    n_inner=4,
    vocab_size=START + 1,
    n_positions=PLACES,
    tie_word_embeddings=False,
)
_LARGE = 50.0
CLASSES = {
    circuits.MOVERS: ["3.0"],
    circuits.INHIBITION: ["2.0"],
    circuits.NEGATIVES: ["4.0"],
    circuits.BACKUPS: ["4.1"],
    circuits.DUPLICATE: ["0.1"],
    circuits.INDUCTION: ["1.0"],
    circuits.PREVIOUS: ["0.0"],
}
EDGES = {
    ("0.0", "1.0.k"),
    ("0.1", "2.0.v"),
    ("1.0", "2.0.v"),
    ("2.0", "3.0.q"),
    ("2.0", "4.0.q"),
    ("2.0", "4.1.q"),
    ("3.0", "4.1.q"),
    ("3.0", "logits"),
    ("4.0", "logits"),
    ("4.1", "logits"),
}


def hand_made_circuit() -> Circuit:
    """What the model was made to have."""
    return circuits.circuit_of_classes(CLASSES)


def _part(name: str) -> slice:
    return slice(_STARTS[name], _STARTS[name] + _SIZES[name])


class _Head:
    """Matrices of one head, written message by message."""

    def __init__(self) -> None:
        D, K = CONFIG.n_embd, CONFIG.d_head
        self.q, self.k, self.v = (torch.zeros(D, K) for _ in range(3))
        self.o = torch.zeros(K, D)
        self._used = 0

    def match(self, query: str, key: str, by: float, shift: int = 0) -> None:
        """Adds `by` to the score of keys whose part has at t what the query's has at t + shift."""
        size = _SIZES[query]
        here = slice(self._used, self._used + size)
        self._used += size
        self.q[_part(query), here] = by * torch.eye(size) * CONFIG.d_head**0.5
        self.k[_part(key), here] = torch.eye(size).roll(shift, 1)

    def prefer(self, query: str, key: str, by: list[float] | float) -> None:
        """Adds `by` (of each place of the key's part) to scores, where the query has a flag."""
        scale = _LARGE if query == "constant" else 1.0
        self.q[_part(query).start, self._used] = CONFIG.d_head**0.5 / scale
        self.k[_part(key), self._used] = torch.tensor(by)
        self._used += 1

    def move(self, start: int, source: str, target: str, by: float = 1.0) -> None:
        """Writes a part of the key's residual into another of the query's."""
        size = _SIZES[source]
        here = slice(start, start + size)
        self.v[_part(source), here] = torch.eye(size)
        self.o[here, _part(target)] = by * torch.eye(size)


def _ramp(slope: float) -> list[float]:
    return [slope * place for place in range(PLACES)]


def _attend_to_names(head: _Head, inhibited: float) -> None:
    """END to names, less so where it was told not to."""
    head.prefer("is end", "is name", 20.0)
    head.match("not first", "place", -inhibited)
    # Told of the token behind: the name before it is meant.
    head.match("not behind", "place", -inhibited, shift=1)


def _heads() -> dict[tuple[int, int], _Head]:
    made = {place: _Head() for place in ((0, 0), (0, 1), (1, 0), (2, 0), (3, 0), (4, 0), (4, 1))}
    made[0, 0].match("place", "place", 30.0, shift=1)
    made[0, 0].move(0, "name", "previous")
    made[0, 1].match("name", "name", 50.0)
    made[0, 1].prefer("constant", "place", _ramp(-2.0))
    made[0, 1].move(0, "place", "first")
    made[1, 0].match("name", "previous", 50.0)
    made[1, 0].prefer("constant", "is start", 25.0)
    made[1, 0].move(0, "place", "behind")
    inhibition = made[2, 0]
    inhibition.prefer("is end", "is name", 30.0)
    inhibition.prefer("is end", "place", _ramp(2.0))
    inhibition.move(0, "first", "not first")
    inhibition.move(PLACES, "behind", "not behind")
    inhibition.move(2 * PLACES, "place", "not first", 5.0)
    _attend_to_names(made[3, 0], 2.0)
    made[3, 0].move(0, "name", "out")
    _attend_to_names(made[4, 0], 2.0)
    made[4, 0].move(0, "name", "out", by=-0.3)
    backup = made[4, 1]
    _attend_to_names(backup, 4.0)
    backup.prefer("is end", "is start", 17.0)
    backup.match("out", "name", -20.0)
    backup.move(0, "name", "out")
    return made


def hand_made_model(seed: int = 0) -> GPT2:
    """The model, with noise of a seed in the heads that do nothing."""
    generator = torch.Generator().manual_seed(seed)
    D, H, K, F = CONFIG.n_embd, CONFIG.n_head, CONFIG.d_head, CONFIG.d_mlp
    made = _heads()
    gain = torch.full((D,), _LARGE * (2 / D) ** 0.5)
    none = torch.zeros(D)
    blocks = []
    for layer in range(CONFIG.n_layer):
        w_qkv, w_o = torch.zeros(D, 3, H, K), torch.zeros(H, K, D)
        for index in range(H):
            head = made.get((layer, index))
            if head is None:
                w_qkv[:, :, index] = torch.randn(D, 3, K, generator=generator) / D**0.5
                w_o[index, :, 2:] = torch.randn(K, D - 2, generator=generator) * 1e-4
                continue
            for part, matrix in enumerate((head.q, head.k, head.v)):
                w_qkv[:, part, index] = matrix
            w_o[index] = head.o
        blocks.append(
            Block(
                gain,
                none,
                w_qkv.reshape(D, 3 * H * K),
                torch.zeros(3 * H * K),
                w_o.reshape(H * K, D),
                none,
                gain,
                none,
                torch.zeros(D, F),
                torch.zeros(F),
                torch.zeros(F, D),
                none,
            )
        )
    wte, wpe, unembed = (torch.zeros(n, D) for n in (CONFIG.vocab_size, PLACES, CONFIG.vocab_size))
    wte[:, 0], wte[:, 1] = _LARGE, -_LARGE
    wte[:NAMES, _part("name")] = torch.eye(NAMES)
    wte[:NAMES, _part("is name")] = 1.0
    wte[TO, _part("is end")] = 1.0
    wte[START, _part("is start")] = 1.0
    wpe[:, _part("place")] = torch.eye(PLACES)
    unembed[:NAMES, _part("out")] = 5.0 * torch.eye(NAMES)
    weights = Weights(wte, wpe, tuple(blocks), gain, none, unembed)
    return GPT2(CONFIG, weights, name="hand-made")


def hand_made_pairs(n: int = 60, seed: int = 0) -> PromptPairs:
    """Prompts of three lengths, either name first, and new ones with three other names."""
    rng = random.Random(seed)
    orig, new, answers, wrong, forms = [], [], [], [], []
    positions: dict[str, list[int]] = {role: [] for role in ("IO", "S1", "S1+1", "S2", "END")}
    for index in range(n):
        form = index % 6
        first_is_io, extra = form % 2 == 0, form // 2
        io, s, *others = rng.sample(range(NAMES), 5)
        first, second = (1, 3) if first_is_io else (3, 1)

        def tokens(io: int, s1: int, s2: int, places=(first, second), extra=extra) -> list[int]:
            said = [START, 0, AND, 0, *[WENT] * (1 + extra), STOP, s2, GAVE, IT, TO]
            said[places[0]], said[places[1]] = io, s1
            return said + [TO] * (PLACES - len(said))

        orig.append(tokens(io, s, s))
        new.append(tokens(*others))
        answers.append(io)
        wrong.append(s)
        forms.append(form)
        s2 = 6 + extra
        at = {"IO": first, "S1": second, "S1+1": second + 1, "S2": s2, "END": s2 + 3}
        for role, place in at.items():
            positions[role].append(place)
    return PromptPairs(orig, new, answers, wrong, positions=positions, forms=forms)
