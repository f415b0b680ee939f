"""The compiled depthwise convolution as a torch custom op.

Shape suffixes: B batch, K kernels, L tokens, D channels, I and J rows and columns of
the taps.
"""

from __future__ import annotations

from ctypes import addressof, c_int64
from typing import Any

import torch
from torch import Tensor

from . import library

_SCHEMA = (
    'Tensor x, Tensor taps, Tensor? bias, SymInt height, int row, int[] columns, '
    'int[] flipped, bool silu'
)


def depthwise(
    x: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    height: int,
    row: int,
    columns: list[int],
    flipped: list[int],
    silu: bool,
) -> Tensor:
    r"""Convolve every channel of a grid of tokens with K kernels.

    .. math::
        y_{k,r,c} = b_k + \sum_{i,j} w_{k,i,j}\, x_{r + row + i,\; c + columns_k + j}

    with zeros outside the grid, then SiLU if requested.

    Args:
        x: Tokens ``[B, L, D]`` of any strides, float32.
        taps: ``[K, I, J, D]`` of any strides, float32.
        bias: ``[K, D]``, or None.
        height: Rows of the grid.
        row: The first row of the taps, in ``(-I, 0]``.
        columns: For each kernel the first column of its taps, in ``(-J, 0]``.
        flipped: For each kernel, 1 if its taps are stored last first.
        silu: Apply SiLU to the result.

    Returns:
        ``[K, B, L, D]``, contiguous; differentiable once.
    """
    return _depthwise_op(x, taps, bias, height, row, columns, flipped, silu)


class _Call:
    """The arguments of a kernel, with what they point to."""

    def __init__(
        self,
        x: Tensor,
        taps: Tensor,
        bias: Tensor | None,
        height: int,
        row: int,
        columns: list[int],
        flipped: list[int],
        silu: bool,
        y: Tensor,
    ) -> None:
        kernels, tap_rows, tap_columns, channels = taps.shape
        self._lists = [(c_int64 * kernels)(*values) for values in (columns, flipped)]
        column, flips = map(addressof, self._lists)
        self.args = library.DepthwiseArgs(
            batch=x.shape[0],
            height=height,
            width=x.shape[1] // height,
            channels=channels,
            kernels=kernels,
            tap_rows=tap_rows,
            tap_columns=tap_columns,
            row=row,
            silu=silu,
            column=column,
            flipped=flips,
            x=library.View.of(x),
            taps=library.View.of(taps),
            bias=library.View.of(bias),
            y=library.View.of(y),
        )


@torch.library.custom_op(
    'mmtransmamba::depthwise', mutates_args=(), schema=f'({_SCHEMA}) -> Tensor'
)
def _depthwise_op(
    x: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    height: int,
    row: int,
    columns: list[int],
    flipped: list[int],
    silu: bool,
) -> Tensor:
    y = x.new_empty(len(columns), *x.shape)
    if y.numel():
        call = _Call(x, taps, bias, height, row, columns, flipped, silu, y)
        library.load().run('depthwise', 'forward', call.args)
    return y


@_depthwise_op.register_fake
def _(
    x: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    height: int,
    row: int,
    columns: list[int],
    flipped: list[int],
    silu: bool,
) -> Tensor:
    return x.new_empty(len(columns), *x.shape)


@torch.library.custom_op(
    'mmtransmamba::depthwise_backward',
    mutates_args=(),
    schema=f'(Tensor grad, {_SCHEMA}, bool[] wanted) -> Tensor[]',
)
def _depthwise_backward_op(
    grad: Tensor,
    x: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    height: int,
    row: int,
    columns: list[int],
    flipped: list[int],
    silu: bool,
    wanted: list[bool],
) -> list[Tensor]:
    """The wanted gradients of x, the taps and the bias."""
    parts = _empty_parts(x, taps, wanted)
    if x.numel():
        call = _Call(x, taps, bias, height, row, columns, flipped, silu, grad)
        grad_x, grad_taps, grad_bias = parts
        call.args.grad_x = library.View.of(grad_x)
        call.args.grad_taps = library.View.of(
            None if grad_taps is None else grad_taps.flatten(2, 3)
        )
        call.args.grad_bias = library.View.of(grad_bias)
        library.load().run('depthwise', 'backward', call.args)
    return _sum_parts(parts)


@_depthwise_backward_op.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    height: int,
    row: int,
    columns: list[int],
    flipped: list[int],
    silu: bool,
    wanted: list[bool],
) -> list[Tensor]:
    return _sum_parts(_empty_parts(x, taps, wanted))


def _empty_parts(
    x: Tensor, taps: Tensor, wanted: list[bool]
) -> tuple[Tensor | None, ...]:
    """Buffers for the gradients; those of the parameters have a part per batch entry.

    Work items never write to the same place, and the parts are summed in the same order
    for any number of threads.
    """
    shapes = (
        x.shape,
        (x.shape[0], *taps.shape),
        (x.shape[0], taps.shape[0], taps.shape[3]),
    )
    return tuple(
        x.new_empty(shape) if want else None
        for shape, want in zip(shapes, wanted, strict=True)
    )


def _sum_parts(parts: tuple[Tensor | None, ...]) -> list[Tensor]:
    grad_x, *of_parameters = parts
    sums = [part.sum(0) for part in of_parameters if part is not None]
    return sums if grad_x is None else [grad_x, *sums]


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, taps, bias, *ctx.settings = inputs
    ctx.save_for_backward(x, taps, bias)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    wanted = [bool(want) for want in ctx.needs_input_grad[:3]]
    x, taps, bias = ctx.saved_tensors
    grads = iter(_depthwise_backward_op(grad, x, taps, bias, *ctx.settings, wanted))
    return *(next(grads) if want else None for want in wanted), *[None] * 5


_depthwise_op.register_autograd(_backward, setup_context=_setup_context)
