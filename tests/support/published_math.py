"""The published forwards in plain float64, independent of the package.

Tensors are looked up by their published names; a sequence is ``[L, C]``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def linear(x: Tensor, state: dict, name: str) -> Tensor:
    out = x @ state[f'{name}.weight'].T
    return out + state[f'{name}.bias'] if f'{name}.bias' in state else out


def layer_norm(x: Tensor, state: dict, name: str, eps: float) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
    return x * state[f'{name}.weight'] + state[f'{name}.bias']


def rotate(x: Tensor, theta: float, channels: int | None = None) -> Tensor:
    """Rotate the halves of the first ``channels`` of ``[L, H, D]``, from position 0."""
    size = channels or x.shape[-1]
    half = size // 2
    angle = torch.arange(len(x)).double()[:, None] * theta ** (
        -torch.arange(half).double() * 2 / size
    )
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    first, second, rest = x[..., :half], x[..., half:size], x[..., size:]
    return torch.cat(
        (first * cos - second * sin, second * cos + first * sin, rest), dim=-1
    )


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of ``[L, H, D]`` over ``[L, KV, D]``; ``[L, H * D]``."""
    length, heads, size = q.shape
    group = heads // k.shape[1]
    hidden = torch.ones(length, length).triu(1).bool()
    out = []
    for head in range(heads):
        scores = q[:, head] @ k[:, head // group].T / math.sqrt(size)
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        out.append(weights @ v[:, head // group])
    return torch.cat(out, dim=-1)


def taps(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise causal convolution of ``[L, D]`` with ``[D, 1, taps]``."""
    count = weight.shape[-1]
    padded = torch.cat((x.new_zeros(count - 1, x.shape[1]), x))
    out = sum(padded[tap : tap + len(x)] * weight[:, 0, tap] for tap in range(count))
    return out + bias


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution, then SiLU."""
    return F.silu(taps(x, weight, bias))


def ssd(x, B, C, dt, A_log) -> Tensor:
    """Mamba-2's recurrence, step by step, of ``[L, H, D]`` and ``dt`` ``[L, H]``."""
    length, heads, size = x.shape
    out = torch.zeros_like(x)
    for head in range(heads):
        state = x.new_zeros(size, B.shape[-1])
        for t in range(length):
            state = state * torch.exp(-dt[t, head] * A_log[head].exp())
            state = state + dt[t, head] * torch.outer(x[t, head], B[t, head])
            out[t, head] = state @ C[t, head]
    return out


def mamba_in_llama_layer(
    u: Tensor, state: dict, at: str, heads: int, kv_heads: int
) -> Tensor:
    """Rows z, x, B, C, dt; the gated output is normalised for each head alone."""
    inner = state[f'{at}out_proj.weight'].shape[1]
    size = inner // heads
    d_xb = kv_heads * size
    z, x, B, C, dt = linear(u, state, f'{at}in_proj').split(
        (inner, d_xb, d_xb, inner, heads), dim=-1
    )
    xBC = torch.cat((x, B, C), dim=-1)
    xBC = causal_conv(xBC, state[f'{at}conv1d.weight'], state[f'{at}conv1d.bias'])
    x, B, C = (
        part.reshape(len(u), -1, size) for part in xBC.split((d_xb, d_xb, inner), -1)
    )
    served = [head // (heads // kv_heads) for head in range(heads)]
    x, B = x[:, served], B[:, served]
    dt = F.softplus(dt + state[f'{at}dt_bias'])
    y = ssd(x, B, C, dt, state[f'{at}A_log']) + state[f'{at}D'][:, None] * x
    y = (y.reshape(len(u), inner) * F.silu(z)).reshape(len(u), heads, size)
    weight = state[f'{at}norm.weight'].reshape(heads, size)
    y = rms_norm(y, weight, 1e-5).reshape(len(u), inner)
    return linear(y, state, f'{at}out_proj')


def mamba1_in_llama_layer(u: Tensor, state: dict, at: str) -> Tensor:
    """Mamba-1 with x, B, C as v, k, q, channel by channel; groups of 16 channels."""
    A = -state[f'{at}A_log'].exp()
    inner, states = A.shape
    bias = state[f'{at}dt_proj.bias']
    low = u @ state[f'{at}dt_proj_down.weight'].T
    # The bias belongs to the projection and is given to the scan as well.
    dt = F.softplus(low @ state[f'{at}dt_proj.weight'].T + bias + bias)
    x, B = (linear(u, state, f'{at}{name}') for name in ('in_proj_x', 'B_proj'))
    C, z = (linear(u, state, f'{at}{name}') for name in ('C_proj', 'in_proj_z'))
    shared = inner // x.shape[1]
    # The channel of x and the group of B that channel d of the output reads.
    group = [d // states // shared for d in range(inner)]
    x = x[:, [group[d] * states + d % states for d in range(inner)]]
    x = causal_conv(x, state[f'{at}conv1d.weight'], state[f'{at}conv1d.bias'])
    y = torch.zeros_like(x)
    for d in range(inner):
        h = x.new_zeros(states)
        for t in range(len(u)):
            key = B[t, group[d] * states : (group[d] + 1) * states]
            query = C[t, d // states * states : (d // states + 1) * states]
            h = h * torch.exp(dt[t, d] * A[d]) + dt[t, d] * key * x[t, d]
            y[t, d] = h @ query + state[f'{at}D'][d] * x[t, d]
    return linear(y * F.silu(z), state, f'{at}out_proj')


def discrete_mamba2_layer(
    u: Tensor, state: dict, at: str, heads: int, states: int
) -> Tensor:
    """Rows x, B, C, z, a; a state decays by sigmoid(-a), and takes x as it is."""
    inner = len(state[f'{at}z_bias'])
    keys = heads * states
    xBC, z, a = linear(u, state, f'{at}in_proj').split(
        (inner + 2 * keys, inner, heads), dim=-1
    )
    xBC = taps(xBC, state[f'{at}conv1d.weight'], state[f'{at}conv1d.bias'])
    x, B, C = (
        part.reshape(len(u), heads, -1) for part in xBC.split((inner, keys, keys), -1)
    )
    y = torch.zeros_like(x)
    for head in range(heads):
        h = x.new_zeros(x.shape[-1], states)
        for t in range(len(u)):
            h = torch.sigmoid(-a[t, head]) * h + torch.outer(x[t, head], B[t, head])
            y[t, head] = h @ C[t, head] + state[f'{at}D'][head] * x[t, head]
    y = y.reshape(len(u), inner) * F.silu(z + state[f'{at}z_bias'])
    return linear(y, state, f'{at}out_proj')


def llama_mlp(x: Tensor, state: dict, gate: str, up: str, down: str) -> Tensor:
    return linear(F.silu(linear(x, state, gate)) * linear(x, state, up), state, down)


def double(state: dict) -> dict:
    return {name: tensor.double() for name, tensor in state.items()}


def attend_all(x: Tensor, state: dict, at: str, heads: int) -> Tensor:
    """Attention of a vision tower, in both directions, of ``[N, C]``."""
    q, k, v = (
        linear(x, state, f'{at}{name}_proj').reshape(len(x), heads, -1)
        for name in 'qkv'
    )
    out = []
    for head in range(heads):
        scores = q[:, head] @ k[:, head].T / math.sqrt(q.shape[-1])
        out.append(scores.softmax(-1) @ v[:, head])
    return linear(torch.cat(out, dim=-1), state, f'{at}out_proj')


def patches(image: Tensor, size: int) -> Tensor:
    """Patches ``[N, 3 * size * size]`` of ``[3, H, W]``, row by row."""
    rows, columns = image.shape[1] // size, image.shape[2] // size
    return torch.stack(
        [
            image[:, r * size : (r + 1) * size, c * size : (c + 1) * size].flatten()
            for r in range(rows)
            for c in range(columns)
        ]
    )


def tower_features(
    image: Tensor, state: dict, at: str, layers: int, heads: int, patch: int, clip: bool
) -> Tensor:
    """Tokens of the last layer but one of a CLIP or a SigLIP, class token included."""
    name = f'{at}embeddings.patch_embedding'
    weight = state[f'{name}.weight'].flatten(1)
    x = patches(image, patch) @ weight.T
    if clip:
        x = torch.cat((state[f'{at}embeddings.class_embedding'][None], x))
    else:
        x = x + state[f'{name}.bias']
    x = x + state[f'{at}embeddings.position_embedding.weight']
    if clip:
        x = layer_norm(x, state, f'{at}pre_layrnorm', 1e-5)
    eps = 1e-5 if clip else 1e-6
    for i in range(layers - 1):
        layer = f'{at}encoder.layers.{i}.'
        u = layer_norm(x, state, f'{layer}layer_norm1', eps)
        x = x + attend_all(u, state, f'{layer}self_attn.', heads)
        u = linear(
            layer_norm(x, state, f'{layer}layer_norm2', eps), state, f'{layer}mlp.fc1'
        )
        u = u * torch.sigmoid(1.702 * u) if clip else F.gelu(u, approximate='tanh')
        x = x + linear(u, state, f'{layer}mlp.fc2')
    return x
