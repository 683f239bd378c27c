"""Models by Hugging Face id, each load in a fresh process against a hub on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import lively_model, write
from hub_server import COMMIT, HubServer

from ioi_fast.model.checkpoint import load
from ioi_fast.tokenizer.files import READ

# Loads each source, prints one line of JSON for each: what it became, or the error.
SCRIPT = """
import json, sys, time
from ioi_fast.model.checkpoint import load
for source, arguments in json.loads(sys.argv[1]):
    start = time.perf_counter()
    try:
        model = load(source, **arguments)
        found = {"name": model.name, "hash": model.weight_hash(),
                 "bos": model.tokenizer and model.tokenizer.bos_id}
    except Exception as error:
        found = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps({**found, "seconds": time.perf_counter() - start}))
"""


def load_elsewhere(
    home: Path, endpoint: str, *sources: str, offline: bool = False, **arguments: str
) -> list[dict]:
    """What `load` gives in a fresh process with a hub cache of its own."""
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    for name in [name for name in environment if name.startswith(("HF_", "HUGGINGFACE_"))]:
        del environment[name]
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    home.mkdir(exist_ok=True)
    jobs = json.dumps([(source, arguments) for source in sources])
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, jobs],
        capture_output=True,
        text=True,
        env=environment,
        cwd=home,  # where no directory has the name of a model
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    directory = write(tmp_path / "repository", lively_model())
    for name in ("pytorch_model.bin", "tf_model.h5", "rust_model.ot", "README.md"):
        (directory / name).write_bytes(b"not wanted")
    (directory / "onnx").mkdir()
    (directory / "onnx" / "model.safetensors").write_bytes(b"not wanted either")
    content = {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    settings = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>"}
    files = {"tokenizer": content, "tokenizer_config": settings, "special_tokens_map": {}}
    files |= {"added_tokens": {"<s>": 1}, "vocab": {"a": 0}}
    for name, held in files.items():
        (directory / f"{name}.json").write_text(json.dumps(held))
    (directory / "merges.txt").write_text("#version: 0.2\n")
    return directory


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    lively_model(seed=3).save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    return tmp_path / "sharded"


@pytest.fixture
def hub(repository: Path, sharded: Path, tmp_path: Path) -> Iterator[HubServer]:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_bytes((repository / "config.json").read_bytes())
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(b"never fetched")
    repositories = {"gpt2": repository, "some-one/in_shards": sharded, "old": tmp_path / "old"}
    with HubServer(repositories) as server:
        yield server


def test_models_are_fetched_once_and_then_found_offline(
    hub: HubServer, repository: Path, sharded: Path, tmp_path: Path, closed_port: str
) -> None:
    home, sources = tmp_path / "home", ("gpt2", "some-one/in_shards")
    first = load_elsewhere(home, hub.url, *sources)
    assert [found.get("name") for found in first] == list(sources), first
    expected = [load(directory).weight_hash() for directory in (repository, sharded)]
    assert [found["hash"] for found in first] == expected
    assert [found["bos"] for found in first] == [1, None]
    shards = {path.name for path in sharded.glob("*.safetensors*")}
    wanted = {"config.json", "model.safetensors", *READ} | shards
    assert hub.files_asked_for() == wanted
    assert list(home.rglob(COMMIT))  # in the hub's own cache

    asked = len(hub.requests)
    for endpoint, offline in ((hub.url, True), (closed_port, False)):
        again = load_elsewhere(home, endpoint, *sources, offline=offline)
        assert [found.get("hash") for found in again] == expected, again
    assert len(hub.requests) == asked


@pytest.mark.slow
def test_what_the_hub_does_not_have(hub: HubServer, sharded: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    unknown, pickled, invalid = load_elsewhere(home, hub.url, "some-one/else", "old", "gpt--2")
    assert unknown["error"] == "ValueError"
    assert "'some-one/else' is neither a directory here nor a model" in unknown["message"]
    assert pickled["error"] == "ValueError"
    assert "'old' on the Hugging Face hub has no *.safetensors files" in pickled["message"]
    assert invalid["error"] == "ValueError"
    assert "'gpt--2' is neither a directory here nor an id" in invalid["message"]
    assert "pytorch_model.bin" not in hub.files_asked_for()
    (other,) = load_elsewhere(home, hub.url, "gpt2", revision="v9")
    assert other["error"] == "ValueError"
    assert "revision: 'gpt2' has no revision 'v9'" in other["message"]
    (sharded / "spiece.model").write_bytes(b"\0")  # fetched so that it can be refused
    (other,) = load_elsewhere(tmp_path / "new", hub.url, "some-one/in_shards")
    assert "spiece.model is a SentencePiece" in other["message"]
    (pinned,) = load_elsewhere(home, hub.url, "gpt2", revision=COMMIT)
    assert pinned["name"] == "gpt2"


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, closed_port: str) -> None:
    found = load_elsewhere(tmp_path / "home", closed_port, "gpt2", "models/of-mine")
    found += load_elsewhere(tmp_path / "home", closed_port, "distilgpt2", offline=True)
    for result, source in zip(found, ("gpt2", "models/of-mine", "distilgpt2"), strict=True):
        assert result["error"] == "ConnectionError", result
        assert result["seconds"] < 10
        for part in (repr(source), "no directory here", "give its directory", "'demo'"):
            assert part in result["message"]


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'ioi_fast\[hub\]'"):
        load("gpt2")
