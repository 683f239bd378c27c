"""Options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable

import torch

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.circuit_files import load_circuit
from ioi_fast.asked.prompt_files import load_prompts
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.choose_backend import BACKENDS, PRECISIONS
from ioi_fast.commands.output_paths import check_outputs
from ioi_fast.ioi.circuits import published_circuit
from ioi_fast.ioi.dataset import check_drawn, ioi_prompts
from ioi_fast.model.checkpoint import load
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.outside.quoting import quoted
from ioi_fast.plan.available_memory import check_available
from ioi_fast.plan.fit_to_memory import Plan

_PUBLISHED = {"published": "full", "naive": "naive"}
# Of a result's number: in fp32, where it is made and where it is kept; as Python's, and as text.
_BYTES_OF_A_VALUE, _WRITTEN_IN_JSON = 16, 200
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def add_inputs(parser: argparse.ArgumentParser, n: int, file: bool = True) -> None:
    """--model, --prompts and how prompts are drawn."""
    inputs = parser.add_argument_group("model and prompts")
    inputs.add_argument(
        "--model",
        default="demo",
        metavar="MODEL",
        help="'demo' (bundled), a directory with config.json and *.safetensors, or a hub id",
    )
    if file:
        inputs.add_argument("--prompts", metavar="FILE", help="a file of prompts instead")
    inputs.add_argument("--n", type=positive, help=f"prompts (default {n})")
    inputs.add_argument("--seed", type=int, help="seed of the prompts (default 0)")
    inputs.add_argument("--forms", choices=("mixed14", "all30"), help="templates (default mixed14)")
    parser.set_defaults(drawn_unless_named={"n": n, "seed": 0, "forms": "mixed14"})
    inputs.add_argument("--bos", action="store_true", help="begin every prompt with <|endoftext|>")


def add_running(parser: argparse.ArgumentParser) -> None:
    """--backend, --precision, --threads and --quiet."""
    running = parser.add_argument_group("running")
    running.add_argument("--backend", default="auto", choices=BACKENDS)
    running.add_argument("--precision", default="fp32", choices=PRECISIONS)
    running.add_argument("--threads", type=positive, default=None, help="threads of torch")
    running.add_argument("--quiet", action="store_true", help="no progress bars")


def add_plan(parser: argparse.ArgumentParser) -> None:
    """--max-memory and --plan."""
    parser.add_argument("--max-memory", type=memory, help="such as 500M or 2G")
    parser.add_argument("--plan", action="store_true", help="print the plan and do nothing")


def check_plan(arguments: argparse.Namespace) -> None:
    """Raises ValueError for outputs that a plan does not have, or that can't be written."""
    if arguments.plan and (arguments.json or arguments.out):
        raise ValueError("--plan prints the plan and runs nothing: leave --json and --out away")
    if not arguments.plan:
        outputs = (arguments.json, arguments.out)
        check_outputs(arguments, *outputs, page=bool(arguments.out))


def position(text: str) -> object:
    """What --position means: None for 'all', a token position, or a role."""
    if text == "all":
        return None
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text


def read_model(arguments: argparse.Namespace) -> GPT2:
    """The model that --model names; raises ValueError when it can't read text."""
    on_gpu = getattr(arguments, "backend", "auto") == "triton" and torch.cuda.is_available()
    model = load(arguments.model, device="cuda" if on_gpu else "cpu")
    if model.tokenizer is None:
        raise ValueError(
            f"--model {arguments.model}: the checkpoint has no tokenizer.json (or vocab.json and "
            "merges.txt), so prompts can't be tokenized"
        )
    return model


def read_prompts(arguments: argparse.Namespace, model: GPT2, values: int) -> PromptPairs:
    """The prompts that the options ask for, of each of which a result has so many values.

    Raises ValueError, before any is drawn, for more than memory can hold.
    """
    if getattr(arguments, "prompts", None):
        try:
            pairs = load_prompts(arguments.prompts, model.tokenizer, prepend_bos=arguments.bos)
        except OSError as problem:
            reason = problem.strerror or problem
            raise OSError(f"--prompts {arguments.prompts} can't be read: {reason}") from None
        if _named(arguments):
            named = " and ".join(f"--{name}" for name in _named(arguments))
            raise ValueError(f"{named} would draw prompts, and --prompts names a file of them")
        return pairs
    how, to_file = drawing(arguments), bool(getattr(arguments, "json", None))
    check_drawn(how["n"], "--n", values * (_BYTES_OF_A_VALUE + to_file * _WRITTEN_IN_JSON))
    return ioi_prompts(model.tokenizer, **how, prepend_bos=arguments.bos)


def check_fits(plan: Callable[[], Plan], model: GPT2) -> None:
    """Raises ValueError for a call that the memory of this machine can't hold, by its plan."""
    if model.device.type != "cpu":
        return
    try:
        needed = plan().peak_bytes
    except (ValueError, TypeError, RuntimeError):
        return  # the reference has no plan, and what is wrong with a call it says itself
    check_available(needed, "the call (--max-memory splits it, --plan shows it)")


def drawing(arguments: argparse.Namespace) -> dict[str, object]:
    """How prompts are drawn: what --n, --seed and --forms name, and defaults of the others."""
    return {**arguments.drawn_unless_named, **_named(arguments)}


def _named(arguments: argparse.Namespace) -> dict[str, object]:
    given = {name: getattr(arguments, name) for name in arguments.drawn_unless_named}
    return {name: value for name, value in given.items() if value is not None}


def drawn(arguments: argparse.Namespace) -> dict[str, object]:
    """How the prompts came about, for provenance."""
    if getattr(arguments, "prompts", None):
        return {"prompt_file": arguments.prompts, "bos": arguments.bos}
    how = drawing(arguments)
    return {"seed": how["seed"], "forms": how["forms"], "bos": arguments.bos}


def progress(arguments: argparse.Namespace) -> bool:
    """Whether progress bars are wanted."""
    return not arguments.quiet and sys.stderr.isatty()


def positive(text: str) -> int:
    """A positive integer, for argparse."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return value


def ablations(text: str, option: str) -> dict[str, str | list[str]]:
    """{node: role or roles} from NODE@ROLE,NODE@ROLE/ROLE; raises ValueError naming the option."""
    parts = [part.strip().partition("@") for part in text.split(",")]
    for node, at, _ in parts:
        if not at:
            raise ValueError(f"{option}: expected NODE@ROLE like 9.9@END, got {node!r}")
        if [other for other, _, _ in parts].count(node) > 1:
            raise ValueError(f"{option}: {node} is there twice")
    return {node: role.split("/") if "/" in role else role for node, _at, role in parts}


def named_circuit(text: str) -> Circuit:
    """GPT-2 small's "published" or "naive" circuit, or that of a file; raises ValueError naming
    --circuit."""
    if not text:
        raise ValueError("--circuit must be published, naive or the name of a file, got ''")
    if text in _PUBLISHED:
        return published_circuit(_PUBLISHED[text])
    try:
        return load_circuit(text)
    except (ValueError, OSError) as problem:
        raise ValueError(f"--circuit: {problem}") from None


def memory(text: str) -> int:
    """Bytes from 500M or 2G (powers of 1024), for argparse."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?", text.strip().lower())
    # No machine has 2**63 bytes, and nothing larger can be counted with.
    size = int(float(match[1][:30]) * _UNITS[match[2]]) if match else 0
    if not 1 <= size < 2**63:
        raise argparse.ArgumentTypeError(f"expected a size like 500M or 2G, got {quoted(text)}")
    return size
