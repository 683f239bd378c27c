"""Faults drawn by seed, a function at most once: an area, then a function, then a kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from planted_faults.places import KINDS, Place, places_in_python
from planted_faults.places_in_cpp import places_in_cpp

ROOT = Path(__file__).parents[3]
# What each area is made of, and its share of the faults.
AREAS = {
    "engine": (("ioi_fast/engine/*.py",), 18),
    "kernels": (("kernels/torch_*.py", "kernels/*_linear.py", "kernels/row_blocks.py"), 6),
    "C++ kernels": (("kernels/cpu/*.cpp", "kernels/cpu/*.h"), 10),
    "Triton kernels": (("kernels/triton_*.py",), 6),
    "readers": (
        ("ioi_fast/asked/prompt*/*.py", "ioi_fast/asked/prompt*.py", "ioi_fast/tokenizer/*.py",
         "ioi_fast/model/*.py", "ioi_fast/outside/*.py"),
        16,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """A line of a file before and after: what is planted, and where. `seen_by` is the test that
    failed on it, or "equivalent: " and why no test can."""

    area: str
    file: str
    function: str
    kind: str
    before: str
    after: str
    seen_by: str = ""

    def planted(self, text: str) -> str:
        """The file's text with the fault; ValueError where its lines stand there no more."""
        if text.count(self.before) != 1:
            raise ValueError(
                f"{self.file} has changed where {self.function} had a fault: draw it again"
            )
        return text.replace(self.before, self.after)


def draw(seed: int, share: float = 1.0) -> list[Fault]:
    """As many faults of each area as its share says."""
    drawn, random = [], Random(seed)
    for area, (patterns, count) in AREAS.items():
        functions: dict[tuple[str, str], list[Place]] = {}
        for file in sorted({path for pattern in patterns for path in ROOT.glob(pattern)}):
            text = file.read_text()
            found = places_in_cpp(text) if file.suffix != ".py" else places_in_python(text)
            for place in found:
                key = str(file.relative_to(ROOT)), place.function
                functions.setdefault(key, []).append(place)
        chosen = random.sample(sorted(functions), k=round(share * count))
        drawn += [_one(area, key, functions[key], random) for key in chosen]
    return drawn


def _one(area: str, key: tuple[str, str], places: list[Place], random: Random) -> Fault:
    kind = random.choice([kind for kind in KINDS if any(place.kind == kind for place in places)])
    place = random.choice([place for place in places if place.kind == kind])
    before, after = _lines(ROOT / key[0], place)
    return Fault(area, *key, kind, before, after)


def _lines(file: Path, place: Place) -> tuple[str, str]:
    """Whole lines around a place, as many as make them the only ones of their kind in the file."""
    text = file.read_bytes()
    start = text.rfind(b"\n", 0, place.start) + 1
    stop = text.index(b"\n", place.stop)
    while text.count(text[start:stop]) > 1:
        start = text.rfind(b"\n", 0, start - 1) + 1
    after = text[start : place.start] + place.after.encode() + text[place.stop : stop]
    return text[start:stop].decode(), after.decode()
