"""Configs: the real GPT-2 files parse, and what changes the arithmetic is honoured or refused."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import transformers
from gpt2_configs import COMMON, LABELS, OLD

from ioi_fast.model.arithmetic_settings import arithmetic_settings
from ioi_fast.model.build_weights import expected_tensors
from ioi_fast.model.config import GPT2Config

# What the config.json files of these models have in common, settings of old versions included.
# Name -> (its config.json, head width, number of weights without the tied head).
REAL = {
    "gpt2": ({"n_embd": 768, "n_head": 12, "n_layer": 12}, 124_439_808),
    "gpt2-medium": ({"n_embd": 1024, "n_head": 16, "n_layer": 24, **OLD}, 354_823_168),
    "gpt2-large": ({"n_embd": 1280, "n_head": 20, "n_layer": 36, **OLD}, 774_030_080),
    "gpt2-xl": (
        {"n_embd": 1600, "n_head": 25, "n_layer": 48, "output_past": True, **OLD},
        1_557_611_200,
    ),
    "distilgpt2": ({"n_embd": 768, "n_head": 12, "n_layer": 6, **LABELS}, 81_912_576),
}


@pytest.mark.parametrize("name", REAL)
def test_real_configs_parse(name: str) -> None:
    settings, n_weights = REAL[name]
    config = GPT2Config.from_dict({**COMMON, **settings})
    assert (config.n_embd, config.n_head, config.n_layer) == tuple(
        settings[key] for key in ("n_embd", "n_head", "n_layer")
    )
    assert config.d_head == 64
    assert config.d_mlp == 4 * config.n_embd
    assert config.eos_token_id == 50256
    assert sum(math.prod(shape) for _, shape in expected_tensors(config)) == n_weights


def test_every_setting_of_the_installed_transformers_is_known() -> None:
    honoured = {field.name for field in fields(GPT2Config)}
    for field in fields(transformers.GPT2Config):
        try:
            arithmetic_settings({"model_type": "gpt2", field.name: object()}, honoured)
        except ValueError as error:
            assert "is not supported" in str(error), field.name


def test_a_default_config_of_transformers_is_gpt2_small() -> None:
    config = GPT2Config.from_dict(transformers.GPT2Config().to_dict())
    assert config == GPT2Config(eos_token_id=50256)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("add_cross_attention", True),
        ("is_encoder_decoder", True),
        ("is_causal", False),
        ("pruned_heads", {"0": [1]}),
        ("quantization_config", {"bits": 4}),
        ("auto_map", {"AutoModelForCausalLM": "other.Model"}),
        ("per_layer_config", {"1": {"n_inner": 8}}),
        ("transformers_weights", "other.safetensors"),
        ("rotary_dim", 64),
        ("attention_head_type", "multiquery"),
        ("sliding_window", 128),
        ("layer_norm_eps", 1e-6),
        ("n_vocab", 50258),
        ("afn", "gelu"),
        ("embedding_multiplier", 2),
        ("use_parallel_residual", False),
        ("rope_scaling", {"type": "linear"}),
        ("position_embedding_type", "rotary"),
        ("positionEmbeddings", "learned"),
        ("norm_type", "rmsnorm"),
        ("activation", "swiglu"),
        ("hidden_act", "silu"),
        ("mlp_type", "gated"),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("attention_type", []),
        ("alibi", "true"),
        ("notes", {"training": [{"rotary_dim": 64}]}),
        ("year", 2019),
        ("own_attention", True),
        ("activation_function", "silu"),
        ("activation_function", ["gelu"]),
        ("scale_attn_weights", "false"),
        ("scale_attn_weights", None),
        ("scale_attn_by_inverse_layer_idx", 1),
        ("reorder_and_upcast_attn", 0),
        ("tie_word_embeddings", "no"),
        ("layer_norm_epsilon", 0.0),
        ("layer_norm_epsilon", math.nan),
        ("layer_norm_epsilon", math.inf),
        ("layer_norm_epsilon", "1e-5"),
        ("n_layer", 0),
        ("n_head", 12.0),
        ("n_head", 7),
        ("n_inner", -1),
        ("n_embd", True),
        ("vocab_size", "50257"),
        ("n_positions", None),
    ],
)
def test_what_changes_the_arithmetic_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        GPT2Config.from_dict({**COMMON, name: value})


@pytest.mark.parametrize(
    "note",
    [
        {"author": "someone", "license": "MIT", "tags": ["text", "poetry"], "": ""},
        {"transformers.js_config": {"dtype": "q8", "kv_cache_dtype": {"q4f16": "float16"}}},
        {"training_args": {"epochs": 3, "fp16": True, "optimizer": {"name": "adam"}}},
        {"metrics": [{"loss": 2.5}, {"accuracy": 0.5}], "language": "de", "base_model": "gpt2"},
        {"model_max_length": 1024, "padding_side": "left", "bos_token": "<s>", "n_vocab": 50257},
        {"hidden_dropout": 0.1, "attention_dropout_prob": 0.1, "seed": 1, "learning_rate": 1e-4},
        {"chat_template": "{{ messages }}", "special_tokens_map": {"unk": 0}, "rotary_dim": None},
        {"model_type": None},
    ],
)
def test_notes_of_people_pass(note: dict) -> None:
    assert GPT2Config.from_dict({**COMMON, **note}) == GPT2Config.from_dict(COMMON)


# Settings of other models in transformers 5.23 whose values are texts, lists or objects and with
# which they compute otherwise from tensors of the same shapes.
OTHERS = """
    activation activation_sparsity_pattern adapter_config afn alibi_config attention_type
    attention_types attention_window attn_config attn_layers attn_type block_types conv_activation
    cross_attention_layers dense_act_fn encoder_layers expert_selection_fn feed_forward_proj
    ffn_config full_attn_idxs gating global_attn_indexes hidden_act hidden_activation
    layer_rope_theta layer_types layers_block_type local_layer_ids logit_scale mlp_hidden_act
    mlp_layer_types mlp_multipliers mlp_only_layers moe_layers no_rope_layers norm norm_type
    normalization_type output_gate_type padding_mode pos_att_type position_embedding_type
    positional_encoding_type qk_norm_type qkv_bias relative_bias_args rope_parameters rope_scaling
    rope_scaling_layers scale_factors scaling scoring_func sliding_window_pattern sliding_windows
    ssm_multipliers swiglu_limits topk_method
"""


@pytest.mark.parametrize("name", OTHERS.split())
@pytest.mark.parametrize("value", ["linear", ["linear"], {"type": "linear"}], ids=repr)
def test_settings_of_other_models_are_no_notes(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}=.* may change the arithmetic"):
        GPT2Config.from_dict({**COMMON, name: value})


def test_the_length_has_its_old_name_alone() -> None:
    bare = {name: value for name, value in COMMON.items() if name != "n_positions"}
    assert GPT2Config.from_dict({**bare, "n_ctx": 77}).n_positions == 77
    assert GPT2Config.from_dict({**bare, "n_ctx": 77, "n_positions": 99}).n_positions == 99
    assert GPT2Config.from_dict({**bare, "n_ctx": None}).n_positions == 1024


@pytest.mark.parametrize("name", ["rotary_dim", "quantization_config", "auto_map"])
def test_a_setting_that_is_null_is_not_set(name: str) -> None:
    assert GPT2Config.from_dict({**COMMON, name: None}) == GPT2Config.from_dict(COMMON)


@pytest.mark.parametrize("model_type", ["gpt_neo", "openai-gpt", "gpt2-custom", "", 2])
def test_other_architectures_are_refused(model_type: object) -> None:
    with pytest.raises(ValueError, match=r"model_type must be 'gpt2', got"):
        GPT2Config.from_dict({**COMMON, "model_type": model_type})


def test_the_general_names_of_sizes_are_taken_for_gpt2s_own() -> None:
    general = {
        "model_type": "gpt2",
        "hidden_size": 96,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "max_position_embeddings": 32,
    }
    theirs, ours = transformers.GPT2Config(**general), GPT2Config.from_dict(general)
    for name in ("n_embd", "n_head", "n_layer", "n_positions"):
        assert getattr(ours, name) == getattr(theirs, name)
    with pytest.raises(ValueError, match=r"n_head=4 contradicts n_head=3"):
        GPT2Config.from_dict({**general, "n_head": 4})


@pytest.mark.parametrize("eos", [None, [5, 6], 50256, -1, True])
def test_an_end_of_text_id_outside_the_vocabulary_is_dropped(eos: object) -> None:
    settings = {"model_type": "gpt2", "vocab_size": 100, "eos_token_id": eos}
    assert GPT2Config.from_dict(settings).eos_token_id is None
    for there in (0, 99):
        assert GPT2Config.from_dict({**settings, "eos_token_id": there}).eos_token_id == there


def test_an_end_of_text_id_given_by_hand_must_be_in_the_vocabulary() -> None:
    with pytest.raises(ValueError, match="eos_token_id"):
        GPT2Config(vocab_size=100, eos_token_id=100)


def test_attention_scale_follows_both_flags() -> None:
    shape = {"n_embd": 64, "n_head": 4}
    assert GPT2Config(**shape).attention_scale(5) == 0.25
    assert GPT2Config(**shape, scale_attn_weights=False).attention_scale(5) == 1.0
    inverse = GPT2Config(**shape, scale_attn_by_inverse_layer_idx=True)
    assert [inverse.attention_scale(layer) for layer in (0, 1, 3)] == [0.25, 0.125, 0.0625]
