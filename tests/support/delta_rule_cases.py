"""Operands of the delta rule and a definition that shares no code with the package."""

import torch
import torch.nn.functional as F
from scan_cases import Operands
from torch import Tensor

from mmtransmamba.ops import gated_delta_rule, kda

RULES = {'gdn': gated_delta_rule, 'kda': kda}


def operands(
    rule: str = 'gdn',
    batch: int = 2,
    length: int = 7,
    heads: int = 4,
    groups: int = 2,
    keys: int = 6,
    values: int = 5,
    state: bool = True,
    strongest: float = 1.0,
    seed: int = 0,
) -> Operands:
    """Float32 operands of a rule; ``beta`` reaches ``strongest``."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    gates = (batch, length, heads) if rule == 'gdn' else (batch, length, heads, keys)
    return {
        'q': F.normalize(randn(batch, length, groups, keys), dim=-1),
        'k': F.normalize(randn(batch, length, groups, keys), dim=-1),
        'v': randn(batch, length, heads, values),
        'g': -F.softplus(randn(*gates)),
        'beta': strongest * torch.rand(batch, length, heads, generator=generator),
        'initial_state': randn(batch, heads, keys, values) if state else None,
    }


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The recurrence as it is written, with matrices, one head at a time."""
    batch, length, heads, values = v.shape
    keys, repeats = q.shape[-1], heads // q.shape[2]
    scale = keys**-0.5 if scale is None else scale
    one = torch.eye(keys).to(v)
    outputs, lasts = [], []
    for b in range(batch):
        for h in range(heads):
            state = torch.zeros(keys, values).to(v)
            if initial_state is not None:
                state = initial_state[b, h]
            for t in range(length):
                key, query = k[b, t, h // repeats], q[b, t, h // repeats]
                erase = one - beta[b, t, h] * torch.outer(key, key)
                decay = torch.diag(g[b, t, h].exp().expand(keys))
                write = beta[b, t, h] * torch.outer(key, v[b, t, h])
                state = erase @ decay @ state + write
                outputs.append(scale * (query @ state))
            lasts.append(state)
    y = torch.stack(outputs).view(batch, heads, length, values).transpose(1, 2)
    return y, torch.stack(lasts).view(batch, heads, keys, values)
