"""Which settings of a Hugging Face config.json make a GPT-2: honoured, refused, or without effect.

The list is closed: a setting that is not known here is refused by name, since it may change the
arithmetic.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

# The names that transformers takes for GPT-2's own.
_ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}

# Settings that change the arithmetic, with the one value that leaves it alone.
_REFUSED_UNLESS = {
    "add_cross_attention": False,
    "auto_map": {},  # code of its own
    "cross_attention_hidden_size": None,
    "is_causal": True,
    "is_encoder_decoder": False,
    "per_layer_config": {},
    "pruned_heads": {},
    "quantization_config": None,
    "transformers_weights": None,  # another weight file
}

# Settings of transformers 2 to 5 that no logit depends on; so do names that begin with "_" (notes
# of transformers itself) or "summary_" (the classification head).
_WITHOUT_EFFECT = """
    architectures model_type name_or_path transformers_version unsloth_version tokenizer_class
    finetuning_task task_specific_params problem_type num_labels id2label label2id prefix
    attn_pdrop embd_pdrop resid_pdrop initializer_range gradient_checkpointing
    n_ctx n_special predict_special_tokens chunk_size_feed_forward tie_encoder_decoder is_decoder
    dtype torch_dtype use_bfloat16 torchscript tf_legacy_loss xla_device attn_implementation
    use_cache return_dict use_return_dict output_attentions output_hidden_states output_past
    output_scores return_dict_in_generate tie_last_hidden_states
    bos_token_id pad_token_id sep_token_id cls_token_id mask_token_id unk_token_id
    decoder_start_token_id forced_bos_token_id forced_eos_token_id
    max_length min_length max_new_tokens do_sample early_stopping num_beams num_beam_groups
    num_return_sequences diversity_penalty temperature top_k top_p typical_p repetition_penalty
    length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
"""


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; ValueError naming the file when it holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def arithmetic_settings(settings: Mapping[str, Any], honoured: Collection[str]) -> dict[str, Any]:
    """The honoured settings among those of a config.json, under their GPT-2 names.

    Raises ValueError naming a setting that is not GPT-2's, not supported or not known.
    """
    model_type = settings.get("model_type")
    if model_type != "gpt2":
        raise ValueError(f"model_type must be 'gpt2', got {model_type!r}")
    chosen: dict[str, Any] = {}
    for given, value in settings.items():
        name = _ALIASES.get(given, given)
        if name in honoured:
            if chosen.setdefault(name, value) != value:
                raise ValueError(f"{given}={value!r} contradicts {name}={chosen[name]!r}")
        else:
            _check_harmless(name, value)
    return chosen


def _check_harmless(name: str, value: Any) -> None:
    if value is None or name in _WITHOUT_EFFECT.split() or name.startswith(("_", "summary_")):
        return
    if name not in _REFUSED_UNLESS:
        raise ValueError(
            f"{name}={value!r} is not a known setting of GPT-2 and may change the arithmetic: "
            "take it out of the config if it does not"
        )
    if value != _REFUSED_UNLESS[name]:
        raise ValueError(f"{name}={value!r} is not supported: it changes the arithmetic")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; plain `json` would silently keep the last of two equal keys."""
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"{name[:100]!r} is given twice")
        content[name] = value
    return content
