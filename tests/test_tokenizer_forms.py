"""Every form of a tokenizer's folder gives the ids, texts and BOS that transformers gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from gpt2_files import gpt2_files
from hypothesis import HealthCheck, given, settings
from tokenizer_folders import (
    END_OF_TEXT,
    TEXTS,
    drawn_files,
    numbered,
    pipeline,
    vocabulary,
    write_folder,
)
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ioi_fast.ioi.dataset import ioi_prompts
from ioi_fast.tokenizer import Tokenizer, bos_id, check_codec, padding_id, plain_ids

IDS = vocabulary(END_OF_TEXT)
BARE = vocabulary()
START = "<|startoftext|>"


def whole(change: Callable[[tokenizers.Tokenizer], object] = lambda _: None, **how: Any) -> Any:
    backend = pipeline(IDS, **how)
    change(backend)
    return backend


def of_class(name: str, **more: Any) -> dict[str, Any]:
    return {"tokenizer_config": {"tokenizer_class": name, **more}}


def listed(*tokens: str, **flags: bool) -> dict[str, Any]:
    return {str(i): {"content": t, **flags} for t, i in numbered(IDS, list(tokens)).items()}


def adding(**flags: bool) -> tokenizers.Tokenizer:
    return whole(lambda t: t.add_tokens([AddedToken(w, **flags) for w in ("Zorb", "<s>")]))


def front(backend: tokenizers.Tokenizer) -> None:
    backend.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, IDS[END_OF_TEXT])]
    )


FAST = "PreTrainedTokenizerFast"
FORMS: dict[str, dict[str, Any]] = {
    "slow": {},
    "slow, class named": of_class("GPT2Tokenizer"),
    "slow, class in config": {"config": {"model_type": "gpt2", "tokenizer_class": "GPT2Tokenizer"}},
    "fast": {"whole": whole(), "slow": False},
    "fast, class named": {"whole": whole(), "slow": False, **of_class("GPT2TokenizerFast")},
    "fast, as written": {"whole": whole(), "slow": False, **of_class(FAST)},
    "fast, nothing tells the class": {"whole": whole(), "slow": False, "config": {"n_ctx": 9}},
    "own normalizer, nothing tells the class": {
        "whole": whole(lambda t: setattr(t, "normalizer", normalizers.NFKC())),
        "slow": False,
        "config": {"n_ctx": 9},
        "tokenizer_config": {"bos_token": END_OF_TEXT},
    },
    "fast beside another slow one": {"whole": whole(), "ids": {"a": 0, "b": 1}},
    "prefix space": of_class("GPT2Tokenizer", add_prefix_space=True),
    "prefix space, fast": {"whole": whole(), **of_class("GPT2Tokenizer", add_prefix_space=True)},
    "prefix space, as written": {"whole": whole(), **of_class(FAST, add_prefix_space=True)},
    "prefix space in tokenizer.json": {
        "whole": whole(
            lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True))
        )
    },
    "added_tokens.json": {"added_tokens": numbered(IDS, ["[Space]", " Zorb", "<s>"])},
    "added_tokens_decoder": of_class(
        "GPT2Tokenizer", added_tokens_decoder=listed("[Space]", "<s>", lstrip=True)
    ),
    "added_tokens_decoder stands alone": {
        "added_tokens": numbered(IDS, ["<pad>"]),
        "special_tokens_map": {"bos_token": "</s>"},
        **of_class("GPT2Tokenizer", added_tokens_decoder=listed("Zorb", rstrip=True)),
    },
    "own BOS": of_class("GPT2Tokenizer", bos_token=START, eos_token="<s>"),
    "own BOS as an object": of_class(
        "GPT2Tokenizer", bos_token={"__type": "AddedToken", "content": "<s>", "lstrip": True}
    ),
    "own BOS, slow of old": {
        "added_tokens": numbered(IDS, [START]),
        "special_tokens_map": {"bos_token": START},
    },
    "own BOS, as written": {"whole": adding(), **of_class(FAST, bos_token="<s>")},
    "no BOS": of_class("GPT2Tokenizer", bos_token=None),
    "add_bos_token": of_class("GPT2Tokenizer", add_bos_token=True),
    "add_bos_token, fast": {"whole": whole(front), **of_class("GPT2Tokenizer", add_bos_token=True)},
    "special tokens map": {
        "special_tokens_map": {
            "bos_token": {"content": "<s>", "lstrip": False, "rstrip": True, "normalized": True},
            "pad_token": "<pad>",
            "additional_special_tokens": ["Zorb"],
        }
    },
    "map over config": {
        "special_tokens_map": {"bos_token": "<s>"},
        **of_class("GPT2Tokenizer", bos_token="</s>"),
    },
    "tokens with names of their own": of_class("GPT2Tokenizer", image_token="<s>"),
    "names of their own as transformers 5 writes them": of_class(
        FAST, model_specific_special_tokens={"image_token": "<s>"}
    )
    | {"whole": whole()},
    "truncation": {"whole": whole(lambda t: t.enable_truncation(2))},
    "truncation, as written": {"whole": whole(lambda t: t.enable_truncation(2)), **of_class(FAST)},
    "padding": {"whole": whole(lambda t: t.enable_padding(length=99))},
    "padding, as written": {
        "whole": whole(lambda t: t.enable_padding(length=99)),
        **of_class(FAST),
    },
    "special tokens split": of_class("GPT2Tokenizer", split_special_tokens=True),
    "no end of text": {"ids": BARE},
    "no end of text, as written": {"whole": pipeline(BARE), "slow": False, **of_class(FAST)},
    "dropout left out": {"whole": whole(dropout=0.5)},
    "no class, no model type": {"config": {}, **of_class("GPT2Tokenizer")},
}
FORMS |= {
    f"{flag}, {kind or 'GPT-2'}": {
        "whole": adding(**{flag: True}),
        **(of_class(kind) if kind else {}),
    }
    for flag in ("lstrip", "rstrip", "single_word", "normalized", "special")
    for kind in ("", FAST)
}


def check_same(directory: Path) -> tuple[Tokenizer, Any]:
    """Ours and transformers' tokenizer of a folder, after ids and texts were held together."""
    ours, theirs = Tokenizer.from_directory(directory), AutoTokenizer.from_pretrained(directory)
    assert ours is not None
    for text in TEXTS:
        expected = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text) == plain_ids(theirs, text) == expected, text
        assert ours.decode(expected) == theirs.decode(expected), text
    return ours, theirs


@pytest.mark.parametrize("form", FORMS)
def test_ids_texts_and_bos_are_those_of_transformers(form: str, tmp_path: Path) -> None:
    ours, theirs = check_same(write_folder(tmp_path, **FORMS[form]))
    expected = None if form == "no end of text" else theirs.bos_token_id
    if expected is None:
        assert ours.bos_id is None
        with pytest.raises(ValueError, match="prepend_bos: the tokenizer Tokenizer has no BOS"):
            bos_id(ours)
    else:
        assert bos_id(ours) == bos_id(theirs) == expected


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(files=drawn_files())
def test_drawn_folders(files: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    check_drawn(write_folder(tmp_path_factory.mktemp("drawn"), **files))


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(files=drawn_files())
def test_300_folders(files: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    check_drawn(write_folder(tmp_path_factory.mktemp("drawn"), **files))


def check_drawn(directory: Path) -> None:
    ours, theirs = check_same(directory)
    # A class's own BOS that is in no file is none of this model's.
    assert ours.bos_id == theirs.bos_token_id or (
        ours.bos_id is None and theirs.bos_token == END_OF_TEXT
    )


def test_gpt2s_own_vocabulary(tmp_path: Path) -> None:
    for name, path in zip(("vocab.json", "merges.txt"), gpt2_files(), strict=True):
        (tmp_path / name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    check_same(tmp_path)
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "fast")
    (tmp_path / "fast" / "config.json").write_text('{"model_type": "gpt2"}')
    check_same(tmp_path / "fast")


def test_dropout_gives_the_same_ids_each_time(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, whole=whole(dropout=0.9), **of_class(FAST))
    text = "the other and the other"
    wanted = Tokenizer(pipeline(IDS)).encode(text)
    assert Tokenizer.from_directory(folder).encode(text) == wanted
    own = whole(lambda t: (t.enable_truncation(1), t.enable_padding(length=50)), dropout=0.9)
    assert Tokenizer(own).encode(text) == wanted
    assert own.truncation is not None and own.model.dropout is not None  # its owner's stays
    with pytest.raises(ValueError, match=r"merges at random .*dropout = None"):
        check_codec(AutoTokenizer.from_pretrained(folder))


def test_a_model_that_is_no_bpe_is_read_as_written(tmp_path: Path) -> None:
    words = tokenizers.Tokenizer(models.WordLevel({"Mary": 3, "?": 0}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.enable_truncation(1)
    for settings_ in ({}, of_class(FAST)):
        folder = write_folder(tmp_path, whole=words, slow=False, **settings_)
        assert Tokenizer.from_directory(folder).encode("Mary and Mary") == [3, 0, 3]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("spiece.model", "SentencePiece"),
        ("tokenizer.model", "SentencePiece"),
        ("tiktoken.model", "tiktoken"),
        ("gpt2.tiktoken", "tiktoken"),
        ("vocab.txt", "WordPiece"),
        ("encoder.json", "name that transformers does not read"),
    ],
)
def test_other_vocabularies_are_refused_by_name(name: str, form: str, tmp_path: Path) -> None:
    write_folder(tmp_path, slow=False)
    assert Tokenizer.from_directory(tmp_path) is None  # no vocabulary at all
    (tmp_path / name).write_bytes(b"\0")
    with pytest.raises(ValueError, match=rf"{name} is .*{form}.*PreTrainedTokenizerFast"):
        Tokenizer.from_directory(tmp_path)
    write_folder(tmp_path)  # a vocabulary that is read stands over it
    assert Tokenizer.from_directory(tmp_path) is not None


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"auto_map": {"AutoTokenizer": ["own.Own", None]}}, "auto_map: .*code of its own"),
        ({"auto_map": ["own.Own", None]}, "auto_map: .*code of its own"),
        ({"fast_tokenizer_files": ["../../x.json"]}, "fast_tokenizer_files: "),
        ({"vocab": {"a": 0}}, "vocab: .*given in the settings"),
        ({"tokenizer_class": "T5Tokenizer"}, "tokenizer_class 'T5Tokenizer' is not read here"),
        ({"tokenizer_class": FAST}, "needs a tokenizer.json"),
    ],
)
def test_settings_that_are_not_read_are_refused_by_name(
    settings_: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, tokenizer_config=settings_)
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_directory(tmp_path)


def test_what_a_refusal_says_works(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "own", **of_class("RobertaTokenizer"))
    with pytest.raises(ValueError, match="give t itself to the calls") as refusal:
        Tokenizer.from_directory(folder)
    assert "write PreTrainedTokenizerFast(tokenizer_object=t.backend_tokenizer" in str(
        refusal.value
    )
    t = AutoTokenizer.from_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=t.backend_tokenizer, bos_token=t.bos_token, eos_token=t.eos_token
    ).save_pretrained(tmp_path / "new")
    ours = Tokenizer.from_directory(tmp_path / "new")
    for text in TEXTS:
        assert ours.encode(text) == t.encode(text, add_special_tokens=False)
    assert ours.bos_id == t.bos_token_id


def test_added_tokens_keep_the_ids_of_their_file(tmp_path: Path) -> None:
    write_folder(tmp_path, added_tokens={"<s>": len(IDS) + 5})
    with pytest.raises(ValueError, match=rf"added_tokens\.json: .*'<s>' has id {len(IDS) + 5}"):
        Tokenizer.from_directory(tmp_path)


def test_bos_and_padding_of_transformers_tokenizers(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ids=BARE, **of_class("GPT2Tokenizer", eos_token="</s>"))
    theirs, ours = AutoTokenizer.from_pretrained(folder), Tokenizer.from_directory(folder)
    assert theirs.eos_token_id >= len(BARE)  # behind the vocabulary, where a model may have no row
    assert padding_id(theirs) == padding_id(ours) == 0
    theirs.bos_token = "<nowhere>"  # transformers answers with the id of unk_token
    with pytest.raises(ValueError, match=r"prepend_bos: .* lacks its bos_token '<nowhere>'"):
        bos_id(theirs)
    theirs.bos_token = None
    with pytest.raises(ValueError, match=r"prepend_bos: .* has no BOS"):
        bos_id(theirs)


@pytest.mark.parametrize("theirs", [False, True])
def test_prompts_with_and_without_bos(theirs: bool, tmp_path: Path) -> None:
    ids = json.loads(gpt2_files()[0].read_text("utf-8"))
    ids.pop(END_OF_TEXT)
    write_folder(tmp_path, ids=ids, **of_class("GPT2Tokenizer", bos_token=None, add_bos_token=True))
    (tmp_path / "merges.txt").write_bytes(gpt2_files()[1].read_bytes())
    tokenizer = (AutoTokenizer.from_pretrained if theirs else Tokenizer.from_directory)(tmp_path)
    pairs = ioi_prompts(tokenizer, n=8, seed=3)
    assert int(pairs.orig.max()) < len(ids)
    with pytest.raises(ValueError, match="prepend_bos"):
        ioi_prompts(tokenizer, n=1, prepend_bos=True)
    config = of_class("GPT2Tokenizer", bos_token=START, add_bos_token=True)["tokenizer_config"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    own = (AutoTokenizer.from_pretrained if theirs else Tokenizer.from_directory)(tmp_path)
    behind = ioi_prompts(own, n=8, seed=3, prepend_bos=True)
    assert behind.orig[:, 0].tolist() == [len(ids)] * 8
    for row, plain in zip(behind.orig.tolist(), pairs.orig.tolist(), strict=True):
        assert row[1:] == plain
