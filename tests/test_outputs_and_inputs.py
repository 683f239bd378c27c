"""What a command reads is never written over, by whatever name, and is found before the work."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from written_prompts import write_prompts

import ioi_fast
from ioi_fast.cli import main
from ioi_fast.ioi.form_faithfulness import form_files

DEMO = Path(ioi_fast.__file__).parent / "demo" / "checkpoint"
QUICK = ["path-patch", "--senders", "1.6"]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_prompts(tmp_path / "prompts.json", 2, (0, 1))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copyfile(DEMO / file, folder / file)
    return folder


def refused(arguments: list[object], what: str, capsys, *files: Path) -> None:
    """The command ends with one line, and the files hold what they held."""
    before = [file.read_bytes() for file in files]
    assert main([str(part) for part in arguments]) == 2
    printed = capsys.readouterr()
    assert what in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert [file.read_bytes() for file in files] == before


def names_of(file: Path) -> list[str]:
    """Ways to write the name of a file."""
    link, hard = file.with_name("link.json"), file.with_name("hard.json")
    link.symlink_to(file.name)
    os.link(file, hard)
    roundabout = file.parent / "." / ".." / file.parent.name / file.name
    return [str(file), os.path.relpath(file), str(roundabout), str(link), str(hard)]


@pytest.mark.parametrize("option", ["--json", "--out"])
def test_the_prompts(option: str, prompts: Path, capsys) -> None:
    for name in names_of(prompts):
        asked = [*QUICK, "--prompts", prompts, option, name]
        refused(asked, "the file of --prompts that the command reads", capsys, prompts)


def test_prompts_that_are_a_link(prompts: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "link").symlink_to(prompts)
    asked = [*QUICK, "--prompts", tmp_path / "link", "--json", prompts]
    refused(asked, "the file of --prompts", capsys, prompts)


def test_the_circuit(tmp_path: Path, capsys) -> None:
    circuit = tmp_path / "circuit.json"
    circuit.write_text('{"heads": {"1.6": "END"}}')
    for name in names_of(circuit):
        asked = ["ablate", "--circuit", circuit, "--json", name]
        refused(asked, "the file of --circuit", capsys, circuit)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_files_of_the_model(name: str, model: Path, capsys) -> None:
    refused([*QUICK, "--model", model, "--json", model / name], f"it is {name}", capsys)
    (model.parent / "link.json").symlink_to(model / name)
    asked = [*QUICK, "--model", model, "--json", model.parent / "link.json"]
    refused(asked, f"it is {name} of --model", capsys, model / name)


def test_files_that_the_next_call_would_read(model: Path, capsys) -> None:
    asked = [*QUICK, "--model", model, "--json", model / "adapter_config.json"]
    refused(asked, "adapter_config.json of --model", capsys)
    assert not (model / "adapter_config.json").exists()


def test_files_of_the_bundled_model(capsys) -> None:
    refused([*QUICK, "--json", DEMO / "config.json"], "of --model", capsys, DEMO / "config.json")


def test_results_may_stand_beside_the_model_and_be_written_again(model: Path, capsys) -> None:
    small = [*QUICK, "--n", "2", "--model", str(model), "--json", f"{model}/found.json"]
    assert main(small) == 0 and main(small) == 0
    assert (model / "found.json").stat().st_size > 100


def test_the_files_of_a_study(prompts: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "out").mkdir()
    for name in ("E1.json", "report.html"):
        (tmp_path / "out" / name).symlink_to(prompts)
        asked = ["reproduce", "E1", "--prompts", prompts, "--out", tmp_path / "out"]
        refused(asked, "the file of --prompts", capsys, prompts)
        (tmp_path / "out" / name).unlink()
    circuit = tmp_path / "out" / "circuit.json"
    circuit.write_text('{"heads": {"1.6": "END"}}')
    asked = ["reproduce", "D", "--circuit", circuit, "--out", tmp_path / "out"]
    refused(asked, "D writes there", capsys, circuit)


def test_the_page_of_the_demo(model: Path, capsys) -> None:
    (model / "report.html").symlink_to("config.json")
    asked = ["demo", "--model", model, "--out", model]
    refused(asked, "config.json of --model", capsys, model / "config.json")


def test_a_folder_of_prompt_files(tmp_path: Path, capsys) -> None:
    file = write_prompts(tmp_path / "ioi_ABBA_template_0_prompts.json", 2, (15,))
    assert list(form_files(tmp_path).values()) == [file]
    refused(["faithfulness", tmp_path, "--json", file], "a file of FOLDER", capsys, file)


@pytest.mark.parametrize("name", ["same.json", "SAME.json", "./same.json"])
def test_two_outputs_with_one_name(name: str, tmp_path: Path, capsys) -> None:
    asked = [*QUICK, "--json", tmp_path / "same.json", "--out", f"{tmp_path}/{name}"]
    refused(asked, "is asked for twice", capsys)
    assert os.listdir(tmp_path) == []
