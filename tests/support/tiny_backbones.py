"""Each vision backbone, small enough for tests, and images for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmtransmamba.models import VRWKV, PlainMamba, VideoMamba, Vim, VMamba

_STAGES = dict(embed_dims=16, depths=(1, 1, 1, 1), drop_path_rate=0.0, d_state=4)
_RWKV = dict(
    embed_dims=24,
    depth=2,
    num_heads=None,
    post_norm=False,
    init_values=None,
    key_norm=False,
    drop_path_rate=0.0,
)
_PLAIN = dict(
    embed_dims=16, depth=2, num_convs=1, dwconv_layers=(0,), drop_path_rate=0.0
)
BACKBONES = {
    'plain_mamba': (PlainMamba, dict(arch=_PLAIN)),
    'vim': (Vim, dict(arch=dict(embed_dims=16, depth=2))),
    'video_mamba': (
        VideoMamba,
        dict(arch=dict(embed_dims=16, depth=2), num_frames=2),
    ),
    'vmamba_v0': (VMamba, dict(arch=dict(_STAGES, version='v0', ssm_ratio=2.0))),
    'vmamba_noz': (VMamba, dict(arch=dict(_STAGES, version='v05_noz', ssm_ratio=1.0))),
    'vrwkv_v4': (VRWKV, dict(arch=_RWKV)),
    'vrwkv_v6': (VRWKV, dict(arch=dict(_RWKV, num_heads=2))),
}


def make_backbone(name: str, **kwargs) -> nn.Module:
    """A backbone in eval mode, every part of which matters."""
    torch.manual_seed(0)
    kind, settings = BACKBONES[name]
    sizes = {} if kind is VMamba else dict(img_size=32, patch_size=8)
    model = kind(**settings, **sizes, **kwargs).eval()
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter.std() if parameter.numel() > 1 else 0
            parameter.add_(torch.randn_like(parameter) * (0.1 + 0.5 * scale))
    return model


def images_for(name: str, batch: int = 2) -> Tensor:
    """Images, or videos of two frames."""
    generator = torch.Generator().manual_seed(1)
    frames = (2,) if name == 'video_mamba' else ()
    return torch.randn(batch, 3, *frames, 32, 32, generator=generator)
