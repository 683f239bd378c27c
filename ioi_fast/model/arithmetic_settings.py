"""Which settings of a Hugging Face config.json make a GPT-2: honoured, refused, or without effect.

transformers keeps whatever a config says, so people's notes end up in it: a text, a list or an
object that is not known passes as such a note, unless a word of its name, or of a name in it, is
one that models give a meaning in their arithmetic. A number or a flag that is not known is refused.
Names and shapes of tensors are checked on their own (`build_weights`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ioi_fast.outside.quoting import cut, quoted


def _named(names: str) -> frozenset[str]:
    return frozenset(names.split())


# The names that transformers takes for GPT-2's own, and the one of OpenAI's files.
_ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "n_vocab": "vocab_size",
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

# Settings of transformers 2 to 5, of its tokenizers and of training that no logit depends on.
_WITHOUT_EFFECT = _named(
    """
    architectures model_type name_or_path transformers_version unsloth_version tokenizer_class
    finetuning_task task_specific_params problem_type num_labels id2label label2id prefix
    attn_pdrop embd_pdrop resid_pdrop initializer_range gradient_checkpointing
    n_ctx n_special predict_special_tokens chunk_size_feed_forward tie_encoder_decoder is_decoder
    dtype torch_dtype use_bfloat16 torchscript tf_legacy_loss xla_device attn_implementation
    use_cache return_dict use_return_dict output_attentions output_hidden_states output_past
    output_scores return_dict_in_generate tie_last_hidden_states keys_to_ignore_at_inference
    bos_token_id pad_token_id sep_token_id cls_token_id mask_token_id unk_token_id
    bos_token eos_token pad_token sep_token cls_token mask_token unk_token
    decoder_start_token_id forced_bos_token_id forced_eos_token_id
    max_length min_length max_new_tokens do_sample early_stopping num_beams num_beam_groups
    num_return_sequences diversity_penalty temperature top_k top_p typical_p repetition_penalty
    length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    model_max_length transformers.js_config generation_config custom_pipelines
    seed learning_rate weight_decay warmup_steps num_train_epochs gradient_accumulation_steps
    per_device_train_batch_size per_device_eval_batch_size
    project project_name wandb_project shared_by
    training_args training_arguments trainer optimizer scheduler lr_scheduler model_card
    """
)
# So do names that begin like this (notes of transformers itself, the classification head) …
_HARMLESS_BEGINNINGS = ("_", "summary_")
# … and rates of what is dropped in training.
_DROPPED = re.compile(r"(^|_)(dropout|pdrop)(_prob|_rate)?$")

# Words of names of settings with which models compute otherwise from tensors of the same shapes,
# collected from the configs of transformers 5.23: a word of a name that begins like one of these …
_STEMS = _named(
    """
    activ adapter adaptor alibi attent attn backbone bias causal channel clamp compress convol cross
    decoder depth dilat embd embed encoder epsilon expert factor feedforward ffn freq fusion gating
    geglu glu head hidden intermediate interpol kernel layer linear logit lora mamba mask memor
    mixture mlp moe multipl mup nonlinear norm parallel patch pool posit proj prun qk quant quer
    recurr relativ resid rms rope rotar rout scal shar silu slid slop softcap softmax spars stride
    swiglu swish theta tied tying unembed upcast window yarn
    """
)
# … or that is one of these.
_WORDS = _named(
    """
    act acts afn algorithm ape bits block blocks cap capping conv dim dims eps feed fn func function
    gate gelu gqa inner inverse key keys kv ln mode mqa ntk offset offsets order pe pos rank ratio
    ratios relu ssm state states tanh tie topk value values weight weights
    """
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def arithmetic_settings(settings: Mapping[str, Any], honoured: Collection[str]) -> dict[str, Any]:
    """The honoured settings among those of a config.json, under their GPT-2 names.

    A config without model_type is one of before 2020; its tensors say whether it is a GPT-2. Raises
    ValueError naming a setting that is not GPT-2's, not supported or not known.
    """
    model_type = settings.get("model_type")
    if model_type not in ("gpt2", None):
        raise ValueError(f"model_type must be 'gpt2', got {quoted(model_type)}")
    chosen: dict[str, Any] = {}
    for given, value in settings.items():
        name = _ALIASES.get(given, given)
        if name in honoured:
            if chosen.setdefault(name, value) != value:
                raise ValueError(
                    f"{given}={quoted(value)} contradicts {name}={quoted(chosen[name])}"
                )
        else:
            _check_harmless(given, value)
    # The length of training where the first configs give no other; beside n_positions it is a note.
    if settings.get("n_ctx") is not None and "n_positions" in honoured:
        chosen.setdefault("n_positions", settings["n_ctx"])
    return chosen


def _check_harmless(name: str, value: Any) -> None:
    if value is None or _has_no_effect(name):
        return
    setting = f"{cut(name, 80)}={quoted(value)}"
    if name in _REFUSED_UNLESS:
        allowed = _REFUSED_UNLESS[name]
        if value != allowed and (allowed != {} or value != []):
            raise ValueError(f"{setting} is not supported: it changes the arithmetic")
    elif isinstance(value, (bool, int, float)) or not _is_note(name, value):
        raise ValueError(
            f"{setting} is not a known setting of GPT-2 and may change the arithmetic: "
            "take it out of the config if it does not"
        )


def _has_no_effect(name: str) -> bool:
    return (
        name in _WITHOUT_EFFECT
        or name.startswith(_HARMLESS_BEGINNINGS)
        or _DROPPED.search(name) is not None
    )


def _is_note(name: str, value: Any) -> bool:
    """Whether neither a name nor one within its value has a word of arithmetic."""
    waiting = [(name, value)]
    while waiting:
        name, value = waiting.pop()
        if _has_no_effect(name):
            continue
        if _sounds_arithmetic(name):
            return False
        if isinstance(value, Mapping):
            waiting += ((str(inner), one) for inner, one in value.items())
        elif isinstance(value, (list, tuple)):
            waiting += (("", one) for one in value)
    return True


def _sounds_arithmetic(name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    return any(word in _WORDS or word.startswith(tuple(_STEMS)) for word in words)
