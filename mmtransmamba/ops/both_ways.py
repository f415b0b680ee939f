r"""Recurrences that run over a sequence in both directions, from shared projections.

The forward sweep sees a token and those before it, the reverse sweep those after it,
so that every pair of tokens is counted once. With decays of 1, SSD in both directions
is linear attention over all tokens, without a softmax.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arguments import expect, finite_rates
from .delta_rule import gated_delta_rule
from .ssd import ssd_scan


def ssd_both_ways(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    backend: str | None = None,
) -> Tensor:
    r"""SSD (:func:`~mmtransmamba.ops.ssd_scan`) over all tokens, in two sweeps.

    For each head, :math:`Y = Y_f + Y_r` is the product of X and a full matrix
    (arXiv:2407.09941 calls such matrices quasiseparable):

    .. math::
        (Y_f)_t = \sum_{s \le t} (C_t \cdot B_s)\,
                  e^{A_f \sum_{r=s+1}^{t} \Delta_{f,r}}\, \Delta_{f,s}\, x_s, \qquad
        (Y_r)_t = \sum_{s > t} (C_t \cdot B_s)\,
                  e^{A_r \sum_{r=t}^{s-1} \Delta_{r,r}}\, \Delta_{r,s}\, x_s

    Args:
        x (Tensor): Input ``[N, L, H, P]``.
        dt (Tensor): Step sizes of the two sweeps, ``[N, L, 2, H]``.
        A (Tensor): Decay rates of the two sweeps, ``[2, H]``, negative.
        B (Tensor): Input vectors ``[N, L, H, S]``, which the sweeps share.
        C (Tensor): Output vectors ``[N, L, H, S]``, which the sweeps share.
        backend (str, optional): See :mod:`mmtransmamba.ops.backends`.

    Returns:
        Tensor: The outputs :math:`Y_f, Y_r`, ``[N, L, 2, H, P]``, in the dtype of
        ``x``. Both belong to the token at their place, whatever the order of the
        sweep.

    Raises:
        ValueError: If a shape, dtype or device does not fit.
    """
    _check_sweeps('dt', dt, x)
    expect('A', A, '[2, H]', {'2': 2, 'H': x.shape[2]})
    y, _ = ssd_scan(
        _there_and_back(x, x),
        _there_and_back(*dt.unbind(2)),
        A.flatten(),
        _there_and_back(B, B),
        _there_and_back(C, _read_earlier(C)),
        backend=backend,
    )
    rates = finite_rates(A)[1]
    return _by_token(y, torch.exp(_wide(dt[:, :, 1]) * _wide(rates)))


def delta_rule_both_ways(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    backend: str | None = None,
) -> Tensor:
    """Gated delta rule (:func:`~mmtransmamba.ops.gated_delta_rule`), in two sweeps.

    The reverse sweep reads its state before the token's own value is written, so that a
    token recalls itself only in the forward sweep. q and k are brought to length 1.

    Args:
        q (Tensor): Queries ``[N, L, H, K]``, which the sweeps share, like k and v.
        k (Tensor): Keys ``[N, L, H, K]``.
        v (Tensor): Values ``[N, L, H, V]``.
        g (Tensor): Logarithms of the decays of the two sweeps, ``[N, L, 2, H]``.
        beta (Tensor): Strengths of the two sweeps, ``[N, L, 2, H]``.
        backend (str, optional): See :mod:`mmtransmamba.ops.backends`.

    Returns:
        Tensor: The outputs of the sweeps at each token, ``[N, L, 2, H, V]``.

    Raises:
        ValueError: If a shape, dtype or device does not fit.
    """
    _check_sweeps('g', g, q)
    _check_sweeps('beta', beta, q)
    y, _ = gated_delta_rule(
        _there_and_back(q, _read_earlier(q)),
        _there_and_back(k, k),
        _there_and_back(v, v),
        _there_and_back(*g.unbind(2)),
        _there_and_back(*beta.unbind(2)),
        qk_l2norm=True,
        backend=backend,
    )
    return _by_token(y, torch.exp(_wide(g[:, :, 1])))


def _check_sweeps(name: str, tensor: Tensor, like: Tensor) -> None:
    sizes = dict(zip('NLH', like.shape, strict=False)) | {'2': 2}
    expect(name, tensor, '[N, L, 2, H]', sizes)


def _there_and_back(forward: Tensor, reverse: Tensor) -> Tensor:
    """Both sweeps' operands as heads of one sequence: ``[N, L, 2H, ...]``."""
    return torch.cat((forward, reverse.flip(1)), dim=2)


def _read_earlier(x: Tensor) -> Tensor:
    """Move reading vectors to the next token, whose state they read in reverse.

    The state at the first token, which contains all of them, is not read.
    """
    return torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _by_token(y: Tensor, decay: Tensor) -> Tensor:
    """Outputs by sweep and token, ``[N, L, 2, H, P]``.

    Args:
        y: Outputs of both sweeps in their own order, ``[N, L, 2H, P]``.
        decay: Decay ``[N, L, H]`` of the reverse sweep at each token, between the state
            that was read and the token.
    """
    forward, reverse = y.chunk(2, dim=2)
    reverse = reverse.flip(1)
    reverse = torch.cat((reverse[:, 1:], torch.zeros_like(reverse[:, :1])), dim=1)
    reverse = (reverse * decay[..., None]).to(y.dtype)
    return torch.stack((forward, reverse), dim=2)
