"""A GPT-2 of two layers with two heads that can be worked through with a pencil.

Every residual is (a, −a, b, −b), written ⟨a, b⟩ here. Its mean is 0, its variance (a² + b²)/2, and
LayerNorm (gain 1, bias 0) gives ⟨u, v⟩ = ⟨a, b⟩/√((a² + b²)/2). The numbers are chosen such that
the root is whole nearly everywhere: ⟨1, 1⟩ → ⟨1, 1⟩, and ⟨1, 7⟩ → ⟨0.2, 1.4⟩ as (1 + 49)/2 = 25.

Tokens P, Q, E; prompts have two: P E is the original, Q E the new one, END is the E.

  embeddings   P = ⟨3.5, 0.5⟩, Q = ⟨0.5, 3.5⟩, E = ⟨2, 2⟩; position 1 adds ⟨3, 3⟩
  head 0.0     attends uniformly; value 5u − 5; writes ⟨2z, 0⟩
  head 0.1     attends uniformly; value 5v − 5; writes ⟨0, 2z⟩
  MLP 0        one neuron relu(10u − 13); writes ⟨−8, 0⟩
  head 1.0     score (ln 3/2)·(−u + v/2 − ½)·u_key; value 6u + 13v; writes ⟨0, 2z⟩
  head 1.1     score 100·u_key; value 5v + 3; writes ⟨0, z/2⟩
  MLP 1        one neuron relu(−5v − 6); writes ⟨0, 8⟩
  logits       P: 5u, Q: 5v, E: 0; the answer is Q, the wrong answer P

The original run, P E
  first token: ⟨3.5, 0.5⟩ → ⟨1.4, 0.2⟩. Alone, it attends to itself: z = 2 and −4.
    After the heads ⟨7.5, −7.5⟩ → ⟨1, −1⟩; neuron 10 − 13 < 0 is off. Into layer 1: ⟨1, −1⟩.
  END: ⟨5, 5⟩ → ⟨1, 1⟩, values 0 and 0. Half of each token: z = (2 + 0)/2 = 1 and (−4 + 0)/2 = −2.
    After the heads ⟨7, 1⟩ → ⟨1.4, 0.2⟩; neuron 14 − 13 = 1. After MLP 0 ⟨−1, 1⟩ → ⟨−1, 1⟩.
    1.0: query factor 1 + ½ − ½ = 1; scores (ln 3/2)·1 and (ln 3/2)·(−1): weights 3/4 and 1/4.
         Values 6 − 13 = −7 and −6 + 13 = 7: z = −21/4 + 7/4 = −3.5, writes −7.
    1.1: scores 100 and −100: all on the first token. Value −5 + 3: z = −2, writes −1.
    After the heads ⟨−1, −7⟩ → ⟨−0.2, −1.4⟩; neuron 7 − 6 = 1, writes 8: ⟨−1, 1⟩ → ⟨−1, 1⟩.
    Logit difference 5 + 5 = 10.

The new run, Q E
  first token: ⟨0.5, 3.5⟩ → ⟨0.2, 1.4⟩, z = −4 and 2. After the heads ⟨−7.5, 7.5⟩ → ⟨−1, 1⟩; off.
  END: z = −2 and 1. After the heads ⟨5 − 4, 5 + 2⟩ = ⟨1, 7⟩ → ⟨0.2, 1.4⟩; neuron 2 − 13 is off.
    1.0: query factor −0.2 + 0.7 − 0.5 = 0: weights 1/2 and 1/2. Values −6 + 13 = 7 and
         1.2 + 18.2 = 19.4: z = 13.2, writes 26.4.
    1.1: scores −100 and 20: all on END. Value 7 + 3: z = 10, writes 5.
    After the heads ⟨1, 7 + 26.4 + 5⟩ = ⟨1, 38.4⟩; neuron −5v − 6 < 0 is off.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ioi_fast import GPT2, GPT2Config, PromptPairs
from ioi_fast.model.weights import Block, Weights

P, Q, E = 0, 1, 2
CONFIG = GPT2Config(
    vocab_size=3,
    n_positions=4,
    n_embd=4,
    n_layer=2,
    n_head=2,
    n_inner=1,
    activation_function="relu",
    layer_norm_epsilon=1e-12,
    tie_word_embeddings=False,
)
# Scores are divided by √K = √2; the queries carry that factor.
_ROOT = math.sqrt(2)


def logit_difference(a: float, b: float) -> float:
    """5v − 5u of a final residual ⟨a, b⟩."""
    return 5 * (b - a) / math.sqrt((a * a + b * b) / 2)


def stream(a: float, b: float) -> list[float]:
    """⟨a, b⟩ as a residual, or as what is written to it."""
    return [float(part) for part in (a, -a, b, -b)]


def _attention(queries: list, keys: list, values: list) -> tuple[Tensor, Tensor]:
    """w_qkv [4, 12] and b_qkv [12] of two heads that each compute αu + βv + γ in their first
    dimension; the second is unused.
    """
    weight, bias = torch.zeros(4, 3, 2, 2), torch.zeros(3, 2, 2)
    for site, heads in enumerate((queries, keys, values)):
        for head, (on_u, on_v, constant) in enumerate(heads):
            weight[0, site, head, 0], weight[2, site, head, 0] = on_u, on_v
            bias[site, head, 0] = constant
    return weight.view(4, 12), bias.view(12)


def _block(attention: tuple, writes: list, neuron: tuple, mlp_writes: list[float]) -> Block:
    w_qkv, b_qkv = attention
    w_o = torch.zeros(2, 2, 4)
    w_o[:, 0] = torch.tensor(writes)
    on_u, on_v, constant = neuron
    one, zero = torch.ones(4), torch.zeros(4)
    return Block(
        ln_1_gain=one,
        ln_1_bias=zero,
        w_qkv=w_qkv,
        b_qkv=b_qkv,
        w_o=w_o.view(4, 4),
        b_o=zero,
        ln_2_gain=one,
        ln_2_bias=zero,
        w_in=torch.tensor([[on_u], [0.0], [on_v], [0.0]]),
        b_in=torch.tensor([constant]),
        w_out=torch.tensor([mlp_writes]),
        b_out=zero,
    )


def micro_model() -> GPT2:
    """The model of the module's docstring."""
    none, third = (0.0, 0.0, 0.0), _ROOT * math.log(3) / 2
    first = _block(
        _attention([none, none], [none, none], [(5.0, 0.0, -5.0), (0.0, 5.0, -5.0)]),
        [stream(2, 0), stream(0, 2)],
        (10.0, 0.0, -13.0),
        stream(-8, 0),
    )
    second = _block(
        _attention(
            [(-third, third / 2, -third / 2), (0.0, 0.0, 100 * _ROOT)],
            [(1.0, 0.0, 0.0), (1.0, 0.0, 0.0)],
            [(6.0, 13.0, 0.0), (0.0, 5.0, 3.0)],
        ),
        [stream(0, 2), stream(0, 0.5)],
        (0.0, -5.0, -6.0),
        stream(0, 8),
    )
    unembed = torch.zeros(3, 4)
    unembed[P, 0] = unembed[Q, 2] = 5.0
    weights = Weights(
        wte=torch.tensor([stream(3.5, 0.5), stream(0.5, 3.5), stream(2, 2)]),
        wpe=torch.tensor([stream(0, 0), stream(3, 3), stream(0, 0), stream(0, 0)]),
        blocks=(first, second),
        ln_f_gain=torch.ones(4),
        ln_f_bias=torch.zeros(4),
        unembed=unembed,
    )
    return GPT2(CONFIG, weights, name="micro")


def micro_pairs() -> PromptPairs:
    """The one pair P E → Q E; roles FIRST and END; form 5."""
    return PromptPairs(
        [[P, E]], [[Q, E]], [Q], [P], positions={"END": [1], "FIRST": [0]}, forms=[5]
    )
