"""What compute-sanitizer writes: its errors, whose they are, and how many it counts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property

# Lines around errors, and lines within one, whether or not they are moved in.
_AROUND = re.compile(
    r"COMPUTE-SANITIZER|ERROR SUMMARY|LEAK SUMMARY|Target application returned an error"
    r"|Error: process didn't terminate successfully|Error: No more errors|.*not shown"
)
_WITHIN = re.compile(
    r"(at|by|and|in|Address|Access|Saved host|Host Frame|Device Frame|Uninitialized access)\b"
)
_REFUSES = re.compile(
    r"[Dd]evice not supported|[Nn]ot supported on this (device|platform|system)"
    r"|[Nn]o attachable process|[Uu]nable to find injection|[Ff]ailed to (initialize|connect)"
)
_OUR_FILES = re.compile(r"\btriton_\w+\.py\b")


@dataclass
class Reports:
    """What a log of the tool says."""

    text: str

    @cached_property
    def blocks(self) -> list[list[str]]:
        """Errors, each as the lines that belong to it, without what stands before every line."""
        found: list[list[str]] = []
        open_one = False
        for line in self.text.splitlines():
            if not line.startswith("========="):
                continue
            body = line[9:]
            text = body.strip()
            if not text or _AROUND.match(text):
                open_one = False
            elif open_one and (body.startswith("  ") or _WITHIN.match(text)):
                found[-1].append(text)
            else:
                found.append([text])
                open_one = True
        return found

    @property
    def summary(self) -> int | None:
        """How many errors it counts in all; None where it came to no end."""
        counts = re.findall(r"ERROR SUMMARY: ([\d,]+) error", self.text)
        return sum(int(one.replace(",", "")) for one in counts) if counts else None

    @property
    def refusal(self) -> str | None:
        """Its own words where it does not work on this device, or can't watch the program."""
        for line in self.text.splitlines():
            if line.startswith("=") and _REFUSES.search(line):
                return line.lstrip("= ").strip()[:300]
        return None


@cache
def kernels() -> tuple[str, ...]:
    """Names of ours; asking needs triton."""
    from ioi_fast.benchmarks.gpu.device_tests.sanitizer import KERNELS

    return tuple(KERNELS)


def kernel_of(block: list[str]) -> tuple[str, bool]:
    """The kernel that an error is of, or else the error itself, and whether it is ours.

    That is where it names one of our kernels, a line of their files, or no kernel at all.
    """
    text = "\n".join(block)
    for name in kernels():
        if re.search(rf"\b{name}\b", text):
            return name, True
    lines = (re.match(r"at (?:0x[0-9a-f]+ in )?(.+?)(\+0x[0-9a-f]+|$)", one) for one in block)
    named = next((one[1][:120] for one in lines if one), None)
    if named and _OUR_FILES.search(text):
        return named, True
    return named or block[0][:200], named is None
