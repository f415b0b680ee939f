"""Base class of the vision backbones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmtransmamba.models.checkpoint import (
    find_state_dict,
    load_pretrained,
    read_state_dict,
)
from mmtransmamba.models.pos_embed import resize_pos_embed
from mmtransmamba.utils.downloads import fetch

CONVS = (nn.Conv2d, nn.Conv3d)
PRETRAINED_KEYS = {'type', 'checkpoint', 'prefix', 'map_location', 'pos_embed_grid'}
"""What mmengine's ``Pretrained`` accepts (tensors are read onto the CPU anyway), and
``pos_embed_grid`` of :func:`load_pretrained`."""


class VisionBackbone(BaseModule):
    """Base of the backbones: everything that does not depend on the mixer.

    A subclass sets ``depth`` (its number of blocks), ``patch_size``, ``with_cp`` and
    ``patch_embed``, which is a convolution of the images or starts with one. It
    overrides :meth:`reset_parameters`, and :meth:`_layer_number` if its blocks are not
    ``layers.N``. It has either a ``pos_embed`` with ``pos_embed_grid`` or neither.

    Attributes:
        ARCHS: Published architectures by name.
        OFFICIAL_HEADS: Prefixes of the official names of a classification head, mapped
            to the names in mmpretrain's classifier with a ``LinearClsHead``.
        NO_DECAY: Last parts of the names of parameters exempt from weight decay.
        allowed_missing: Prefixes of tensors that may be missing from a released
            checkpoint.
        allowed_left_over: Prefixes of tensors of a released checkpoint that the bare
            backbone may lack.
        cls_at: Position of the class token among a number of patches, None without.
        ADAPTER: Prefixes of the tensors of a detector's adapter around the backbone.
        num_extra_tokens: Number of tokens in front of the patches, as defined by
            mmpretrain's tools: 0, since a class token lies among the patches.
        loaded_pos_embed_grid: Rows and columns of the ``pos_embed`` in the checkpoint
            that is being loaded, set during loading only; None if unknown.
    """

    ARCHS: ClassVar[dict[str, dict[str, Any]]] = {}
    OFFICIAL_HEADS: ClassVar[Mapping[str, str]] = {}
    NO_DECAY: ClassVar[tuple[str, ...]] = ()
    ADAPTER: ClassVar[tuple[str, ...]] = ()

    allowed_missing: tuple[str, ...] = ()
    allowed_left_over: tuple[str, ...] = (
        'head.',
        'decode_head.',
        'auxiliary_head.',
        'rpn_head.',
        'roi_head.',
        'bbox_head.',
        'mask_head.',
    )
    cls_at: Callable[[int], int] | None = None
    num_extra_tokens: int = 0
    loaded_pos_embed_grid: tuple[int, int] | None = None

    def _error(self, message: str) -> ValueError:
        return ValueError(f'{type(self).__name__}: {message}')

    def _check_positive(self, **settings: Any) -> None:
        """Raise ValueError for a setting that is not a positive integer."""
        for key, value in settings.items():
            if not isinstance(value, Integral) or value < 1:
                raise self._error(f'{key}={value!r} must be a positive integer.')

    def _resolve_indices(
        self, out_indices: int | Sequence[int], count: int, what: str = 'blocks'
    ) -> tuple[int, ...]:
        """``out_indices`` as non-negative indices.

        Raises:
            ValueError: An index is out of range, or not an integer.
        """
        indices = _integers(out_indices)
        if indices is None:
            raise self._error(
                f'out_indices={out_indices!r} must be an integer or a sequence of '
                'integers.'
            )
        if any(not -count <= i < count for i in indices):
            raise self._error(
                f'out_indices={indices} must lie in '
                f'[{-count}, {count - 1}] for {count} {what}.'
            )
        return tuple(i % count for i in indices)

    def _grid_of(
        self, img_size: int | Sequence[int], patch: int, stride: int | None = None
    ) -> tuple[int, int]:
        """Rows and columns of the tokens of an image.

        Args:
            img_size: Side, or height and width, in pixels.
            patch: Pixels per token and axis.
            stride: Pixels from token to token, by default ``patch``.

        Raises:
            ValueError: The image is smaller than one patch, or a size is invalid.
        """
        stride = patch if stride is None else stride
        self._check_positive(patch_size=patch, stride=stride)
        sides = _integers(img_size)
        if sides is None or len(sides) not in (1, 2):
            raise self._error(
                f'img_size={img_size!r} must be an integer, or height and width.'
            )
        height, width = sides[0], sides[-1]
        if min(sides) < patch:
            raise self._error(
                f'img_size={img_size} is smaller than one patch (patch_size={patch}).'
            )
        return ((height - patch) // stride + 1, (width - patch) // stride + 1)

    def _check_images(self, images: Tensor) -> None:
        """Raise ValueError for an input that the patch embedding does not accept.

        This is a number of dimensions or channels that differs from those of its first
        convolution, or a side below one patch.
        """
        conv = next(m for m in self.patch_embed.modules() if isinstance(m, CONVS))
        if images.ndim != conv.weight.ndim or images.shape[1] != conv.in_channels:
            axes = 'H, W' if conv.weight.ndim == 4 else 'T, H, W'
            raise self._error(
                f'the input has shape {list(images.shape)}; accepted: '
                f'[B, {conv.in_channels}, {axes}].'
            )
        if min(images.shape[-2:]) < self.patch_size:
            raise self._error(
                f'images of {images.shape[-2]}x{images.shape[-1]} pixels are smaller '
                f'than one patch (patch_size={self.patch_size}).'
            )

    def _run(self, block: Callable[..., Any], *args: Any) -> Any:
        """The block's output, recomputed in the backward pass if ``with_cp``."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)

    def _feature_maps(
        self, tokens: Tensor, grid: tuple[int, int], norm: nn.Module
    ) -> tuple[Tensor, ...]:
        """Run ``layers``, which all have one width and no class token.

        Args:
            tokens: ``[B, L, C]`` with position embedding.
            grid: Rows and columns, ``H * W == L``.
            norm: Applied to the last block's tokens. The features of block N go through
                the module ``norm_layerN`` if there is one.

        Returns:
            Maps ``[B, C, H, W]`` of the blocks in ``out_indices``.
        """
        norms = {f'norm_layer{self.depth - 1}': norm, **dict(self.named_children())}
        maps = {}
        for i, (layer, tap) in enumerate(
            zip(self.layers, self.layer_taps, strict=True)
        ):
            tokens = tap(self._run(layer, tokens, grid), grid)
            if i in self.out_indices:
                own = norms.get(f'norm_layer{i}')
                out = tokens if own is None else own(tokens)
                maps[i] = out.transpose(1, 2).unflatten(2, grid)
        return tuple(maps[i] for i in self.out_indices)

    def reset_parameters(self) -> None:
        """Initialise all parameters like the official code."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """Initialise like the official code, then apply ``init_cfg``.

        Raises:
            CheckpointError: The checkpoint of a ``Pretrained`` does not fit.
            FileNotFoundError: It does not exist.
            ValueError: A ``Pretrained`` names none, or has an unknown key.
        """
        self.reset_parameters()
        given = self.init_cfg
        configs = [given] if isinstance(given, dict) else list(given or ())
        files = [config for config in configs if config['type'] == 'Pretrained']
        others = [config for config in configs if config['type'] != 'Pretrained']
        if others or not files:
            self.init_cfg = others or None
            super().init_weights()
            self.init_cfg = given
        for config in files:
            self._load_initial(config)

    def _load_initial(self, config: Mapping[str, Any]) -> None:
        """Load the file or URL of mmengine's ``Pretrained``, or a part of it."""
        unknown = sorted(set(config) - PRETRAINED_KEYS)
        if unknown or not config.get('checkpoint'):
            raise self._error(
                f'init_cfg={dict(config)} needs checkpoint, and accepts prefix and '
                'pos_embed_grid'
                + (f'; {", ".join(unknown)} is unknown.' if unknown else '.')
            )
        checkpoint, prefix = str(config['checkpoint']), config.get('prefix')
        if checkpoint.startswith(('http://', 'https://')):
            checkpoint = fetch(checkpoint)
        grid = config.get('pos_embed_grid')
        if prefix is None:
            load_pretrained(self, checkpoint, pos_embed_grid=grid)
            return
        prefix = prefix.removesuffix('.') + '.'
        state = read_state_dict(checkpoint)
        part = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
        if not part:
            first = sorted({name.split('.')[0] for name in state})
            raise self._error(
                f'init_cfg has prefix={prefix!r}, with which no tensor of {checkpoint} '
                f'begins; they begin with {", ".join(first)}.'
            )
        load_pretrained(self, part, pos_embed_grid=grid, name=checkpoint)

    def _fit_pos_embed(self, state_dict: dict[str, Tensor], prefix: str, *_) -> None:
        """Resample a loaded pos_embed from another grid to this one's.

        Its grid is :attr:`loaded_pos_embed_grid`. If that is not set, a pos_embed of
        the same shape is assumed to have the same grid, and any other a square one.

        A hook for ``_register_load_state_dict_pre_hook``.

        Raises:
            ValueError: The positions do not match :attr:`loaded_pos_embed_grid`.
        """
        key = prefix + 'pos_embed'
        loaded, grid = state_dict.get(key), self.loaded_pos_embed_grid
        if loaded is None or loaded.shape[2] != self.pos_embed.shape[2]:
            return
        if grid is None:
            patches = loaded.shape[1] - (self.cls_at is not None)
            side = round(patches**0.5)
            if loaded.shape == self.pos_embed.shape or side * side != patches:
                return
            grid = (side, side)
        state_dict[key] = resize_pos_embed(
            loaded, grid, self.pos_embed_grid, self.cls_at
        )

    def _checkpoint_filter(
        self, state_dict: dict[str, Tensor], prefix: str, *_
    ) -> None:
        """Rename the tensors of an official checkpoint to those of a classifier.

        mmpretrain's ``ImageClassifier`` calls this before loading.
        """
        # mmengine knows only one container, and would load nothing from the others.
        if any(isinstance(value, Mapping) for value in state_dict.values()):
            content = find_state_dict(dict(state_dict), 'the checkpoint')
            state_dict.clear()
            state_dict.update(content)
        keys = [key for key in state_dict if key.startswith(prefix)]
        if any(key.startswith(prefix + 'backbone.') for key in keys):
            return
        for key in keys:
            name = key[len(prefix) :]
            official = next((h for h in self.OFFICIAL_HEADS if name.startswith(h)), '')
            here = self.OFFICIAL_HEADS.get(official, 'backbone.')
            state_dict[prefix + here + name[len(official) :]] = state_dict.pop(key)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are exempt from weight decay."""
        return {
            name
            for name, _ in self.named_parameters()
            if name.rsplit('.', 1)[-1] in self.NO_DECAY
        }

    def _layer_number(self, name: str) -> int | None:
        """Index of the block that a parameter belongs to.

        -1 stands for the embeddings, None for parameters after the blocks.
        """
        if name.startswith('layers.'):
            return int(name.split('.')[1])
        embeddings = ('pos_embed', 'patch_embed', 'cls_token', 'temporal_pos_embedding')
        return -1 if name.startswith(embeddings) else None

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rate decay.

        Returns:
            The parameter's depth (0 for the embeddings, i + 1 for block i) and the
            number of depths, ``depth + 2``.
        """
        num_depths = self.depth + 2
        number = None
        if param_name.startswith(prefix):
            number = self._layer_number(param_name[len(prefix) :])
        return (num_depths - 1 if number is None else number + 1), num_depths


def _integers(value: Any) -> tuple[int, ...] | None:
    """An integer or a sequence of integers, NumPy's too; None for other values."""
    values = (value,) if isinstance(value, Integral) else value
    if not isinstance(values, Sequence | np.ndarray):
        return None
    if not all(isinstance(v, Integral) for v in values):
        return None
    return tuple(int(v) for v in values)


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Stochastic depth rates, rising linearly from 0 to that of the last block.

    Raises:
        ValueError: ``last`` is not a probability.
    """
    if not isinstance(last, Real) or not 0 <= last <= 1:
        raise ValueError(f'drop_path_rate={last!r} must lie in [0, 1].')
    return [last * i / max(depth - 1, 1) for i in range(depth)]
