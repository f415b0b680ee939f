"""CLIP's two towers, from a folder of transformers or from a config."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from safetensors import SafetensorError
from torch import Tensor, nn

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.folders.loading import check_folder_weights

# Placeholder for the vision tower if only the text tower is used.
_NO_VISION = dict(
    hidden_size=1, intermediate_size=1, num_hidden_layers=0, num_attention_heads=1
)


def build_clip(
    source: str | os.PathLike | dict[str, Any], text_only: bool = False
) -> nn.Module:
    """A ``transformers.CLIPModel``.

    Args:
        source: Folder written by ``save_pretrained``, or fields of a ``CLIPConfig``
            (``text_config``, ``vision_config``, ``projection_dim``) for a model with
            random weights.
        text_only: Replace the vision tower by a tiny one, to save memory.

    Raises:
        FileNotFoundError: The folder does not exist.
        CheckpointError: The folder contains another kind of model, or weights are
            missing or cannot be read.
        ValueError: The config has fields that CLIP does not know.
    """
    from transformers import CLIPConfig, CLIPModel

    if isinstance(source, dict):
        _check_fields(source)
        fields = dict(source)
        if text_only:
            fields['vision_config'] = _NO_VISION
        else:
            print_log(
                'CLIP from a config, without a checkpoint, is random.',
                'current',
                level=logging.WARNING,
            )
        return CLIPModel(CLIPConfig(**fields))
    if not isinstance(source, str | os.PathLike):
        raise ValueError(
            f'clip={source!r} must be a folder with a CLIP model of transformers, or '
            'a dict of the fields of its config.'
        )
    folder = Path(source)
    if not (folder / 'config.json').is_file():
        raise FileNotFoundError(
            f'clip={str(source)!r} is not a folder with a CLIP model of transformers '
            '(config.json and weights).'
        )
    try:
        config = CLIPConfig.get_config_dict(folder, local_files_only=True)[0]
    except OSError as error:
        raise CheckpointError(f'clip={str(source)!r}: {error}') from error
    if config.get('model_type') != 'clip':
        raise CheckpointError(
            f'clip={str(source)!r} has model_type={config.get("model_type")!r}; '
            "accepted: 'clip', a model with both towers."
        )
    try:
        # Weights stored in half precision are trained in float32 like all others.
        model, info = CLIPModel.from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # an error is raised below
            dtype=torch.float32,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f'The weights in {folder} cannot be read: {error}'
        ) from error
    missing, mismatched = sorted(info['missing_keys']), sorted(info['mismatched_keys'])
    if missing:
        raise CheckpointError(
            f'{folder} lacks {len(missing)} weights of CLIPModel, such as '
            f'{", ".join(missing[:5])}.'
        )
    if mismatched:
        name, stored, wanted = mismatched[0]
        raise CheckpointError(
            f'{folder} has {len(mismatched)} weights of another shape than its '
            f'config.json says, such as {name}, {list(stored)} instead of '
            f'{list(wanted)}.'
        )
    check_folder_weights(folder, model)
    return model


def _check_fields(config: dict[str, Any]) -> None:
    """Refuse misspelt fields, which transformers stores silently."""
    from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

    for name, fields, known in (
        ('clip', config, CLIPConfig),
        ('clip.text_config', config.get('text_config') or {}, CLIPTextConfig),
        ('clip.vision_config', config.get('vision_config') or {}, CLIPVisionConfig),
    ):
        unknown = sorted(set(fields) - set(known().to_dict()))
        if unknown:
            raise ValueError(
                f'{name} has {", ".join(unknown)}, which {known.__name__} of '
                'transformers has not.'
            )


class CLIPTextEncoder(nn.Module):
    """CLIP's text tower and projection.

    Args:
        clip: A ``transformers.CLIPModel``.
        frozen: Freeze the weights; the tower then stays in eval mode.

    Attributes:
        dim: Width D of the embeddings.
    """

    def __init__(self, clip: nn.Module, frozen: bool = False) -> None:
        super().__init__()
        self.text_model = clip.text_model
        self.text_projection = clip.text_projection
        self.dim = clip.text_projection.out_features
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> CLIPTextEncoder:
        return super().train(mode and not self.frozen)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """CLIP's embeddings ``[B, D]`` of captions ``[B, L]``.

        Raises:
            ValueError: Captions are longer than the text tower allows.
        """
        longest = self.text_model.config.max_position_embeddings
        if input_ids.shape[1] > longest:
            raise ValueError(
                f'Captions of {input_ids.shape[1]} tokens are longer than the text '
                f'encoder takes ({longest}): have the tokenizer truncate them.'
            )
        if len(input_ids) == 0:
            # transformers cannot reshape empty tensors into heads.
            return self.text_projection.weight.new_zeros(0, self.dim)
        with torch.no_grad() if self.frozen else nullcontext():
            output = self.text_model(input_ids, attention_mask=attention_mask)
            return self.text_projection(output.pooler_output)

    def collate(
        self, captions: Sequence[dict[str, Tensor]]
    ) -> tuple[Tensor, Tensor, list[int]]:
        """Collate the captions of several videos into one batch.

        Args:
            captions: For each video ``input_ids`` and ``attention_mask``, ``[n, L]``
                with n and L specific to the video.

        Returns:
            Both for all captions, ``[sum of n, longest L]``, and the numbers n.
        """
        longest = max(c['input_ids'].shape[1] for c in captions)
        pad = self.text_model.config.pad_token_id or 0
        ids, masks = [], []
        for caption in captions:
            missing = (0, longest - caption['input_ids'].shape[1])
            ids.append(F.pad(caption['input_ids'], missing, value=pad))
            mask = caption.get('attention_mask')
            if mask is None:
                mask = torch.ones_like(caption['input_ids'])
            masks.append(F.pad(mask, missing))
        return torch.cat(ids), torch.cat(masks), [len(i) for i in ids]


class CLIPFrameEncoder(nn.Module):
    """CLIP's vision tower and projection.

    Args:
        clip: A ``transformers.CLIPModel``.
    """

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.vision_model = clip.vision_model
        self.visual_projection = clip.visual_projection
        size = clip.vision_model.config.image_size
        self.image_size = (size, size) if isinstance(size, int) else tuple(size)

    def pooled(self, frames: Tensor) -> Tensor:
        """Final class tokens ``[N, C]`` of normalised frames ``[N, 3, H, W]``."""
        resample = tuple(frames.shape[-2:]) != self.image_size
        output = self.vision_model(frames, interpolate_pos_encoding=resample)
        return output.pooler_output

    def forward(self, frames: Tensor) -> Tensor:
        """CLIP's embeddings ``[N, D]`` of normalised frames ``[N, 3, H, W]``."""
        return self.visual_projection(self.pooled(frames))
