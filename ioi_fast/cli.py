"""`ioi-fast`: the command line; every command is a file of ioi_fast/commands."""

from __future__ import annotations

import argparse
import io
import logging
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from ioi_fast.commands import (
    ablate,
    bench,
    demo,
    doctor,
    faithfulness,
    pairs,
    path_patch,
    reproduce,
)
from ioi_fast.outside.quoting import shortened
from ioi_fast.report.terminal import say
from ioi_fast.report.typesetting import visible


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0 done, 1 a check failed, 2 bad input, 130 ^C."""
    if arguments is None:
        _behave_in_shells()
    chosen = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            _show_log()
            return chosen.run(chosen)
    except (ValueError, TypeError, RuntimeError, ImportError, OSError, MemoryError) as error:
        said = shortened(str(error)) or type(error).__name__
        say(f"ioi-fast {chosen.command}: {said}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nioi-fast {chosen.command}: stopped; nothing was written half", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The parser of `ioi-fast` with all its commands."""
    whole = _Parser(
        prog="ioi-fast", description="Exact path patching of GPT-2 in one batched wave."
    )
    whole.add_argument("--version", action="version", version=f"ioi-fast {version('ioi_fast')}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (demo, path_patch, ablate, pairs, reproduce, faithfulness, bench, doctor):
        command.add_parser(commands)
    return whole


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints show what was typed, whatever it is."""

    def error(self, message: str) -> NoReturn:
        super().error(shortened(visible(message)))


class _Line(logging.Formatter):
    """One line of the log, whatever stands in the names that it tells of."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _behave_in_shells() -> None:
    """As other tools do: end quietly when a reader such as `head` goes, print what it can show, and
    take away what is half written when it is told to end."""
    signal.signal(signal.SIGTERM, _end)
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _show_log() -> None:
    """What takes long and happens once, such as compiling the kernels, is said while it happens."""
    log = logging.getLogger("ioi_fast")
    if not log.handlers:
        shown = logging.StreamHandler()
        shown.setFormatter(_Line("note: %(message)s"))
        log.addHandler(shown)
        log.setLevel(logging.INFO)


def _show_warning(message: Warning | str, *where: object, **more: object) -> None:
    say(f"note: {message}", sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
