"""Launches of the Triton kernels of the delta rule.

This module imports Triton, and is therefore imported only when the first one runs.

Shape suffixes: B batch, L steps, G heads of q and k, H heads, K key channels, V value
channels, C chunks, Q steps of a chunk.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ..triton_runtime import rows
from . import triton_plan as plan
from .triton_channels import (
    delta_channel_gates,
    delta_channel_keys,
    delta_channel_products,
)
from .triton_gradients import delta_keys, delta_pairs
from .triton_prepare import delta_prepare, delta_solve
from .triton_tiles import delta_sums
from .triton_walk import delta_walk, delta_walk_back

# Triton 3.10 no longer fuses a product and a sum automatically.
OPTIONS = dict(num_stages=1, enable_fp_fusion=True)
WARPS = 4
STEPS = -3
"""Dimension of the steps."""


class Prepared(NamedTuple):
    """What the kernels share: operands with unit strides, sums, matrices of chunks."""

    cut: plan.Division
    common: dict[str, Any]
    sizes: dict[str, Any]
    matrices: dict[str, Tensor]


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Output in the dtype of ``v`` and last state in float32."""
    y = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    last = torch.empty(_state_shape(q, v), dtype=torch.float32, device=v.device)
    with torch.cuda.device_of(v):
        ready = _prepare(q, k, v, g, beta, scale, keep=False)
        _walk(ready, v, initial_state, Y=y, LAST=last)
    return y, last


def backward(
    grad_y: Tensor | None,
    grad_last_state: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> list[Tensor]:
    """Gradients of the operands, each in the dtype of its operand.

    States and errors are computed again, so that the forward pass stores nothing.
    """
    batch, length, heads, values = v.shape
    groups, keys = q.shape[2:]
    if grad_y is None:
        grad_y = torch.zeros_like(v)
    grad_y = rows(grad_y, STEPS)
    with torch.cuda.device_of(v):
        ready = _prepare(q, k, v, g, beta, scale, keep=True)
        cut, common, sizes = ready.cut, ready.common, ready.sizes
        one = dict(
            NC=cut.chunks, L=length, H=heads, BT=cut.chunk, BV=cut.value_tile, **OPTIONS
        )
        one |= dict(PRECISION=sizes['PRECISION'], num_warps=WARPS)
        float32 = dict(dtype=torch.float32, device=v.device)
        states = torch.empty(batch * heads, cut.chunks, keys, values, **float32)
        errors = torch.empty(v.shape, **float32)
        _walk(ready, v, initial_state, STATES=states, ERRORS=errors)
        grads = torch.empty_like(states)
        dv = torch.empty_like(errors)
        blocks = triton.cdiv(values, cut.value_tile)
        padded = cut.chunks * cut.chunk
        parts = torch.empty(blocks, batch * heads, padded, **float32)
        first = torch.empty(_state_shape(q, v), **float32)
        last = grad_last_state
        if last is not None:
            last = last.float().contiguous()
        flowing = dict(GRAD=grad_y, **_strides(grad=grad_y))
        reads, solved = ready.matrices['READS'], ready.matrices['SOLVED']
        delta_walk_back[(batch * heads * blocks,)](
            **common,
            **sizes,
            **flowing,
            READS=reads,
            SOLVED=solved,
            ERRORS=errors,
            GRAD_LAST=first if last is None else last,
            GRADS=grads,
            DV=dv,
            DBETA=parts,
            DSTART=first,
            VALUES=values,
            NK=cut.key_tiles,
            BV=cut.value_tile,
            HAS_GRAD_LAST=last is not None,
            num_warps=WARPS,
        )
        of_beta = {
            name: common[name]
            for name in ('BETA', 'HIGH', 'LOW', 'beta_b', 'beta_l', 'beta_h', 'scale')
        }
        pairs = [torch.empty_like(reads) for _ in range(2)]
        dbeta = torch.empty(batch, length, heads, **float32)
        dgate = torch.empty(batch * heads, padded, **float32)
        chunks = (batch * heads * cut.chunks,)
        delta_pairs[chunks](
            **of_beta,
            **flowing,
            **one,
            RECALLS=ready.matrices['RECALLS'],
            READS=reads,
            ERRORS=errors,
            DV=dv,
            PARTS=parts,
            DRECALLS=pairs[0],
            DREADS=pairs[1],
            DBETA=dbeta,
            DGATE=dgate,
            VALUES=values,
            part=batch * heads * padded,
            BLOCKS=blocks,
            CHANNEL=sizes['CHANNEL'],
        )
        shared = heads > groups
        dq, dk = (
            torch.empty(
                batch,
                length,
                heads,
                keys,
                dtype=torch.float32 if shared else x.dtype,
                device=v.device,
            )
            for x in (q, k)
        )
        dg = torch.empty(g.shape, **float32)
        of_keys = (
            common
            | flowing
            | one
            | dict(
                ERRORS=errors,
                DV=dv,
                STATES=states,
                GRADS=grads,
                DRECALLS=pairs[0],
                DREADS=pairs[1],
                DQ=dq,
                DK=dk,
                REPEATS=sizes['REPEATS'],
                KEYS=keys,
                VALUES=values,
                BK=min(cut.key_tile, plan.GRADIENT_TILE[sizes['PRECISION']]),
            )
        )
        if sizes['CHANNEL']:
            up_to, on_from = torch.empty(2, *ready.common['HIGH'].shape, **float32)
            tiles = chunks[0] * triton.cdiv(keys, of_keys['BK'])
            delta_channel_keys[(tiles * (cut.chunk // plan.BLOCK),)](
                **of_keys | dict(num_warps=1), UP_TO=up_to, ON_FROM=on_from
            )
            g = rows(g, STEPS)
            names = 'HIGH', 'LOW', 'STATES', 'GRADS', 'L', 'NC', 'H', 'KEYS', 'VALUES'
            names += 'BT', 'BK', 'BV', *OPTIONS
            delta_channel_gates[(tiles,)](
                **{name: of_keys[name] for name in names},
                GATE=g,
                **_strides(g=g),
                UP_TO=up_to,
                ON_FROM=on_from,
                DG=dg,
                num_warps=1,
            )
        else:
            delta_keys[chunks](**of_keys, DGATE=dgate, DG=dg)
        if shared:
            dq, dk = (x.unflatten(2, (groups, -1)).sum(3) for x in (dq, dk))
        found = [dq, dk, dv, dg, dbeta]
        return [
            x.to(of.dtype) for x, of in zip(found, (q, k, v, g, beta), strict=True)
        ] + ([] if initial_state is None else [first.to(initial_state.dtype)])


def _prepare(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, scale: float, keep: bool
) -> Prepared:
    """Sums of log decays and the matrices of all chunks."""
    batch, length, heads, values = v.shape
    groups, keys = q.shape[2:]
    cut = plan.divide(batch * heads, length, keys, values)
    channel = g.dim() == 4
    float32 = dict(dtype=torch.float32, device=v.device)
    q, k = rows(q, STEPS), rows(k, STEPS)
    width = keys if channel else 1
    high, low = torch.empty(2, batch * heads, cut.chunks, cut.chunk, width, **float32)
    columns = min(cut.key_tile, 32) if channel else 1
    chunks = batch * heads * cut.chunks
    delta_sums[(chunks * triton.cdiv(width, columns),)](
        GATE=g,
        HIGH=high,
        LOW=low,
        **_strides(g=g),
        g_d=g.stride(3) if channel else 0,
        L=length,
        NC=cut.chunks,
        H=heads,
        KEYS=width,
        BT=cut.chunk,
        BD=columns,
        num_warps=1,
        **OPTIONS,
    )
    common = dict(QUERY=q, KEY=k, BETA=beta, HIGH=high, LOW=low, scale=scale)
    common |= _strides(q=q, k=k, beta=beta)
    sizes = dict(
        L=length,
        NC=cut.chunks,
        H=heads,
        REPEATS=heads // groups,
        KEYS=keys,
        BT=cut.chunk,
        BK=cut.key_tile,
        CHANNEL=channel,
        PRECISION=precision(v),
        **OPTIONS,
    )
    square = batch * heads, cut.chunks, cut.chunk, cut.chunk
    reads, solved = (torch.empty(square, **float32) for _ in range(2))
    recalls = torch.empty(square, **float32) if keep or channel else reads
    of_keys = sizes | common
    of_solve = dict(SOLVED=solved, EXACT=precision(torch.float32), num_warps=WARPS)
    del of_keys['CHANNEL']
    if channel:
        for name in ('BETA', *_strides(beta=beta)):
            of_keys.pop(name)
        delta_channel_products[(chunks * (cut.chunk // plan.BLOCK),)](
            **of_keys, RECALLS=recalls, READS=reads, num_warps=1
        )
        delta_solve[(chunks,)](
            BETA=beta,
            **_strides(beta=beta),
            **{name: sizes[name] for name in ('L', 'NC', 'H', 'BT', *OPTIONS)},
            RECALLS=recalls,
            **of_solve,
        )
    else:
        delta_prepare[(chunks,)](
            **of_keys, RECALLS=recalls, READS=reads, KEEP=keep, **of_solve
        )
    matrices = dict(RECALLS=recalls, READS=reads, SOLVED=solved)
    return Prepared(cut, common, sizes, matrices)


def _walk(
    ready: Prepared, v: Tensor, initial_state: Tensor | None, **outputs: Tensor
) -> None:
    """Output and last state, or the states before the chunks and the errors."""
    v = rows(v, STEPS)
    values = v.shape[3]
    keep = 'STATES' in outputs
    absent = next(iter(outputs.values()))
    if initial_state is not None:
        initial_state = initial_state.float().contiguous()
    cut = ready.cut
    programs = v.shape[0] * v.shape[2] * triton.cdiv(values, cut.value_tile)
    delta_walk[(programs,)](
        **ready.common,
        **ready.sizes,
        VALUE=v,
        **_strides(v=v),
        READS=ready.matrices['READS'],
        SOLVED=ready.matrices['SOLVED'],
        START=absent if initial_state is None else initial_state,
        **{
            name: outputs.get(name, absent)
            for name in ('Y', 'STATES', 'ERRORS', 'LAST')
        },
        VALUES=values,
        NK=cut.key_tiles,
        BV=cut.value_tile,
        KEEP=keep,
        HAS_START=initial_state is not None,
        num_warps=WARPS,
    )


def precision(v: Tensor | torch.dtype) -> str:
    """How tiles in float32 are multiplied.

    TF32 has the three digits of float16 and the range of float32, so that states need
    no rounding to half precision. Three products of TF32 have the precision of float32.
    """
    if torch.version.hip is not None:
        return 'ieee'
    dtype = v.dtype if isinstance(v, Tensor) else v
    return 'tf32x3' if dtype == torch.float32 else 'tf32'


def _state_shape(q: Tensor, v: Tensor) -> tuple[int, ...]:
    return v.shape[0], v.shape[2], q.shape[3], v.shape[3]


def _strides(**tensors: Tensor) -> dict[str, int]:
    """Strides of the batch, the steps and the heads."""
    found = {}
    for name, x in tensors.items():
        found |= zip(
            (f'{name}_b', f'{name}_l', f'{name}_h'), x.stride()[:3], strict=True
        )
    return found
