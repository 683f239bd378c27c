"""What a head that was found is called: by where it stands, what it reads and whom it tells."""

from __future__ import annotations

from dataclasses import dataclass

from ioi_fast.asked.prompts import END
from ioi_fast.ioi import circuits

LOGITS, KNOCKED_OUT = "logits", "logits after a knock-out"
_WRITERS = {LOGITS: circuits.MOVERS, KNOCKED_OUT: circuits.BACKUPS}
_COPIES = 0.5  # the least copy score of a head that moves names
# Role, what is read most there, class (section 3, figure 2).
_BY_READING = {
    (END, "S2"): circuits.INHIBITION,
    ("S2", "S1+1"): circuits.INDUCTION,
    ("S2", "S1"): circuits.DUPLICATE,
    ("S1+1", "S1"): circuits.PREVIOUS,
}


@dataclass(frozen=True, slots=True)
class Traits:
    """A head at a role: places read, the most read first, and the class that it writes to.

    `towards` is LOGITS, KNOCKED_OUT for the logits once others are gone, or a class and its input.
    """

    role: str
    reads: tuple[str, ...]
    towards: str
    for_answer: bool
    copies: float = 0.0  # copy score
    negative: float = 0.0  # the same with the output's sign turned


def class_of(traits: Traits) -> str:
    """The class's name of the paper where a head reads and copies as that class does.

    A head that writes to the logits as a class does, without its reading or copying, has what it
    reads behind the class's name, as "name mover (reads END-1)"; others are named by role and what
    they read, as "END-1 from IO". Source: Wang et al. 2022, section 3.

    >>> class_of(Traits("END", ("IO",), LOGITS, True, copies=1.0))
    'name mover'
    >>> class_of(Traits("END", ("END-1",), LOGITS, True))
    'name mover (reads END-1)'
    >>> class_of(Traits("S2", ("S1",), "S-inhibition", True))
    'duplicate token'
    """
    read = ", ".join(sorted(traits.reads)) or "nothing"
    if traits.towards in _WRITERS:
        name = _WRITERS[traits.towards] if traits.for_answer else circuits.NEGATIVES
        score = traits.copies if traits.for_answer else traits.negative
        known = traits.reads[:1] == ("IO",) and score >= _COPIES
        return name if known else f"{name} (reads {read})"
    known = _BY_READING.get((traits.role, *traits.reads[:1]))
    return known if known is not None else f"{traits.role} from {read}"
