"""Environments of peers: built once, whole or not at all, apart from the project, from an index.

The index is a folder with two tiny packages; one of them is called torch.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from ioi_fast.benchmarks import peer_environment

PEER = "peer_probe"


def publish(index: Path, name: str, version: str) -> str:
    """Puts a package of one line into an index, and gives the index's address."""
    folder = index / name.replace("_", "-")
    folder.mkdir(parents=True, exist_ok=True)
    wheel, info = f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    (folder / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>', encoding="utf-8")
    return index.as_uri()


@pytest.fixture
def peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and pip set to an index that has the peer only."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", publish(tmp_path / "index", PEER, "1.0"))
    monkeypatch.setenv(peer_environment.CACHE_VARIABLE, str(tmp_path / "peers"))
    return tmp_path / "peers"


def pinned(folder: Path, *lines: str) -> Path:
    path = folder / "pins.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def seen_by(python: Path, folder: Path, code: str) -> list[str]:
    script = folder / "script.py"
    script.write_text(code, encoding="utf-8")
    return peer_environment.run_script(python, script, "argument", folder=folder).split()


SEEN = """
import importlib.util, os, sys, peer_probe
ours = [name for name in ("ioi_fast", "kernels", "torch") if importlib.util.find_spec(name)]
print(peer_probe.version, ours, sys.argv[1], os.environ["HF_HUB_OFFLINE"])
"""


def test_an_environment_has_the_peer_and_nothing_of_ours(peers, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    python = peer_environment.python_of(pinned(tmp_path, f"{PEER}==1.0"))
    assert python.is_relative_to(peers)
    assert seen_by(python, tmp_path, SEEN) == ["1.0", "[]", "argument", "1"]


@pytest.mark.slow
def test_an_environment_is_built_once(peers, tmp_path, monkeypatch):
    pins = pinned(tmp_path, f"{PEER}==1.0")
    python = peer_environment.python_of(pins)
    monkeypatch.setattr(peer_environment, "_build", lambda *_: pytest.fail("built again"))
    assert peer_environment.python_of(pins) == python
    pinned(tmp_path, f"{PEER}==1.0", "# other pins")
    with pytest.raises(pytest.fail.Exception, match="built again"):
        peer_environment.python_of(pins)


def test_a_killed_build_leaves_nothing_that_is_taken_for_an_environment(
    peers, tmp_path, monkeypatch
):
    pins = pinned(tmp_path, f"{PEER}==1.0")

    def killed(requirements: Path, home: Path) -> None:
        (home / "rubbish").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(peer_environment, "_install", killed)
        peer_environment.python_of(pins)
    (left,) = (folder for folder in peers.iterdir() if folder.is_dir())
    assert ".building-" in left.name
    python = peer_environment.python_of(pins)
    assert [folder for folder in peers.iterdir() if folder.is_dir()] == [python.parents[1]]
    assert not (python.parents[1] / "rubbish").exists()


@pytest.mark.slow
def test_torch_comes_from_its_own_index(peers, tmp_path, monkeypatch):
    pins = pinned(tmp_path, "torch==1.0", f"{PEER}==1.0")
    with pytest.raises(peer_environment.NoPackageIndex, match=r"torch==1\.0"):
        peer_environment.python_of(pins)
    monkeypatch.setenv("TORCH_INDEX", publish(tmp_path / "other", "torch", "1.0"))
    python = peer_environment.python_of(pins)
    assert seen_by(python, tmp_path, SEEN) == ["1.0", "['torch']", "argument", "1"]


UNREACHABLE = "http://127.0.0.1:9/simple"


@pytest.mark.parametrize("other", ["nothing", "another version"])
def test_without_an_index_the_reason_names_what_is_missing(peers, tmp_path, monkeypatch, other):
    monkeypatch.setenv("PIP_INDEX_URL", UNREACHABLE)
    if other != "nothing":
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", publish(tmp_path / "shelf", PEER, "0.9"))
    with pytest.raises(peer_environment.NoPackageIndex, match=rf"pins\.txt: .*{PEER}==1\.0"):
        peer_environment.python_of(pinned(tmp_path, f"{PEER}==1.0"))
    assert not [folder for folder in peers.iterdir() if folder.is_dir()]


def test_a_wrong_pin_is_no_missing_index(peers, tmp_path):
    with pytest.raises(RuntimeError, match=r"from versions: 1\.0"):
        peer_environment.python_of(pinned(tmp_path, f"{PEER}==2.0"))
    assert not [folder for folder in peers.iterdir() if folder.is_dir()]


def test_a_script_that_fails_says_why(peers, tmp_path):
    python = peer_environment.python_of(pinned(tmp_path))
    with pytest.raises(RuntimeError, match="something is wrong"):
        seen_by(python, tmp_path, "raise SystemExit('something is wrong')")
