"""Vim (Vision Mamba): bidirectional scans with the class token in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from mmtransmamba.models.backbones.bimamba import BiMambaBackbone, bimamba_arch
from mmtransmamba.models.mixers.step_sizes import init_step_sizes
from mmtransmamba.registry import MODELS

# Standard deviation of a unit normal truncated at two standard deviations.
TRUNCATED_STD = 0.87962566103423978


@MODELS.register_module()
class Vim(BiMambaBackbone):
    """Vision Mamba (Zhu et al., 2024), official parameter names.

    The class token is in the middle of the sequence, at ``L // 2`` of L patches (the
    released ``midclstok`` models), and is inserted before the position embedding is
    added. Released checkpoints load unchanged into a classifier with a
    ``LinearClsHead`` and no neck; :func:`mmtransmamba.models.load_pretrained` loads
    them into the bare backbone.

    A position embedding of another grid is resampled, on loading and for images of
    another size. The official fine-tuning code treats its entry 0 as that of the class
    token, although that one is in the middle, and so resamples the class token's entry
    like a patch's. Here it moves to the new middle unchanged.

    Args:
        arch: A name in :attr:`ARCHS`, or a dict with its keys.
        img_size: Image size in pixels for which ``pos_embed`` is created (side, or
            height and width). Images of another size are accepted.
        patch_size: Pixels per token and axis.
        stride: Pixels from token to token, ``patch_size`` by default; 8 in the
            released models with overlapping patches.
        in_channels: Channels of the images.
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0
            in the first.
        out_indices: Blocks whose features are returned; negative from the end.
        out_type: ``'cls_token'`` for the class token ``[B, C]``, ``'featmap'`` for
            a map ``[B, C, H, W]`` of the patch tokens.
        with_cp: Recompute the blocks in the backward pass instead of storing
            their activations.
        init_cfg: mmengine initialisation config. With ``Pretrained`` the file is
            read by :func:`mmtransmamba.models.load_pretrained`.
    """

    ARCHS = {
        'tiny': bimamba_arch(192, 24),
        'small': bimamba_arch(384, 24),
        'base': bimamba_arch(768, 24),
    }

    @staticmethod
    def cls_at(num_patches: int) -> int:
        return num_patches // 2

    def __init__(
        self,
        arch: str | dict[str, Any] = 'tiny',
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        stride: int | None = None,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'cls_token',
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        stride = patch_size if stride is None else stride
        super().__init__(
            arch,
            img_size,
            in_channels,
            drop_path_rate,
            out_indices,
            out_type,
            with_cp,
            init_cfg,
            kernel=(patch_size, patch_size),
            stride=(stride, stride),
            divide_out=True,
        )

    def reset_parameters(self) -> None:
        """Initialise like the official code.

        In addition to the common part: truncated normal (std 0.02) for the class token;
        for the patch embedding a truncated normal of variance 1 / fan-in with zero
        bias; ``dt_proj`` as in Mamba, with uniform weights and a bias that makes the
        initial step sizes log-uniform between 0.001 and 0.1, but ``dt_proj_b`` with
        zero bias; PyTorch's default for the other linear layers and convolutions.
        """
        super().reset_parameters()
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        proj = self.patch_embed.proj
        std = proj.weight[0].numel() ** -0.5 / TRUNCATED_STD
        nn.init.trunc_normal_(proj.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(proj.bias)
        for layer in self.layers:
            mixer = layer.mixer
            bound = mixer.dt_rank**-0.5
            nn.init.uniform_(mixer.dt_proj.weight, -bound, bound)
            init_step_sizes(mixer.dt_proj.bias)
            nn.init.zeros_(mixer.dt_proj_b.bias)
