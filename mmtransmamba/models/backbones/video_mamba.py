"""VideoMamba: bidirectional scans over the tokens of an image or of all frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.models.backbones.bimamba import BiMambaBackbone, bimamba_arch
from mmtransmamba.registry import MODELS


@MODELS.register_module()
class VideoMamba(BiMambaBackbone):
    """VideoMamba (Li et al., 2024), official parameter names.

    The class token is first. A video is one sequence: frame after frame, each in
    raster order. ``pos_embed`` covers one frame. The patches of a frame, but not the
    class token, receive its ``temporal_pos_embedding``.

    Released checkpoints load unchanged with
    :func:`mmtransmamba.models.load_pretrained`, also those of masked pre-training and
    the vision tower of the multimodal models. Those of images also load into a video
    model: the patch embedding becomes the middle of the kernel in time, and a missing
    temporal embedding, which is initialised with zeros, is reported. Embeddings of
    another grid or number of frames are resampled, on loading and for inputs of
    another size.

    Args:
        arch: A name in :attr:`ARCHS`, or a dict with its keys.
        img_size: Image size in pixels for which ``pos_embed`` is created (side, or
            height and width). Images of another size are accepted.
        patch_size: Pixels per token and axis.
        num_frames: Number of frames for which ``temporal_pos_embedding`` is created;
            videos of another length are accepted. 1 is the image model, without it.
        tubelet_size: Frames per token, ``kernel_size`` in the official code; 1 in the
            released models.
        in_channels: Channels of the images.
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0
            in the first.
        out_indices: Blocks whose features are returned; negative from the end.
        out_type: ``'cls_token'`` for the class token ``[B, C]``, ``'featmap'`` for
            a map ``[B, C, (T,) H, W]`` of the patch tokens.
        with_cp: Recompute the blocks in the backward pass instead of storing
            their activations.
        init_cfg: mmengine initialisation config. With ``Pretrained`` the file is
            read by :func:`mmtransmamba.models.load_pretrained`.
    """

    ARCHS = {
        'tiny': bimamba_arch(192, 24),
        'small': bimamba_arch(384, 24),
        'middle': bimamba_arch(576, 32),
        'base': bimamba_arch(768, 24),
    }
    allowed_missing = ('temporal_pos_embedding',)
    # Of masked pre-training (its own decoders) and of the multimodal models.
    allowed_left_over = (
        *BiMambaBackbone.allowed_left_over,
        *('distill_head.', 'clip_decoder.', 'clip_teacher.', 'pool_norm.'),
        *('text_encoder.', 'vision_proj.', 'text_proj.', 'itm_head.', 'temp'),
    )

    @staticmethod
    def cls_at(num_patches: int) -> int:
        return 0

    def __init__(
        self,
        arch: str | dict[str, Any] = 'tiny',
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        num_frames: int = 1,
        tubelet_size: int = 1,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'cls_token',
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if tubelet_size < 1 or num_frames < 1 or num_frames % tubelet_size:
            raise self._error(
                f'num_frames={num_frames} must be a positive multiple of '
                f'tubelet_size={tubelet_size}.'
            )
        kernel: tuple[int, ...] = (patch_size, patch_size)
        if num_frames > 1:
            kernel = (tubelet_size, *kernel)
        super().__init__(
            arch,
            img_size,
            in_channels,
            drop_path_rate,
            out_indices,
            out_type,
            with_cp,
            init_cfg,
            kernel=kernel,
            stride=kernel,
            divide_out=False,
        )
        self.tubelet_size = tubelet_size
        self.temporal_pos_embedding = None
        if num_frames > 1:
            self.temporal_pos_embedding = nn.Parameter(
                torch.zeros(1, num_frames // tubelet_size, self.embed_dims)
            )
            self._register_load_state_dict_pre_hook(self._inflate)
        self._register_load_state_dict_pre_hook(_rename_final_norm)

    def reset_parameters(self) -> None:
        """Initialise like the official code.

        In addition to the common part: truncated normal (std 0.02) with zero bias for
        every linear layer, including ``dt_proj``; zero for the class token and the
        temporal embedding; PyTorch's default for convolutions.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.cls_token)
        if self.temporal_pos_embedding is not None:
            nn.init.zeros_(self.temporal_pos_embedding)
        super().reset_parameters()

    def _inflate(self, state_dict: dict[str, Tensor], prefix: str, *_) -> None:
        """Adapt a loaded image model, or a model of another length, to this video.

        A hook for ``_register_load_state_dict_pre_hook``.
        """
        key = prefix + 'patch_embed.proj.weight'
        weight = state_dict.get(key)
        if weight is not None and weight.ndim == 4:
            # The middle frame gets the weights, the others zero, so that a video of one
            # repeated image has the tokens of that image.
            after = (self.tubelet_size - 1) // 2
            before = self.tubelet_size - 1 - after
            inflated = F.pad(weight.unsqueeze(2), (0, 0, 0, 0, before, after))
            state_dict[key] = inflated
        key = prefix + 'temporal_pos_embedding'
        loaded = state_dict.get(key)
        if loaded is not None and loaded.shape[2] == self.embed_dims:
            frames = self.temporal_pos_embedding.shape[1]
            state_dict[key] = _resize_in_time(loaded, frames)

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        if self.temporal_pos_embedding is None:
            return super()._positions(grid)
        frames, *frame_grid = grid
        cls_token, patches = (
            super()._positions(tuple(frame_grid)).tensor_split((1,), dim=1)
        )
        of_frames = _resize_in_time(self.temporal_pos_embedding, frames)
        both = (patches.unsqueeze(1) + of_frames.unsqueeze(2)).flatten(1, 2)
        return torch.cat((cls_token, both), dim=1)

    def _check_images(self, images: Tensor) -> None:
        super()._check_images(images)
        if images.ndim == 5 and images.shape[2] < self.tubelet_size:
            raise self._error(
                f'a video of {images.shape[2]} frames is shorter than one token '
                f'(tubelet_size={self.tubelet_size}).'
            )

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Features of the blocks in ``out_indices``, the last one's after ``norm_f``.

        Args:
            images: ``[B, in_channels, (T,) height, width]``, normalised.

        Returns:
            Class tokens ``[B, C]`` or maps ``[B, C, (T,) H, W]``, in a tuple. A single
            video feature is returned without tuple, as mmaction's recognisers expect
            from their backbones.

        Raises:
            ValueError: A side is smaller than one patch, the video is shorter than
                one token, or the shape does not match.
        """
        outs = super().forward(images)
        if self.temporal_pos_embedding is not None and len(outs) == 1:
            return outs[0]
        return outs


def _rename_final_norm(state_dict: dict[str, Tensor], prefix: str, *_) -> None:
    """Give the final norm its name; in masked pre-training, it is ``norm``.

    A hook for ``_register_load_state_dict_pre_hook``.
    """
    old, new = f'{prefix}norm.weight', f'{prefix}norm_f.weight'
    if old in state_dict and new not in state_dict:
        state_dict[new] = state_dict.pop(old)


def _resize_in_time(embedding: Tensor, frames: int) -> Tensor:
    """Resample ``[1, T, C]`` linearly to ``frames``; unchanged if they agree."""
    if embedding.shape[1] == frames:
        return embedding
    x = embedding.float().transpose(1, 2)
    x = F.interpolate(x, size=frames, mode='linear', align_corners=False)
    return x.transpose(1, 2).to(embedding.dtype)
