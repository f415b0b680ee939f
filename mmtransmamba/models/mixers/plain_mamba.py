"""PlainMamba's token mixer: a 2D convolution and four continuous (snake) scans."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.models.mixers.projections import bias_of, grid_conv, without_bias
from mmtransmamba.models.taps import DirectionFeature, DirectionTap, patch_index
from mmtransmamba.ops import selective_scan_directions
from mmtransmamba.ops.scan_order import continuous_2d

NUM_DIRECTIONS = 4
CONV_SIZE = 7
NUM_DIRECTION_KINDS = 5  # start of a path, step right, left, up, down


class PlainMambaMixer(nn.Module):
    r"""Selective scan along four snake paths with direction-aware updates.

    With :math:`x, z` the halves of ``in_proj``, :math:`u = \mathrm{SiLU}(
    \mathrm{conv2d}(x))` and one set of :math:`\Delta, B, C` computed from ``u``,
    direction k scans ``u`` along its path with :math:`B + B^{dir}_k`, where
    :math:`B^{dir}_k` encodes the step (right, left, up, down) by which it arrived.
    The output is ``out_proj(SiLU(z) * sum_k y_k)``. Names and shapes of the
    parameters are those of the official checkpoints (Yang et al., "PlainMamba:
    Improving Non-Hierarchical Mamba in Visual Recognition", 2024).

    Two properties of the official code are kept because its weights depend on them:
    the bias of ``dt_proj`` is added twice, and only ``u`` follows the path while
    dt, B and C are read in raster order.

    Args:
        embed_dims: Width C of the tokens.
        d_state: State size N.
        expand: Inner width D as a multiple of ``embed_dims``.
        permute_params: Let dt, B and C follow the path as ``u`` does. This is more
            consistent, but differs from the function that official weights learned.
    """

    def __init__(
        self,
        embed_dims: int,
        d_state: int = 16,
        expand: float = 2,
        permute_params: bool = False,
    ) -> None:
        super().__init__()
        self.d_inner = int(expand * embed_dims)
        self.d_state = d_state
        self.dt_rank = math.ceil(embed_dims / 16)
        self.permute_params = permute_params

        self.in_proj = nn.Linear(embed_dims, 2 * self.d_inner)
        self.conv2d = nn.Conv2d(
            self.d_inner,
            self.d_inner,
            CONV_SIZE,
            padding=CONV_SIZE // 2,
            groups=self.d_inner,
        )
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        self.A_log = nn.Parameter(torch.empty(self.d_inner, d_state))
        self.D = nn.Parameter(torch.empty(self.d_inner))
        self.direction_Bs = nn.Parameter(torch.empty(NUM_DIRECTION_KINDS, d_state))
        self.out_proj = nn.Linear(self.d_inner, embed_dims)
        self.direction_tap = DirectionTap(self.d_inner, NUM_DIRECTIONS)
        self.reset_ssm_parameters()

    def reset_ssm_parameters(self) -> None:
        """Initialise the parameters outside linear layers and convolutions.

        These are A (S4D-real, ``-(1..N)`` in every channel), D (one) and B's bias.
        """
        n = torch.arange(1, self.d_state + 1, dtype=torch.float32)
        with torch.no_grad():
            self.A_log.copy_(n.log().expand_as(self.A_log))
            self.D.fill_(1)
        nn.init.trunc_normal_(self.direction_Bs, std=0.02)

    def _direction_biases(self, kinds: Tensor, scan_order: Tensor) -> Tensor:
        """``direction_Bs`` in the layout in which the scan reads B: ``[K, N, L]``."""
        if self.permute_params:
            kinds = torch.empty_like(kinds).scatter_(1, scan_order, kinds)
        return self.direction_Bs[kinds].transpose(1, 2)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Mix ``tokens`` ``[B, L, C]`` of a ``grid`` with ``H * W == L``."""
        x_BLD, z_BLD = self.in_proj(tokens).chunk(2, dim=-1)
        u_BLD = grid_conv(x_BLD, self.conv2d, grid)
        dt, B_ssm, C_ssm = self.x_proj(u_BLD).split(
            (self.dt_rank, self.d_state, self.d_state), dim=-1
        )
        # Requested first, so that the layer's listener sees the call below last.
        dt_bias = bias_of(self.dt_proj, dt)
        dt_BDL = self.dt_proj(dt).transpose(1, 2)

        scan_order, _, kinds = continuous_2d(*grid, device=str(tokens.device))
        B_BKNL = B_ssm.transpose(1, 2).unsqueeze(1) + self._direction_biases(
            kinds, scan_order
        )
        steps = self.direction_tap.steps(scan_order)
        y_BDL, tapped = selective_scan_directions(
            u_BLD.transpose(1, 2).unsqueeze(1),
            dt_BDL.unsqueeze(1),
            -torch.exp(self.A_log.float()).unsqueeze(0),
            B_BKNL,
            C_ssm.transpose(1, 2).unsqueeze(1),
            self.D.float().unsqueeze(0),
            order=scan_order,
            permute_params=self.permute_params,
            tap_index=steps,
            delta_bias=dt_bias.float().unsqueeze(0),
            delta_softplus=True,
        )
        gate_BLD = F.silu(z_BLD)
        if tapped is not None:
            self._tell(tapped, patch_index(scan_order, steps), grid, gate_BLD)
        return self.out_proj(y_BDL.transpose(1, 2) * gate_BLD)

    def _tell(
        self,
        tapped: Tensor,
        token_index: Tensor,
        grid: tuple[int, int],
        gate_BLD: Tensor,
    ) -> None:
        """Pass the directions' outputs ``[B, K, D, M]`` to the tap's listener."""

        def project(values_BKMD: Tensor) -> Tensor:
            gate = gate_BLD[:, token_index]
            return without_bias(self.out_proj, values_BKMD.to(gate.dtype) * gate)

        self.direction_tap(
            DirectionFeature(tapped.transpose(2, 3), token_index, grid, project)
        )
