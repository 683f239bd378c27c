"""J4 in plain torch: sets of a circuit's heads knocked out, all other heads at their means."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ioi_fast.benchmarks.gpu.jobs.job import Job
from ioi_fast.benchmarks.gpu.peers.plain_gpt2 import PlainGPT2, attend, split_heads, write
from ioi_fast.benchmarks.gpu.peers.plain_sweep import Sweep, Values, chunks


class SetSweep(Sweep):
    """A piece is a set of heads; every token and layer is computed for each."""

    def __init__(self, plain: PlainGPT2, job: Job) -> None:
        super().__init__(plain, job)
        self.sets = job.asked["variants"]
        self.roles: dict[tuple[int, int], str] = {}
        for head, roles in job.asked["base"].roles.items():
            if len(roles) > 1:
                raise ValueError(f"base: plain torch keeps {head} at one role, not at {roles}")
            self.roles[head.layer, head.head] = roles[0]
        self.knocked_SLH = self._knocked()
        live_LTH = torch.zeros(len(plain.layers), self.orig.shape[1], plain.config.n_head)
        for (layer, head), role in self.roles.items():
            live_LTH[layer, self.token(role), head] = 1
        self.live_LTH = self.index(live_LTH.bool())

    def token(self, role: str) -> int:
        """Where a role stands; raises ValueError unless that is one token in all prompts."""
        at = self.job.pairs.positions[role]
        if (at != at[0]).any():
            raise ValueError(f"pairs: {role} must stand at one token in all prompts")
        return int(at[0])

    def _knocked(self) -> Tensor:
        """Which heads each set knocks out, [sets, L, H] on the host."""
        config = self.plain.config
        knocked = torch.zeros(len(self.sets), config.n_layer, config.n_head, dtype=torch.bool)
        for number, one in enumerate(self.sets):
            for name, role in one.items():
                layer, head = map(int, name.split("."))
                if role != self.roles.get((layer, head)):
                    raise ValueError(f"variants: {name} does not live at {role}")
                knocked[number, layer, head] = True
        return knocked

    @property
    def pieces(self) -> int:
        return len(self.sets)

    def sampled(self) -> list[int]:
        return sorted(self.sets.index(one) for one in self.job.sample)

    def prepared(self, pieces: Sequence[int], together: int) -> Values:
        parts = []
        for some in chunks(pieces, together):
            # In front stands the circuit itself, with nothing knocked out: the base.
            nothing = torch.zeros_like(self.knocked_SLH[:1])
            knocked = torch.cat([nothing, self.knocked_SLH[list(some)]])
            parts.append((self.index(some), self.asked(knocked)))

        def run() -> Tensor:
            means = self.means()
            shared = self.shared(means)
            values = self.towards_ND.new_zeros(self.pieces, len(self.orig))
            for index, asked in parts:
                found = self.plain.read(self.final(asked, means, shared), self.towards_ND)
                values[index] = found[1:] - found[0]
            return values

        return run

    def means(self) -> list[Tensor]:
        """What an ablated head writes, by layer [T, H, K]: its mean over the new prompts."""
        return [layer.z.mean(0) for layer in self.plain.clean(self.new)]

    def asked(self, knocked_PLH: Tensor) -> object:
        """What some variants change, on the device."""
        return self.index(knocked_PLH)

    def shared(self, means: list[Tensor]) -> object:
        """What all variants share beside the means."""

    def final(self, asked: Tensor, means: list[Tensor], shared: object) -> Tensor:
        """The last residual at END, [P, N, D]."""
        return self.run(asked, means)[0]

    def run(self, knocked_PLH: Tensor, means: list[Tensor]) -> tuple[Tensor, list]:
        """The last residual at END, and keys and values [P·N, H, T, K] by layer."""
        plain, (N, T), P, kept = self.plain, self.orig.shape, len(knocked_PLH), []
        x = plain.embedded(self.orig).expand(P, -1, -1, -1).flatten(0, 1)
        for n, layer in enumerate(plain.layers):
            q, k, v = split_heads(x, layer, plain.epsilon, plain.config.d_head)
            kept.append((k, v) if P == 1 else None)
            z = attend(q, k, v, plain.config.attention_scale(n)).transpose(1, 2)
            alive_PTH = self.live_LTH[n] & ~knocked_PLH[:, n, None]
            z = torch.where(alive_PTH[:, None, :, :, None], z.unflatten(0, (P, N)), means[n])
            x = plain.mlp(n, x + write(z.flatten(0, 1), layer))
        return x.view(P, N, T, -1)[:, :, -1], kept
