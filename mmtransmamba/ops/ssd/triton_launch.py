"""Launches of SSD's Triton kernels.

This module imports Triton, and is therefore imported only when the first scan runs.

Shape suffixes: J parts of the heads of a group, B batch, L steps, C chunks, H heads,
P channels of a head, G groups, N states, Q steps of a chunk.
"""

from itertools import compress
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_runtime import rows
from . import triton_plan as plan
from .triton_gradients import ssd_head_gradients
from .triton_groups import ssd_group_gradients, ssd_score_gradients
from .triton_output import ssd_output
from .triton_states import ssd_carry, ssd_chunk_states, ssd_decays, ssd_scores

# Triton 3.10 no longer fuses a product and a sum automatically.
OPTIONS = dict(num_warps=plan.WARPS, num_stages=1, enable_fp_fusion=True)


def forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The forward pass: output and last state."""
    scan = Scan(x, dt, A, B, C)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    with torch.cuda.device_of(x):
        sums = scan.decays()
        states, last = scan.carried_states(sums, initial_state)
        scan.launch(
            ssd_output,
            scan.heads,
            (scan.width,),
            'X DT C',
            SKIP=scan.rates if D is None else D.float().contiguous(),
            SUMS=sums,
            SCORES=scan.scores(),
            STATES=states,
            Y=y,
            HAS_SKIP=D is not None,
        )
    return y, last


def backward(
    grad_y: Tensor | None,
    grad_last_state: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    wanted: list[bool],
) -> list[Tensor]:
    """The backward pass: the wanted gradients, in the dtypes of the operands."""
    grad = torch.zeros_like(x) if grad_y is None else grad_y
    scan = Scan(x, dt, A, B, C, grad)
    dx, ddt = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, dt))
    da, dskip = (scan.empty(scan.batch, scan.chunks, scan.heads) for _ in range(2))
    db = dc = None
    with torch.cuda.device_of(x):
        sums = scan.decays()
        states, _ = scan.carried_states(sums, initial_state)
        behind, dstart = scan.carried_states(sums, grad_last_state, reverse=True)
        common = dict(SUMS=sums, STATES=states, GRAD_STATES=behind)
        if any([*wanted[:3], wanted[5]]):
            scan.launch(
                ssd_head_gradients,
                scan.heads,
                (),
                'X DT B C GRAD',
                **common,
                A=scan.rates,
                SKIP=scan.rates if D is None else D.float().contiguous(),
                SCORES=scan.scores(),
                DX=dx,
                DDT=ddt,
                DA=da,
                DSKIP=dskip,
                HAS_SKIP=D is not None,
            )
        if any(wanted[3:5]):
            db, dc = _group_gradients(scan, common, B, C)
        da, dskip = da.sum((0, 1)), dskip.sum((0, 1))
    operands = x, dt, A, B, C, D, initial_state
    grads = dx, ddt, da, db, dc, dskip, dstart
    return [
        found.to(operand.dtype)
        for found, operand in compress(zip(grads, operands, strict=True), wanted)
    ]


class Scan:
    """Operands of a scan as the kernels read them, and launches with their strides.

    They are copied only if their last dimension has a stride.
    """

    def __init__(
        self,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        grad: Tensor | None = None,
    ) -> None:
        self.batch, self.length, self.heads, self.width = x.shape
        self.groups, self.states = B.shape[2:]
        self.steps = plan.chunk_steps(self.length)
        self.chunks = triton.cdiv(self.length, self.steps)
        self.rates = A.float().contiguous()
        self.operands = dict(X=rows(x, 1), DT=dt, B=rows(B, 1), C=rows(C, 1))
        if grad is not None:
            self.operands['GRAD'] = rows(grad, 1)
        # A state in float16 could overflow; TF32 has its digits and float32's range.
        # Of float32 it has not all digits, hence three products for one.
        self.mix = tl.bfloat16 if x.dtype == torch.bfloat16 else tl.float32
        self.precision = 'tf32x3' if x.dtype == torch.float32 else 'tf32'
        if torch.version.hip is not None:
            self.precision = 'ieee'

    def empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.rates.device)

    def tiles(self, *sizes: int) -> int:
        """Tiles that channels, states or both are divided into."""
        count = 1
        for size in sizes:
            count *= triton.cdiv(size, plan.block_size(size))
        return count

    def launch(
        self,
        kernel: Any,
        items: int,
        tiled: tuple[int, ...],
        operands: str,
        **arguments: Any,
    ) -> None:
        """Launch a kernel.

        Args:
            kernel: The kernel.
            items: Programs for every chunk.
            tiled: Sizes that are divided into tiles, of one program each.
            operands: Names of operands, perhaps ``NAME=OPERAND`` for another name.
            arguments: Further arguments.
        """
        for entry in operands.split():
            name, _, operand = entry.partition('=')
            x = self.operands[operand or name]
            prefix = 'g' if name == 'GRAD' else name.lower()
            arguments[name] = x
            for dimension, stride in zip('blh', x.stride(), strict=False):
                arguments[f'{prefix}_{dimension}'] = stride
        sizes = dict(
            L=self.length,
            NC=self.chunks,
            H=self.heads,
            G=self.groups,
            R=self.heads // self.groups,
            P=self.width,
            N=self.states,
            Q=self.steps,
            BP=plan.block_size(self.width),
            BN=plan.block_size(self.states),
            SLICE=plan.slice_size(self.steps, self.precision),
            MIX=self.mix,
            PRECISION=self.precision,
        )
        taken = {name: sizes[name] for name in sizes if name in kernel.arg_names}
        grid = self.batch * self.chunks * items, self.tiles(*tiled)
        kernel[grid](**arguments, **taken, **OPTIONS)

    def decays(self) -> Tensor:
        """Sums of the logarithms of decays, ``[B, C, H, Q, 2]``."""
        sums = self.empty(self.batch, self.chunks, self.heads, self.steps, 2)
        self.launch(ssd_decays, self.heads, (), 'DT', A=self.rates, SUMS=sums)
        return sums

    def scores(self) -> Tensor:
        """Products of C and B of every two steps of a chunk, ``[B, C, G, Q, Q]``."""
        scores = self.empty(
            self.batch, self.chunks, self.groups, self.steps, self.steps
        )
        self.launch(ssd_scores, self.groups, (), 'B C', SCORES=scores)
        return scores

    def carried_states(
        self, sums: Tensor, start: Tensor | None, reverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """States before the chunks, ``[B, C, H, P, N]``, and the last one.

        If ``reverse``, gradients of the states after the chunks, and of the first
        state, from the gradient of the last one.
        """
        size = self.width * self.states
        states = self.empty(
            self.batch, self.chunks, self.heads, self.width, self.states
        )
        end = self.empty(self.batch, self.heads, self.width, self.states)
        self.launch(
            ssd_chunk_states,
            self.heads,
            (self.width, self.states),
            'X=GRAD DT M=C' if reverse else 'X DT M=B',
            SUMS=sums,
            STATES=states,
            REVERSE=reverse,
        )
        ssd_carry[(self.batch * self.heads, triton.cdiv(size, plan.CARRIED))](
            SUMS=sums,
            STATES=states,
            START=states if start is None else start.contiguous(),
            END=end,
            NC=self.chunks,
            H=self.heads,
            SIZE=size,
            Q=self.steps,
            BLOCK=plan.CARRIED,
            AHEAD=plan.AHEAD,
            REVERSE=reverse,
            HAS_START=start is not None,
            **OPTIONS,
        )
        return states, end


def _group_gradients(
    scan: Scan, common: dict[str, Tensor], B: Tensor, C: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of B and C."""
    programs = scan.batch * scan.chunks * scan.groups * scan.tiles(scan.states)
    parts = plan.head_parts(programs, scan.heads // scan.groups)
    db_JBLGN, dc_JBLGN = (
        torch.empty(
            (parts, *x.shape),
            dtype=x.dtype if parts == 1 else torch.float32,
            device=x.device,
        )
        for x in (B, C)
    )
    dscores = scan.empty(
        scan.batch, scan.chunks, scan.groups, parts, scan.steps, scan.steps
    )
    scan.launch(
        ssd_score_gradients,
        scan.groups * parts,
        (),
        'X DT GRAD',
        SUMS=common['SUMS'],
        DSCORES=dscores,
        J=parts,
    )
    scan.launch(
        ssd_group_gradients,
        scan.groups * parts,
        (scan.states,),
        'X DT B C GRAD',
        **common,
        DSCORES=dscores,
        DB=db_JBLGN,
        DC=dc_JBLGN,
        batch=scan.batch,
        J=parts,
    )
    return tuple(x[0] if parts == 1 else x.sum(0) for x in (db_JBLGN, dc_JBLGN))
