"""A feature pyramid over one map, for backbones of one resolution."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmtransmamba.registry import MODELS


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of maps ``[B, C, H, W]``."""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _upsample(in_channels: int, out_channels: int) -> nn.Module:
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)


@MODELS.register_module()
class SimplePyramid(BaseModule):
    """ViTDet's simple feature pyramid (Li et al., 2022).

    The backbone's last map has stride 16 with patches of 16 pixels. From it, separate
    convolutions compute maps of strides 4, 8, 16 and 32, without top-down paths. A
    fifth map of stride 64 is for the proposals.

    Args:
        in_channels: Channels of the backbone's map.
        out_channels: Channels of the pyramid's maps.
        init_cfg: mmengine initialisation config.
    """

    def __init__(
        self, in_channels: int, out_channels: int = 256, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        half, quarter = in_channels // 2, in_channels // 4
        scales = [
            (
                [
                    _upsample(in_channels, half),
                    ChannelNorm(half),
                    nn.GELU(),
                    _upsample(half, quarter),
                ],
                quarter,
            ),
            ([_upsample(in_channels, half)], half),
            ([], in_channels),
            ([nn.MaxPool2d(2)], in_channels),
        ]
        self.levels = nn.ModuleList(
            nn.Sequential(
                *rescale,
                nn.Conv2d(width, out_channels, 1, bias=False),
                ChannelNorm(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                ChannelNorm(out_channels),
            )
            for rescale, width in scales
        )

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps ``[B, out_channels, H, W]`` of the five levels, the finest first."""
        pyramid = [level(maps[-1]) for level in self.levels]
        return (*pyramid, F.max_pool2d(pyramid[-1], 1, stride=2))
