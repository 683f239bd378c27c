"""A tokenizer's folder, read as transformers 5 reads that of a GPT-2; other forms are refused
(refused_forms.py).

A folder of class GPT2Tokenizer, which a model_type "gpt2" stands for too, has GPT-2's byte-level
pipeline around the vocabulary and merges of tokenizer.json, else of vocab.json and merges.txt. A
folder of class PreTrainedTokenizerFast, or where nothing tells, has the pipeline that its
tokenizer.json describes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, models

from ioi_fast.tokenizer.backend import as_written, byte_level, library_errors
from ioi_fast.tokenizer.refused_forms import check_vocabularies, refuse_class
from ioi_fast.tokenizer.settings_files import (
    ADDED,
    CONFIG,
    MAP,
    NAMED,
    Settings,
    check_size,
    listed_tokens,
    read_file,
    read_settings,
    text_of,
    token_id,
)

END_OF_TEXT = "<|endoftext|>"
WHOLE, VOCABULARY, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
READ = (WHOLE, VOCABULARY, MERGES, CONFIG, MAP, ADDED)
_GPT2 = "GPT2Tokenizer"
# None: neither the settings nor config.json tell a class.
_AS_WRITTEN = {None, "TokenizersBackend", "PreTrainedTokenizer", "PythonBackend"}
_DEFAULTS = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)


class ReadTokenizer(NamedTuple):
    """What a folder holds: the pipeline, and the tokens that begin and end a text."""

    backend: tokenizers.Tokenizer
    bos: str | None
    eos: str | None


def read_folder(directory: Path) -> ReadTokenizer | None:
    """The tokenizer in a folder, None where there is none.

    Raises ValueError naming the file, and what to do about a form that is not read here.
    """
    whole = read_file(directory / WHOLE)
    pair = (directory / VOCABULARY, directory / MERGES)
    if whole is None and not all(path.is_file() for path in pair):
        check_vocabularies(directory)
        if read_file(directory / CONFIG) is not None:
            read_settings(directory, None)  # refuses code of its own
        return None
    settings = read_settings(directory, whole)
    if settings.kind not in {_GPT2, *_AS_WRITTEN}:
        refuse_class(directory, settings.kind, whole)
    if whole is None and settings.kind in _AS_WRITTEN - {None}:
        raise ValueError(f"{directory}: tokenizer_class {settings.kind!r} needs a {WHOLE}")
    if whole is None:
        return read_gpt2_files(*pair, settings)
    where = str(directory / WHOLE)
    # A model that is no BPE can't be meant by GPT-2's class: transformers would read nonsense.
    if settings.kind in _AS_WRITTEN or not _is_bpe(whole):
        backend = as_written(whole, where)
        check_ids(backend, ((i, token, where) for i, token in listed_tokens(whole, where)))
        return _with_tokens(backend, settings, _padding_token(whole))
    ids, merged = _vocabulary(whole["model"].get("vocab"), where), _merges(whole, where)
    return _as_gpt2(_bpe(ids, merged, f"{where} is not a BPE"), settings)


def read_gpt2_files(
    vocabulary: Path, merges: Path, settings: Settings | None = None
) -> ReadTokenizer:
    """GPT-2's two files, with settings beside them; ValueError naming the file."""
    for path in (vocabulary, merges):
        if not path.is_file():
            raise ValueError(f"{path} is no file")
    ids = _vocabulary(read_file(vocabulary), str(vocabulary))
    bpe = _bpe(ids, _merge_lines(merges), f"{vocabulary} and {merges} are not a BPE")
    return _as_gpt2(bpe, settings or Settings())


def check_ids(backend: tokenizers.Tokenizer, listed: Iterable[tuple[int, AddedToken, str]]) -> None:
    """Raise ValueError for a token whose file gives it another id than it has got."""
    for index, token, where in listed:
        got = backend.token_to_id(token.content)
        if got != index and token.content:
            raise ValueError(
                f"{where}: the added token {token.content[:80]!r} has id {index} there, but the "
                f"vocabulary makes it {got}: ids of added tokens must go on where it ends"
            )


def _as_gpt2(bpe: models.BPE, settings: Settings) -> ReadTokenizer:
    backend = byte_level(bpe, settings.add_prefix_space)
    return _with_tokens(backend, settings, _DEFAULTS)


def _with_tokens(
    backend: tokenizers.Tokenizer, settings: Settings, defaults: Mapping[str, str]
) -> ReadTokenizer:
    """Added and special tokens put in, in transformers' order, and BOS and EOS told.

    The class's own BOS and EOS hold where the vocabulary has them; they are not put into others as
    such, since no row of the model would be theirs.
    """
    from_files = (*settings.added.values(), *settings.named.values(), *settings.extra)
    given = {text_of(token) for token in from_files}
    named = {**defaults, **settings.named}
    given |= backend.get_vocab(with_added_tokens=True).keys()
    ends = [text_of(named.get(name)) for name in ("bos_token", "eos_token")]
    ends = [text if text and text in given else None for text in ends]
    with library_errors(f"{settings.folder}: added and special tokens"):
        backend.add_tokens(_to_add(backend, settings, named))
    check_ids(backend, ((i, token, settings.origin[i]) for i, token in settings.added.items()))
    backend.encode_special_tokens = settings.split_special_tokens
    return ReadTokenizer(backend, *ends)


def _to_add(
    backend: tokenizers.Tokenizer, settings: Settings, named: Mapping[str, AddedToken | str | None]
) -> list[AddedToken]:
    """Added tokens by id, then those named, then others, if the backend has not added them yet."""
    wanted: list[AddedToken | str] = [token for _, token in sorted(settings.added.items())]
    present = backend.get_added_tokens_decoder().values()
    known = {token.content for token in (*present, *wanted)}
    order = sorted(named, key=lambda name: NAMED.index(name) if name in NAMED else len(NAMED))
    special = [named[name] for name in order if named[name] is not None]
    for token in (*special, *settings.extra):  # of two with one text the last one's flags hold
        if text_of(token) not in known and token not in wanted:
            wanted.append(token)
    names = {text_of(token) for token in special}
    return [_as_special(token, names) for token in wanted]


def _as_special(token: AddedToken | str, names: set[str | None]) -> AddedToken:
    """A token with its flags, special where it is a bare text or has a name."""
    if isinstance(token, str):
        return AddedToken(token, special=True)
    token.special = token.special or token.content in names
    return token


def _padding_token(whole: Mapping[str, Any]) -> dict[str, str]:
    """The padding token of a tokenizer.json, which transformers adds to the vocabulary."""
    padding = whole.get("padding")
    token = padding.get("pad_token") if isinstance(padding, dict) else None
    return {"pad_token": token} if isinstance(token, str) else {}


def _bpe(ids: dict[str, int], merges: list[tuple[str, str]], problem: str) -> models.BPE:
    with library_errors(problem):
        return models.BPE(
            vocab=ids, merges=merges, continuing_subword_prefix="", end_of_word_suffix=""
        )


def _is_bpe(whole: Mapping[str, Any]) -> bool:
    model = whole.get("model")
    return isinstance(model, dict) and model.get("type", "BPE") == "BPE" and "merges" in model


def _vocabulary(given: object, where: str) -> dict[str, int]:
    """Token -> id, checked; ValueError beginning with `where`."""
    if not isinstance(given, dict):
        raise ValueError(f"{where}: vocab must be an object, got {type(given).__name__}")
    for token, index in given.items():
        token_id(index, f"{where}: the id of {token!r:.80}")
    return given


def _merges(whole: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """The merges of a tokenizer.json, pairs or texts with one space, checked in form."""
    given = whole["model"]["merges"]
    if not isinstance(given, list):
        raise ValueError(f"{where}: merges must be a list, got {type(given).__name__}")
    pairs = [
        tuple(merge.split(" ") if isinstance(merge, str) else _parts(merge)) for merge in given
    ]
    for i, pair in enumerate(pairs):
        if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise ValueError(f"{where}: merges[{i}] must be two texts, got {given[i]!r:.80}")
    return pairs


def _parts(merge: object) -> list:
    return merge if isinstance(merge, list) else []


def _merge_lines(path: Path) -> list[tuple[str, str]]:
    """The merges of a merges.txt, one a line; ValueError naming the line."""
    check_size(path)
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except ValueError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    pairs = []
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, start=1):
        if line.startswith("#version"):
            continue
        pair = line.removesuffix("\r").split(" ")
        if len(pair) != 2:
            raise ValueError(f"{path}: line {number} must be two tokens, got {line!r:.80}")
        pairs.append((pair[0], pair[1]))
    return pairs
