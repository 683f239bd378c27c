"""What a command does with a result: files first, then figures in the terminal."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence

from ioi_fast.commands import options
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.outside.whole_files import write_text
from ioi_fast.report.figures import BarList, HeatMap, Page
from ioi_fast.report.page import write_page
from ioi_fast.report.sweeps import heads_heat_map, ranking_bars
from ioi_fast.report.terminal import print_bars, print_heat_map, say
from ioi_fast.results.pair_result import PairResult
from ioi_fast.results.result import Result
from ioi_fast.results.revision import revision

_SHOWN = 12


def add_output(parser: argparse.ArgumentParser) -> None:
    """--out and --json."""
    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="FILE.html", help="write a page with the heat-map")
    output.add_argument("--json", metavar="FILE", help="write all figures")


def present(
    result: Result,
    model: GPT2,
    seconds: float,
    arguments: argparse.Namespace,
    page: str,
    title: str,
    caption: str,
    ranked: str,
    what: str,
) -> None:
    """Shows a result and writes the files that are asked for.

    `page` and `title` name the page and its figure, `ranked` what is listed by strength, `what` is
    done to each.
    """
    sections: list[HeatMap | BarList] = [_figure(result, title, caption, what)]
    # A short list is shown whole in the caller's order: its strongest would be the same once more.
    if result.effect.any() and (len(result.shape) == 2 or len(result.senders) > _SHOWN):
        sections.append(ranking_bars(result, f"Strongest {ranked}", _SHOWN, what=what))
    counted = f"{len(result.senders)} {ranked}"
    finish(result, sections, counted, model, seconds, arguments, page)


def finish(
    result: Result | PairResult,
    sections: Sequence[HeatMap | BarList],
    counted: str,
    model: GPT2,
    seconds: float,
    arguments: argparse.Namespace,
    page: str,
) -> None:
    """Writes the files that are asked for, then prints the figures; `counted` is what was done."""
    provenance = {**result.provenance, "backend": result.backend, "precision": result.precision}
    provenance |= {**options.drawn(arguments), "commit": revision()}
    prompts = len(result.base)

    def write_json() -> None:
        figures = {**result.to_dict(), "provenance": provenance, "seconds": seconds}
        write_text(arguments.json, json.dumps(figures, indent=1, allow_nan=False))

    def write_html() -> None:
        lead = f"{arguments.metric} of {model.name} on {prompts} prompts."
        write_page(Page(page, lead, sections, provenance), arguments.out)

    def show() -> None:
        for section in sections:
            (print_bars if isinstance(section, BarList) else print_heat_map)(section)
        if not result.effect.any():
            say("nothing that was tried changes the metric: every effect is 0")
        say(
            f"{counted} x {prompts} prompts in {seconds:.2f} s, {result.backend}, "
            f"{result.precision}; mean {arguments.metric} {float(result.base.double().mean()):.3f}"
        )

    files = [("written", arguments.json, write_json), ("written", arguments.out, write_html)]
    deliver(files, show)


def deliver(
    files: Sequence[tuple[str, str | os.PathLike | None, Callable[[], object]]],
    show: Callable[[], None],
) -> None:
    """Writes the files that are asked for, shows the results, and only then raises what went wrong.

    Of each file: what is said of it when it is written, if anything, its path or None, and what
    writes it.

    Files come first: a pipe that is closed early must not cost them. A file that can't be written
    must cost neither the others nor what is shown.
    """
    told, problems = [], []
    for said, path, write in files:
        if path is None:
            continue
        try:
            write()
        except Exception as problem:  # of any kind: the results are not to be had again
            problems.append(problem)
        else:
            told += [f"{said}: {path}"] if said else []
    show()
    for line in told:
        say(line)
    for problem in problems:
        raise problem


def _figure(result: Result, title: str, caption: str, what: str) -> HeatMap | BarList:
    if len(result.shape) == 2:
        return heads_heat_map(result, title, caption)
    return ranking_bars(result, title, len(result.senders), ordered=False, what=what)
