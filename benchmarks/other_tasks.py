"""The worked examples of docs/other_tasks.md: its code is run, and what it prints is written below.

A block of python that has a block of text right behind it prints that text. All blocks of a page
share their names, in order.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "other_tasks.md"
_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n.*?^```\n)?", re.M | re.S)
# Figures have two digits behind the point; names of heads, such as 4.6, have one.
_NUMBER = re.compile(r"(?<![\w.])[+-]?\d+\.\d\d(?!\d)")


def run(page: str) -> str:
    """The page with what its blocks print now; raises whatever a block raises."""
    names: dict[str, object] = {}

    def ran(block: re.Match) -> str:
        line = page.count("\n", 0, block.start("code"))
        said = io.StringIO()
        # Blank lines in front, so that a traceback has the page's own line numbers.
        code = compile("\n" * line + block["code"], str(PAGE), "exec")
        with contextlib.redirect_stdout(said):
            exec(code, names)
        shown = f"\n```text\n{said.getvalue()}```\n" if said.getvalue() else ""
        return f"```python\n{block['code']}```\n{shown}"

    return _BLOCK.sub(ran, page)


def differences(page: str, other: str, share: float = 0.05, least: float = 0.03) -> list[str]:
    """Lines in which two pages differ by more than the last digits of figures.

    Figures may differ by `share` of their size, and by `least` in any case.
    """
    lines, others = page.splitlines(), other.splitlines()
    found = [f"{len(lines)} lines, {len(others)} lines"] * (len(lines) != len(others))
    for one, two in zip(lines, others, strict=False):
        figures = [[float(value) for value in _NUMBER.findall(line)] for line in (one, two)]
        same = _NUMBER.sub("#", one).split() == _NUMBER.sub("#", two).split()
        pairs = zip(*figures, strict=False)
        if not same or any(abs(a - b) > max(least, share * abs(a)) for a, b in pairs):
            found.append(f"{one} | {two}")
    return found


def main() -> int:
    """Runs the page and writes it anew."""
    PAGE.write_text(run(PAGE.read_text()))
    print(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
