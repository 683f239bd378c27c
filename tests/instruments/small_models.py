"""Small random models and prompts for tests: odd sizes, ragged lengths, every token may differ."""

from __future__ import annotations

import torch

from ioi_fast import GPT2, GPT2Config, PromptPairs, load

TINY = GPT2Config(n_layer=3, n_head=3, n_embd=24, n_inner=40, vocab_size=53, n_positions=16)


def tiny_model(seed: int = 0, **settings: object) -> GPT2:
    """A model of 3 layers with 3 heads of width 8, or with other settings."""
    base = {name: getattr(TINY, name) for name in type(TINY).__slots__}
    return GPT2.random(GPT2Config(**{**base, **settings}), seed=seed)


def reading_model() -> GPT2:
    """Twelve layers of twelve heads, as published circuits need, over the bundled vocabulary."""
    demo = load("demo")
    shape = {"n_layer": 12, "n_head": 12, "n_embd": 24, "n_inner": 32, "n_positions": 64}
    random = tiny_model(**shape, vocab_size=demo.config.vocab_size)
    return GPT2(random.config, random.weights, tokenizer=demo.tokenizer, name="random")


def ragged_pairs(N: int = 4, T: int = 7, vocab_size: int = 53, seed: int = 0) -> PromptPairs:
    """Prompts of T, T−1, T−2, … tokens whose new prompts differ in some tokens.

    Roles S2 (two before END), S1 and END; forms 0 and 1 in turn.
    """
    generator = torch.Generator().manual_seed(seed)

    def tokens(*shape: int) -> torch.Tensor:
        return torch.randint(vocab_size, shape, generator=generator)

    orig = tokens(N, T)
    changed = torch.rand(N, T, generator=generator) < 0.5
    changed[:, 0] = torch.arange(N) % 2 == 0
    end = T - 1 - torch.arange(N) % 3
    positions = {"END": end, "S2": end - 2, "S1": torch.ones(N, dtype=torch.int64)}
    return PromptPairs(
        orig,
        torch.where(changed, tokens(N, T), orig),
        tokens(N),
        tokens(N),
        positions=positions,
        forms=torch.arange(N) % 2,
    )


def shifted_pairs(N: int = 4, T: int = 7, vocab_size: int = 53, seed: int = 0) -> PromptPairs:
    """Prompts whose new prompts are longer and have their roles elsewhere."""
    pairs = ragged_pairs(N, T, vocab_size, seed)
    generator = torch.Generator().manual_seed(seed + 100)
    shift = 1 + torch.arange(N) % 2
    new = torch.randint(vocab_size, (N, T + 3), generator=generator)
    positions = {role: at + shift for role, at in pairs.positions.items()}
    return PromptPairs(
        pairs.orig,
        new,
        pairs.answers,
        pairs.wrong_answers,
        positions=pairs.positions,
        forms=pairs.forms,
        new_positions=positions,
    )


def moved_pairs(N: int = 4, T: int = 7, vocab_size: int = 53, seed: int = 0) -> PromptPairs:
    """Prompts whose new prompts are as long but have S2 and S1 elsewhere."""
    pairs = ragged_pairs(N, T, vocab_size, seed)
    return PromptPairs(
        pairs.orig,
        pairs.new,
        pairs.answers,
        pairs.wrong_answers,
        positions=pairs.positions,
        forms=pairs.forms,
        new_positions={"END": pairs.end, "S2": pairs.end - 1, "S1": torch.arange(N) % 2 * 2},
    )
