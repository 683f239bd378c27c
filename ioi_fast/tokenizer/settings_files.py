"""What the settings beside a vocabulary say: which tokens are special, which were added, and how.

The files outrank each other as in transformers 5: `added_tokens_decoder` in tokenizer_config.json
stands alone; without it special_tokens_map.json wins over tokenizer_config.json, and added tokens
are those of added_tokens.json and of tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from ioi_fast.outside.json_files import read_json_object
from ioi_fast.tokenizer.backend import library_errors
from ioi_fast.tokenizer.refused_forms import check_settings

CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
_LARGEST_FILE = 64 * 2**20  # bytes; vocabularies of 250,000 tokens take half of that
_LARGEST_ID = 2**31 - 1
NAMED = tuple(f"{name}_token" for name in ["bos", "eos", "unk", "sep", "pad", "cls", "mask"])
_EXTRA, _OLD_EXTRA = "extra_special_tokens", "additional_special_tokens"
_OWN = "model_specific_special_tokens"
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


@dataclass(slots=True)
class Settings:
    """Special tokens by their names, others, added tokens by id, and how a text is taken."""

    folder: str = ""
    kind: str | None = None  # tokenizer_class, without "Fast"
    add_prefix_space: bool = False
    split_special_tokens: bool = False
    named: dict[str, AddedToken | str | None] = field(default_factory=dict)  # None: has none
    extra: list[AddedToken | str] = field(default_factory=list)
    added: dict[int, AddedToken] = field(default_factory=dict)
    origin: dict[int, str] = field(default_factory=dict)  # file that gives an added token its id


def read_file(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file of a tokenizer, None where there is no such file.

    Raises ValueError naming the file.
    """
    if not path.is_file():
        return None
    check_size(path)
    return read_json_object(path)


def check_size(path: Path) -> None:
    """Raise ValueError for a file that is too large to be a tokenizer's."""
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"{path} must be smaller than {_LARGEST_FILE} bytes to be a tokenizer's")


def read_settings(directory: Path, whole: Mapping[str, Any] | None) -> Settings:
    """The settings of a folder; `whole` is the content of its tokenizer.json, None without one.

    Raises ValueError naming file and key.
    """
    config = read_file(directory / CONFIG) or {}
    where = str(directory / CONFIG)
    check_settings(config, where)
    settings = Settings(
        folder=str(directory),
        kind=_kind(directory, config, where),
        add_prefix_space=_flag(config, "add_prefix_space", where),
        split_special_tokens=_flag(config, "split_special_tokens", where),
    )
    _take_special(settings, config, where, None)
    if config.get("added_tokens_decoder") is not None:
        _take_added(settings, _decoder(config["added_tokens_decoder"], where), where)
    else:
        extra = [token for token in settings.extra if isinstance(token, str)]
        special = read_file(directory / MAP) or {}
        _take_special(settings, special, str(directory / MAP), True)
        extra += settings.extra if special.get(_EXTRA) else []
        _take_old_added(settings, directory, _known_as_special(settings, special, extra))
        entries = listed_tokens(whole or {}, str(directory / "tokenizer.json"))
        _take_added(settings, entries, str(directory / "tokenizer.json"))
    by_text = {token.content: token for token in settings.added.values()}
    for name, token in settings.named.items():
        settings.named[name] = by_text.get(text_of(token), token)
    return settings


def listed_tokens(whole: Mapping[str, Any], where: str) -> list[tuple[int, AddedToken]]:
    """The added tokens of a tokenizer.json with their ids; ValueError naming file and place."""
    found = []
    for i, entry in enumerate(_list(whole.get("added_tokens"), f"{where}: added_tokens")):
        place = f"{where}: added_tokens[{i}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{place} must be an object, got {_shown(entry)}")
        found.append((token_id(entry.get("id"), f"{place}: id"), _token(entry, place)))
    return found


def text_of(token: AddedToken | str | None) -> str | None:
    """A token's own characters, without its flags."""
    return token.content if isinstance(token, AddedToken) else token


def token_id(given: object, where: str) -> int:
    """A token's id as a file gives it; ValueError beginning with `where`."""
    if type(given) is not int or not 0 <= given <= _LARGEST_ID:
        raise ValueError(f"{where} must be an id from 0 to {_LARGEST_ID}, got {_shown(given)}")
    return given


def _kind(directory: Path, config: Mapping[str, Any], where: str) -> str | None:
    """tokenizer_class of the settings, else of config.json, else that of a GPT-2 where the latter
    says that the model is one; None where nothing tells."""
    beside = directory / "config.json"
    of_model = read_file(beside) or {}
    for origin, content in ((where, config), (beside, of_model)):
        given = content.get("tokenizer_class")
        if given is not None and not isinstance(given, str):
            raise ValueError(f"{origin}: tokenizer_class must be a name, got {_shown(given)}")
        if given:
            return given.removesuffix("Fast")
    return "GPT2Tokenizer" if of_model.get("model_type") == "gpt2" else None


def _flag(config: Mapping[str, Any], key: str, where: str) -> bool:
    given = config.get(key, False)
    if given is not None and not isinstance(given, bool):
        raise ValueError(f"{where}: {key} must be true or false, got {_shown(given)}")
    return bool(given)


def _take_special(
    settings: Settings, content: Mapping[str, Any], where: str, special: bool | None
) -> None:
    """Note the special tokens of one file, over those that an earlier file named.

    `special` stands over the flag of tokens that are objects.
    """
    for key, value in content.items():
        if key in NAMED and value is None:
            settings.named[key] = None
        elif key in NAMED or (key.endswith("_token") and _is_token(value)):
            settings.named[key] = _token(value, f"{where}: {key}", special)
    _check_own_order(content, where)
    given = content.get(_EXTRA) or (None if settings.extra else content.get(_OLD_EXTRA))
    place = f"{where}: {_EXTRA}"
    own = content.get(_OWN)
    for key, value in (own if isinstance(own, dict) else {}).items():
        settings.named.setdefault(key, _token(value, f"{where}: {_OWN}: {_shown(key)}", special))
    if isinstance(given, dict):  # names of its own
        for key, value in given.items():
            settings.named[key] = _token(value, f"{place}: {_shown(key)}", special)
    else:
        known = {text_of(token) for token in settings.extra}
        tokens = [_token(value, place, special) for value in _list(given, place)]
        settings.extra += [token for token in tokens if text_of(token) not in known]


def _check_own_order(content: Mapping[str, Any], where: str) -> None:
    """Refuses tokens with names of their own of which one is an object: transformers numbers them
    in another order than they are written in."""
    own = [
        key
        for key, value in content.items()
        if key not in NAMED and key.endswith("_token") and _is_token(value)
    ]
    objects = [key for key in own if isinstance(content[key], dict)]
    if objects and len(own) > 1:
        raise ValueError(
            f"{where}: {_shown(objects[0])} is an object beside {len(own) - 1} more tokens with "
            "names of their own, whose ids are then not told: write each as a text"
        )


def _take_added(settings: Settings, entries: Iterable[tuple[int, AddedToken]], where: str) -> None:
    for index, token in entries:
        settings.added[index] = token
        settings.origin[index] = where


def _known_as_special(
    settings: Settings, special: Mapping[str, Any], extra: list[AddedToken | str]
) -> set[str | None]:
    """Texts that transformers knows as special when it reads added_tokens.json.

    Those of objects in tokenizer_config.json are not among them.
    """
    named = settings.named.items()
    found = [t for name, t in named if name in NAMED and (name in special or isinstance(t, str))]
    return {text_of(token) for token in (*found, *extra)}


def _take_old_added(settings: Settings, directory: Path, special: set[str | None]) -> None:
    """added_tokens.json, which holds token -> id."""
    where = str(directory / ADDED)
    entries = []
    for text, given in (read_file(directory / ADDED) or {}).items():
        index = token_id(given, f"{where}: {_shown(text)}")
        with library_errors(f"{where}: {_shown(text)}"):
            known = text in special
            entries.append((index, AddedToken(text, normalized=not known, special=known)))
    _take_added(settings, entries, where)


def _decoder(given: object, where: str) -> list[tuple[int, AddedToken]]:
    """added_tokens_decoder: id as text -> token."""
    where = f"{where}: added_tokens_decoder"
    if not isinstance(given, dict):
        raise ValueError(f"{where} must be an object, got {_shown(given)}")
    found = []
    for key, value in given.items():
        plain = key.isascii() and key.isdecimal() and len(key) <= 10
        index = token_id(int(key) if plain else key, where)
        if not isinstance(value, dict):
            raise ValueError(f"{where}[{key}] must be an object, got {_shown(value)}")
        found.append((index, _token(value, f"{where}[{key}]")))
    return found


def _token(value: object, where: str, special: bool | None = None) -> AddedToken | str:
    """A token as text, or as an object with its flags; `special` stands over the object's own."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise ValueError(f"{where} must be a token (a text, or an object), got {_shown(value)}")
    if not content.isascii() and any("\ud800" <= character <= "\udfff" for character in content):
        raise ValueError(f"{where} must be Unicode, got {_shown(content)}")
    if isinstance(value, str):
        return value
    flags = {flag: value[flag] for flag in _FLAGS if flag in value}
    for flag, given in flags.items():
        if not isinstance(given, bool):
            raise ValueError(f"{where}: {flag} must be true or false, got {_shown(given)}")
    if special is not None:
        flags["special"] = special
    with library_errors(where):
        return AddedToken(content, **flags)


def _is_token(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and "content" in value)


def _list(given: object, where: str) -> list:
    if given is None:
        return []
    if not isinstance(given, list):
        raise ValueError(f"{where} must be a list, got {_shown(given)}")
    return given


def _shown(value: object) -> str:
    """A value of a file in a message, cut to a length that a message can have."""
    return f"{value!r:.80}" if isinstance(value, (str, bool)) else type(value).__name__
