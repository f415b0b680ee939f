"""The bidirectional Mamba mixer (bimamba v2) of Vim and VideoMamba."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.models.mixers.projections import (
    stacked_causal_convs,
    stacked_linears,
    without_bias,
)
from mmtransmamba.models.taps import DirectionFeature, DirectionTap, patch_index
from mmtransmamba.ops import selective_scan_directions
from mmtransmamba.ops.scan_order import bidirectional

BACKWARD = (False, True)  # for each direction


class BiMambaMixer(nn.Module):
    r"""Selective scans of a sequence forwards and backwards.

    With :math:`x, z` the halves of ``in_proj``, each direction k has a causal
    convolution, :math:`u_k = \mathrm{SiLU}(\mathrm{conv}_k(x))`, computes its own
    :math:`\Delta, B, C` from :math:`u_k` and scans. The output is ``out_proj(SiLU(z)
    * (y_forward + y_backward))``, halved in Vim. Names and shapes of the parameters
    are those of the official checkpoints, where ``_b`` marks the backward
    direction (Zhu et al., "Vision Mamba", 2024).

    The official code flips the whole sequence for the backward direction and then flips
    its output. Here nothing is flipped: the backward convolution looks ahead instead,
    the scan reads the tokens through an index, both directions run in one call, and the
    gate, which is computed per token, multiplies their sum.

    Args:
        embed_dims: Width C of the tokens.
        d_state: State size N.
        d_conv: Width of the causal convolution.
        expand: Inner width D as a multiple of ``embed_dims``.
        divide_out: Halve the sum of the directions (Vim).
    """

    def __init__(
        self,
        embed_dims: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        divide_out: bool = False,
    ) -> None:
        super().__init__()
        self.d_inner = int(expand * embed_dims)
        self.d_state = d_state
        self.d_conv = d_conv
        self.dt_rank = math.ceil(embed_dims / 16)
        self.divide_out = divide_out

        def conv1d() -> nn.Conv1d:
            return nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner)

        def x_proj() -> nn.Linear:
            return nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)

        self.A_log = nn.Parameter(torch.empty(self.d_inner, d_state))
        self.D = nn.Parameter(torch.empty(self.d_inner))
        self.A_b_log = nn.Parameter(torch.empty(self.d_inner, d_state))
        self.D_b = nn.Parameter(torch.empty(self.d_inner))
        self.in_proj = nn.Linear(embed_dims, 2 * self.d_inner, bias=False)
        self.conv1d = conv1d()
        self.x_proj = x_proj()
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        self.conv1d_b = conv1d()
        self.x_proj_b = x_proj()
        self.dt_proj_b = nn.Linear(self.dt_rank, self.d_inner)
        self.out_proj = nn.Linear(self.d_inner, embed_dims, bias=False)
        self.direction_tap = DirectionTap(self.d_inner, len(BACKWARD))
        self.reset_ssm_parameters()

    def reset_ssm_parameters(self) -> None:
        """Initialise A as S4D-real, ``-(1..N)`` in every channel, and D as one."""
        n = torch.arange(1, self.d_state + 1, dtype=torch.float32)
        with torch.no_grad():
            for A_log, D in ((self.A_log, self.D), (self.A_b_log, self.D_b)):
                A_log.copy_(n.log().expand_as(A_log))
                D.fill_(1)

    def forward(
        self, tokens: Tensor, grid: tuple[int, ...], cls_index: int | None = None
    ) -> Tensor:
        """Mix ``tokens`` ``[B, L, C]``.

        Args:
            tokens: Patch tokens in raster order, with a class token among them.
            grid: Rows and columns of the patches, for the tap's listener.
            cls_index: Position of the class token, None without one.
        """
        B, L, _ = tokens.shape
        x_BLD, z_BLD = self.in_proj(tokens).chunk(2, dim=-1)
        # The weights of all directions, as one batch of matrices: K comes first.
        u_KBLD = stacked_causal_convs(
            x_BLD, (self.conv1d, self.conv1d_b), self.d_conv, BACKWARD
        )
        projected, _ = stacked_linears(u_KBLD, (self.x_proj, self.x_proj_b))
        dt, B_ssm, C_ssm = projected.split(
            (self.dt_rank, self.d_state, self.d_state), dim=-1
        )
        dt_KBLD, dt_bias = stacked_linears(dt, (self.dt_proj, self.dt_proj_b))

        scan_order = bidirectional(L, device=str(tokens.device))
        steps = self.direction_tap.steps(scan_order, cls_index)
        y_BDL, tapped = selective_scan_directions(
            u_KBLD.permute(1, 0, 3, 2),
            dt_KBLD.permute(1, 0, 3, 2),
            -torch.exp(torch.stack((self.A_log, self.A_b_log)).float()),
            B_ssm.permute(1, 0, 3, 2),
            C_ssm.permute(1, 0, 3, 2),
            torch.stack((self.D, self.D_b)).float(),
            order=scan_order,
            tap_index=steps,
            delta_bias=None if dt_bias is None else dt_bias.float(),
            delta_softplus=True,
        )
        gate_BLD = F.silu(z_BLD)
        if tapped is not None:
            self._tell(tapped, scan_order, steps, grid, cls_index, gate_BLD)
        out = self.out_proj(y_BDL.transpose(1, 2) * gate_BLD)
        # Halved after the linear map, on fewer channels; powers of two are exact.
        return out / 2 if self.divide_out else out

    def _tell(
        self,
        tapped: Tensor,
        scan_order: Tensor,
        steps: Tensor,
        grid: tuple[int, ...],
        cls_index: int | None,
        gate_BLD: Tensor,
    ) -> None:
        """Pass the directions' outputs ``[B, K, D, M]`` to the tap's listener."""
        token_index = scan_order.gather(1, steps)

        def project(values_BKMD: Tensor) -> Tensor:
            gate = gate_BLD[:, token_index]
            out = without_bias(self.out_proj, values_BKMD.to(gate.dtype) * gate)
            return out / 2 if self.divide_out else out

        self.direction_tap(
            DirectionFeature(
                tapped.transpose(2, 3),
                patch_index(scan_order, steps, cls_index),
                grid,
                project,
            )
        )
