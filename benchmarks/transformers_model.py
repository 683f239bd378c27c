"""Our weights in transformers' GPT2LMHeadModel, which none of us wrote."""

from __future__ import annotations

from transformers import GPT2Config, GPT2LMHeadModel

from ioi_fast.model.gpt2 import GPT2

# Name of a Block's field in transformers, written down apart from the package's own table.
BLOCK_NAMES = {
    "ln_1_gain": "ln_1.weight",
    "ln_1_bias": "ln_1.bias",
    "w_qkv": "attn.c_attn.weight",
    "b_qkv": "attn.c_attn.bias",
    "w_o": "attn.c_proj.weight",
    "b_o": "attn.c_proj.bias",
    "ln_2_gain": "ln_2.weight",
    "ln_2_bias": "ln_2.bias",
    "w_in": "mlp.c_fc.weight",
    "b_in": "mlp.c_fc.bias",
    "w_out": "mlp.c_proj.weight",
    "b_out": "mlp.c_proj.bias",
}


def as_transformers(model: GPT2) -> GPT2LMHeadModel:
    """The same weights in transformers (eager attention, fp32)."""
    settings = {name: getattr(model.config, name) for name in type(model.config).__slots__}
    config = GPT2Config(bos_token_id=None, **settings)
    config._attn_implementation = "eager"
    weights = model.weights
    state = {
        "transformer.wte.weight": weights.wte,
        "transformer.wpe.weight": weights.wpe,
        "transformer.ln_f.weight": weights.ln_f_gain,
        "transformer.ln_f.bias": weights.ln_f_bias,
        "lm_head.weight": weights.unembed,
    }
    for layer, block in enumerate(weights.blocks):
        for field, name in BLOCK_NAMES.items():
            state[f"transformer.h.{layer}.{name}"] = getattr(block, field)
    twin = GPT2LMHeadModel(config).eval()
    twin.load_state_dict(state)
    return twin
