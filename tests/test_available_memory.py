"""More than memory can hold is refused before anything is made."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest

from ioi_fast import ioi_prompts, load
from ioi_fast.cli import main
from ioi_fast.commands import options
from ioi_fast.ioi import dataset
from ioi_fast.plan import available_memory

pytestmark = pytest.mark.skipif(
    available_memory.available_memory() is None, reason="the system does not tell"
)


@pytest.mark.parametrize(
    "command",
    [
        ["path-patch"],
        ["path-patch", "--plan"],
        ["ablate"],
        ["pairs", "--per-prompt", "--json", "x.json"],
        ["demo"],
        ["reproduce", "E1"],
    ],
)
@pytest.mark.parametrize("n", [10**9, 10**30, 10**400])
def test_prompts_that_memory_cannot_hold(command, n, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    begun = time.perf_counter()
    assert main([*command, "--n", str(n)]) == 2
    said = capsys.readouterr().err
    assert "--n: " in said and "GiB are left" in said and said.count("\n") == 1 and len(said) < 400
    assert time.perf_counter() - begun < 10 and not list(tmp_path.iterdir())


def test_the_library_refuses_them_too() -> None:
    with pytest.raises(ValueError, match=r"n: 1000000000000 prompts would take some .* GiB"):
        ioi_prompts(load("demo").tokenizer, n=10**12)


def test_what_a_prompt_takes_is_what_is_said() -> None:
    tokenizer = load("demo").tokenizer
    ioi_prompts(tokenizer, n=10)
    tracemalloc.start()  # of Python's objects; the tensors are the smaller part
    ioi_prompts(tokenizer, n=500)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.5 < peak / (500 * dataset._BYTES_OF_A_PROMPT) < 1


def test_a_call_whose_plan_is_too_large(capsys, monkeypatch) -> None:
    monkeypatch.setattr(available_memory, "available_memory", lambda: 2**20)
    monkeypatch.setattr(options, "check_drawn", lambda *given: None)
    assert main(["ablate", "--n", "4", "--variants", "mlps"]) == 2
    assert "the call (--max-memory splits it, --plan shows it) would" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "inside", "names"),
    [
        ("0::/a/b", ".", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:cpu,memory:/a/b",
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_control_groups(line, inside, names, tmp_path: Path, monkeypatch) -> None:
    """Files as the kernel has them; the tightest group on the way up decides."""
    limit, used, files = names
    for folder, most in (("a/b", 9000), ("a", 5000), (".", "max")):
        group = tmp_path / inside / folder
        group.mkdir(parents=True, exist_ok=True)
        (group / limit).write_text(f"{most}\n")
        (group / used).write_text("3000\n")
        (group / "memory.stat").write_text(f"anon 1\n{files} 700\n")
    real = available_memory._text
    asked = Path("/proc/self/cgroup")
    monkeypatch.setattr(available_memory, "_CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(
        available_memory, "_text", lambda file: line if file == asked else real(file)
    )
    assert sorted(available_memory._of_control_groups()) == [2700, 6700]
    assert available_memory.available_memory() == 2700
