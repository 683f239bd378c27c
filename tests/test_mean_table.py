"""What tables of means cost when there are many forms."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ioi_fast.asked.mean_table import MeanTable


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor has that is made under it."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        self.numbers = max([self.numbers, *sizes])
        return made


def test_a_table_of_many_forms_takes_no_more_than_its_values() -> None:
    """Memory follows prompts, neither prompts times forms nor the size of an id."""
    generator = torch.Generator().manual_seed(6)
    value = torch.randn(300, 3, 2, generator=generator)
    group = torch.randperm(300, generator=generator) * 10**7
    with Largest() as made:
        table = MeanTable.of(value, torch.full((300,), 2), group)
    assert value.numel() == made.numbers
    everywhere = torch.ones(300, 3, dtype=torch.bool)
    rows = table.rows(group, everywhere, torch.full((300,), 2))
    assert torch.equal(rows, value), "each prompt is the only one of its form"
