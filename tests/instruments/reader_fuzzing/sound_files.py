"""Sound files for every reader: small, with something in every part that a file can have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from checkpoints import lively_model, write
from gpt2_files import gpt2_tokenizer
from tokenizer_folders import numbered
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from ioi_fast.asked.circuit import Circuit
from ioi_fast.commands.finding_files import store
from ioi_fast.ioi.finding import Finding
from ioi_fast.ioi.verdicts import Measure
from ioi_fast.report.figures import AttentionMap, BarList, HeatMap, Scatter, Table


def checkpoint(folder: Path, shards: bool) -> None:
    model = lively_model(n_embd=12, n_head=3, vocab_size=11, n_positions=8)
    if shards:
        model.save_pretrained(folder, max_shard_size="8KB")
    else:
        write(folder, model)


_VOCABULARY = {**{chr(97 + i): i for i in range(5)}, "ab": 5}
_ADDED = numbered(_VOCABULARY, ["<s>", "[Space]"])
_SPECIAL = {
    "bos_token": {"content": "<s>", "lstrip": True},
    "additional_special_tokens": ["[Space]"],
}
_FLAGS = {"add_prefix_space": True, "split_special_tokens": False, "model_max_length": 5}


def _whole() -> dict[str, Any]:
    """A tokenizer.json that has something in every part that can be told in a line."""
    backend = Tokenizer(models.BPE(vocab=_VOCABULARY, merges=[("a", "b")], dropout=0.1))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken("<s>", lstrip=True), AddedToken("[Space]", special=True)])
    backend.enable_truncation(5)
    backend.enable_padding(length=3)
    content = json.loads(backend.to_str())
    content["normalizer"] = {"type": "Replace", "pattern": {"Regex": "b+"}, "content": "cc"}
    return content


def tokenizer(folder: Path, kind: str, listed: bool) -> None:
    """A folder of the fast kind or of GPT2Tokenizer, whose tokens stand in one of two files."""
    settings: dict[str, Any] = {
        "tokenizer_class": kind,
        "eos_token": "[Space]",
        **_FLAGS,
        **_SPECIAL,
    }
    if listed:
        settings["added_tokens_decoder"] = {str(i): {"content": t} for t, i in _ADDED.items()}
    files = {"vocab": _VOCABULARY, "special_tokens_map": _SPECIAL, "tokenizer_config": settings}
    if not listed:
        files["added_tokens"] = _ADDED
    if kind != "GPT2Tokenizer":
        files["tokenizer"] = _whole()
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")


def prompts(folder: Path) -> None:
    text = "Then, {} and {} walked to the store. {} handed a ring to".format
    record = {
        "clean": text("Mary", "John", "John"),
        "corrupt": text("Paul", "Lisa", "Sarah"),
        "answers": [" Mary"],
        "wrong_answers": [" John"],
    }
    other = {**record, "corrupt": text("Lisa", "Paul", "Sarah")}
    words = {"IO": 2, "S1": 4, "S2": 10, "end": 14}
    content = {"prompts": [record, other], "word_idxs": words}
    (folder / "prompts.json").write_text(json.dumps(content))
    rows = ["clean,corrupted,correct_idx,incorrect_idx"]
    ids = ",".join(str(gpt2_tokenizer().encode(name)[0]) for name in (" Mary", " John"))
    rows += [f'"{one["clean"]}","{one["corrupt"]}",{ids}' for one in (record, other)]
    (folder / "prompts.csv").write_text("\n".join(rows))


def circuit(folder: Path) -> None:
    content = {
        "heads": {"1.0": "END", "0.1": ["S1+1", "S2"]},
        "classes": {"movers": ["1.0"], "others": ["0.1"]},
        "edges": [["0.1", "1.0.k"], ["0.1", "1.0.q"]],
    }
    (folder / "circuit.json").write_text(json.dumps(content))


def finding(folder: Path) -> None:
    figures = (
        HeatMap(
            "h",
            "c",
            [[1.0, None], [-1.0, 0.5]],
            row_labels=["0", "1"],
            column_labels=["a", "b"],
            marked={(0, 1)},
        ),
        BarList("b", "c", ["x", "y"], [0.5, -1.0]),
        AttentionMap("a", ["When", "Mary"], [[1.0, 0.0], [0.25, 0.75]], "1.0", "c", {"END": 1}),
        Table("t", "c", ["one", "two"], [["x", 1.5], ["y", None]]),
        Scatter("s", "c", [1.0, 2.0], [0.5, -1.0], ["p", "q"], ["first", "second"], "x", "y"),
    )
    measures = (Measure("share", 0.5, 10, 0.1, "0.4", "± 0.1", "agrees"), Measure("h", "9.9", 10))
    circuit = Circuit({"1.0": "END", "0.1": "S2"}, {"movers": ["1.0"]})
    store(folder / "E1.json", "k", Finding("E1", "a title", measures, figures, circuit), 1.0)
