"""VMamba's token mixer: a small 2D convolution and the four scans of cross-scan."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.models.mixers.norm_share import share_of_norm
from mmtransmamba.models.mixers.projections import grid_conv, without_bias
from mmtransmamba.models.mixers.step_sizes import init_step_sizes
from mmtransmamba.models.taps import DirectionFeature, DirectionTap, patch_index
from mmtransmamba.ops import selective_scan_directions
from mmtransmamba.ops.scan_order import cross_scan

NUM_DIRECTIONS = 4
CONV_SIZE = 3


class SS2DMixer(nn.Module):
    r"""2D selective scan (SS2D) of VMamba.

    :math:`u = \mathrm{SiLU}(\mathrm{conv2d}(x))` is scanned along rows, columns and
    both in reverse. Each direction k has its own A, D, and projections that compute
    its :math:`\Delta, B, C` from ``u``. The output is ``out_proj(out_norm(sum_k
    y_k))``, in v0 gated before ``out_proj`` by SiLU(z), where :math:`x, z` are the
    halves of ``in_proj``. Names and shapes of the parameters are those of the
    official checkpoints (Liu et al., "VMamba: Visual State Space Model", 2024),
    which stack the directions' A and D along the first dimension.

    The projections act on each token separately, so they are computed once in raster
    order, all directions in one product, and the scan reads them through an index.
    All tensors stay channels last, so that no step needs a transposed copy.

    Args:
        embed_dims: Width C of the tokens.
        d_state: State size N.
        expand: Inner width D as a multiple of ``embed_dims``.
        gate: Multiply the normalised output by SiLU(z) (v0).
        conv_bias: Give the convolution a bias (v0).
    """

    def __init__(
        self,
        embed_dims: int,
        d_state: int = 16,
        expand: float = 2,
        gate: bool = True,
        conv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.d_inner = int(expand * embed_dims)
        self.d_state = d_state
        self.dt_rank = math.ceil(embed_dims / 16)
        self.gate = gate

        K, D, R, N = NUM_DIRECTIONS, self.d_inner, self.dt_rank, d_state
        self.in_proj = nn.Linear(embed_dims, 2 * D if gate else D, bias=False)
        self.conv2d = nn.Conv2d(
            D, D, CONV_SIZE, padding=CONV_SIZE // 2, groups=D, bias=conv_bias
        )
        self.x_proj_weight = nn.Parameter(torch.empty(K, R + 2 * N, D))
        self.dt_projs_weight = nn.Parameter(torch.empty(K, D, R))
        self.dt_projs_bias = nn.Parameter(torch.empty(K, D))
        self.A_logs = nn.Parameter(torch.empty(K * D, N))
        self.Ds = nn.Parameter(torch.empty(K * D))
        self.out_norm = nn.LayerNorm(D)
        self.out_proj = nn.Linear(D, embed_dims, bias=False)
        self.direction_tap = DirectionTap(D, K)
        self.reset_ssm_parameters()

    def reset_ssm_parameters(self) -> None:
        """Initialise the projections of dt, B and C, and A and D, like Mamba.

        Uniform weights, in a linear layer's default range for ``x_proj_weight`` and
        within ``dt_rank ** -0.5`` for ``dt_projs_weight``; initial step sizes
        log-uniform between 0.001 and 0.1; A is S4D-real, ``-(1..N)``; D is one.
        """
        for weight, fan_in in (
            (self.x_proj_weight, self.d_inner),
            (self.dt_projs_weight, self.dt_rank),
        ):
            nn.init.uniform_(weight, -(fan_in**-0.5), fan_in**-0.5)
        init_step_sizes(self.dt_projs_bias)
        n = torch.arange(1, self.d_state + 1, dtype=torch.float32)
        with torch.no_grad():
            self.A_logs.copy_(n.log().expand_as(self.A_logs))
            self.Ds.fill_(1)

    def _project(self, u_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each direction's dt ``[B, K, D, L]``, B and C ``[B, K, N, L]``."""
        batch, length, _ = u_BLD.shape
        x_BLKX = F.linear(u_BLD, self.x_proj_weight.flatten(0, 1)).unflatten(
            2, (NUM_DIRECTIONS, -1)
        )
        dt, B_ssm, C_ssm = x_BLKX.split(
            (self.dt_rank, self.d_state, self.d_state), dim=-1
        )
        dt_KTD = torch.bmm(
            dt.flatten(0, 1).transpose(0, 1), self.dt_projs_weight.transpose(1, 2)
        )
        return (
            dt_KTD.unflatten(1, (batch, length)).permute(1, 0, 3, 2),
            B_ssm.permute(0, 2, 3, 1),
            C_ssm.permute(0, 2, 3, 1),
        )

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Mix ``tokens`` ``[B, L, C]`` of a ``grid`` with ``H * W == L``."""
        x_BLD, gate_BLD = self.in_proj(tokens), None
        if self.gate:
            x_BLD, z_BLD = x_BLD.chunk(2, dim=-1)
            gate_BLD = F.silu(z_BLD)
        u_BLD = grid_conv(x_BLD, self.conv2d, grid)
        dt_BKDL, B_BKNL, C_BKNL = self._project(u_BLD)

        scan_order = cross_scan(*grid, device=str(tokens.device))
        steps = self.direction_tap.steps(scan_order)
        per_direction = (NUM_DIRECTIONS, self.d_inner)
        y_BDL, tapped = selective_scan_directions(
            u_BLD.transpose(1, 2).unsqueeze(1),
            dt_BKDL,
            -torch.exp(self.A_logs.float()).unflatten(0, per_direction),
            B_BKNL,
            C_BKNL,
            self.Ds.float().unflatten(0, per_direction),
            order=scan_order,
            tap_index=steps,
            delta_bias=self.dt_projs_bias.float(),
            delta_softplus=True,
        )
        y_BLD = y_BDL.transpose(1, 2)
        if tapped is not None:
            self._tell(tapped, patch_index(scan_order, steps), grid, y_BLD, gate_BLD)
        out_BLD = self.out_norm(y_BLD)
        return self.out_proj(out_BLD if gate_BLD is None else out_BLD * gate_BLD)

    def _tell(
        self,
        tapped: Tensor,
        token_index: Tensor,
        grid: tuple[int, int],
        y_BLD: Tensor,
        gate_BLD: Tensor | None,
    ) -> None:
        """Pass the directions' outputs ``[B, K, D, M]`` to the tap's listener."""

        def project(values_BKMD: Tensor) -> Tensor:
            values = share_of_norm(values_BKMD, y_BLD, token_index, self.out_norm)
            if gate_BLD is not None:
                values = values * gate_BLD[:, token_index]
            return without_bias(self.out_proj, values.to(values_BKMD.dtype))

        self.direction_tap(
            DirectionFeature(tapped.transpose(2, 3), token_index, grid, project)
        )
