"""Aggregation of frame embeddings into a video embedding in CLIP4Clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn


def mean_over_frames(frames: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean direction of frame embeddings, of length 1.

    Args:
        frames: ``[B, T, D]``.
        mask: ``[B, T]``, true for frames that count; None counts all.

    Returns:
        ``[B, D]``, float32.
    """
    frames = F.normalize(frames.float(), dim=-1)
    if mask is not None:
        frames = frames * mask.unsqueeze(-1)
    # The length of the sum does not matter, so there is no division by the count.
    return F.normalize(frames.sum(1), dim=-1)


def _quick_gelu(x: Tensor) -> Tensor:
    """CLIP's activation."""
    return x * torch.sigmoid(1.702 * x)


class SequentialTransformer(nn.Module):
    """CLIP4Clip's "seqTransf" head: attention between frames before they are averaged.

    A pre-norm Transformer with learned positions, added to its input.

    Args:
        dim: Width D of the frame embeddings.
        num_layers: Number of layers.
        max_frames: Number of positions.
        head_dim: Channels per attention head.

    Raises:
        ValueError: A number is not positive, or the width is not a multiple of
            ``head_dim``.
    """

    def __init__(
        self,
        dim: int,
        num_layers: int = 4,
        max_frames: int = 77,
        head_dim: int = 64,
    ) -> None:
        super().__init__()
        if min(num_layers, max_frames, head_dim) < 1:
            raise ValueError(
                f'SequentialTransformer: num_layers={num_layers}, '
                f'max_frames={max_frames} and head_dim={head_dim} must be positive.'
            )
        num_heads = max(1, dim // head_dim)
        if dim % num_heads:
            raise ValueError(
                f'SequentialTransformer: head_dim={head_dim} does not divide the '
                f'width of the embeddings, {dim}.'
            )
        self.position_embedding = nn.Embedding(max_frames, dim)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim,
                num_heads,
                dim_feedforward=4 * dim,
                dropout=0.0,
                activation=_quick_gelu,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(num_layers)
        )
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith('bias'):
                nn.init.zeros_(parameter)

    @torch.no_grad()
    def inherit(self, text_model: nn.Module) -> None:
        """Initialise like CLIP4Clip, from CLIP's text tower, if the widths agree.

        Positions and the first layers are copied from the text tower.
        """
        config = text_model.config
        dim = self.position_embedding.embedding_dim
        widths = (config.hidden_size, config.intermediate_size)
        if widths != (dim, 4 * dim):
            print_log(
                f'SequentialTransformer starts at random: it is {dim} wide, the text '
                f'tower {widths[0]} with {widths[1]} inside its MLPs.',
                'current',
            )
            return
        positions = text_model.embeddings.position_embedding.weight
        count = min(len(positions), self.position_embedding.num_embeddings)
        self.position_embedding.weight[:count] = positions[:count]
        for own, text in zip(self.layers, text_model.encoder.layers, strict=False):
            attention = text.self_attn
            parts = (attention.q_proj, attention.k_proj, attention.v_proj)
            own.self_attn.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
            own.self_attn.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
            for mine, theirs in (
                (own.self_attn.out_proj, attention.out_proj),
                (own.norm1, text.layer_norm1),
                (own.norm2, text.layer_norm2),
                (own.linear1, text.mlp.fc1),
                (own.linear2, text.mlp.fc2),
            ):
                mine.load_state_dict(theirs.state_dict())

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map frame embeddings ``[B, T, D]`` to the same shape.

        Args:
            frames: Embeddings in temporal order.
            mask: ``[B, T]``, true for frames that count, at least one per video.

        Raises:
            ValueError: There are more frames than positions.
        """
        length = frames.shape[1]
        if length > self.position_embedding.num_embeddings:
            raise ValueError(
                f'A video of {length} frames has more than the '
                f'{self.position_embedding.num_embeddings} positions of the '
                'sequential Transformer (max_frames).'
            )
        x = frames + self.position_embedding.weight[:length]
        ignored = None if mask is None else ~mask.bool()
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=ignored)
        return x + frames
