"""Operands of SSD and two definitions of it that share no code with the package."""

import torch
from scan_cases import Operands
from torch import Tensor


def operands(
    batch: int = 2,
    length: int = 7,
    heads: int = 4,
    width: int = 6,
    groups: int = 2,
    states: int = 5,
    optional: bool = True,
    decay: float = 4.0,
    seed: int = 0,
) -> Operands:
    """Float32 operands of ``ssd_scan``."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        'x': randn(batch, length, heads, width),
        'dt': torch.nn.functional.softplus(randn(batch, length, heads) - 1),
        'A': -decay * torch.rand(heads, generator=generator),
        'B': randn(batch, length, groups, states),
        'C': randn(batch, length, groups, states),
        'D': randn(heads) if optional else None,
        'initial_state': randn(batch, heads, width, states) if optional else None,
    }


def recurrence(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The recurrence as it is written, one batch entry and one head at a time."""
    outputs, lasts = [], []
    for b in range(x.shape[0]):
        for h in range(x.shape[2]):
            g = h // (x.shape[2] // B.shape[2])
            state = torch.zeros(x.shape[3], B.shape[3]).to(x)
            if initial_state is not None:
                state = initial_state[b, h]
            for t in range(x.shape[1]):
                decay = torch.exp(dt[b, t, h] * A[h])
                drive = dt[b, t, h] * torch.outer(x[b, t, h], B[b, t, g])
                state = decay * state + drive
                y = state @ C[b, t, g]
                outputs.append(y if D is None else y + D[h] * x[b, t, h])
            lasts.append(state)
    batch, length, heads, width = x.shape
    y = torch.stack(outputs).view(batch, heads, length, width).transpose(1, 2)
    return y, torch.stack(lasts).view(batch, heads, width, -1)


def attention(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> Tensor:
    """The quadratic form: attention masked by the decay between two steps."""
    heads = x.shape[2] // B.shape[2]
    keys, queries = (part.repeat_interleave(heads, dim=2) for part in (B, C))
    scores = torch.einsum('bihn,bjhn->bhij', queries, keys)
    decays = []
    for i in range(x.shape[1]):
        for j in range(x.shape[1]):
            between = (dt[:, j + 1 : i + 1] * A).sum(1).exp()
            decays.append(between if j <= i else torch.zeros_like(between))
    mask = torch.stack(decays, -1).view(*scores.shape)
    y = torch.einsum('bhij,bjh,bjhp->bihp', scores * mask, dt, x)
    return y + D[:, None] * x
