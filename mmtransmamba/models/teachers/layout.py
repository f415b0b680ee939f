"""Locations of the modules that a teacher reads, in models of other libraries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.taps import LayerFeature

MAX_PREFIX_TOKENS = 16  # class, distillation and register tokens
MAX_STRIDE = 64

# Dotted attributes under which the libraries store their blocks, or stages of blocks.
BLOCK_ATTRIBUTES = (
    'blocks',
    'layers',
    'stages',
    'layer',
    'encoder.layer',
    'encoder.layers',
    'encoder.stages',
    'encoder.blocks',
    'model.layer',
)
STAGE_ATTRIBUTES = ('blocks', 'layers')


@dataclass(frozen=True)
class Layout:
    """The modules of a model whose outputs are read.

    Attributes:
        blocks: Modules whose outputs are the layers, in order.
        patch_conv: The convolution that creates the patch tokens; its output size is
            the token grid.
        final_norm: The norm before the head, None if there is none. One that a
            forward pass does not run is treated as none.
        has_cls: Whether the first of the extra tokens is a class token.
        channels_last: Whether 4-D outputs are ``[B, H, W, C]``, if the patch grid does
            not tell.
        head: The classifier, whose input is the final feature; None to take that of
            ``final_norm``.
        reroll: Of a Hiera, which keeps the tokens of a window together: the module that
            is or has ``reroll``, which brings them into raster order.
        places: Its second argument for each of ``blocks``: the number of the block, or
            of its stage.
    """

    blocks: tuple[nn.Module, ...]
    patch_conv: nn.Conv2d
    final_norm: nn.Module | None
    has_cls: bool
    channels_last: bool = False
    head: nn.Module | None = None
    reroll: nn.Module | None = None
    places: tuple[int, ...] = ()

    def in_raster_order(self, index: int, output: Tensor) -> Tensor:
        """The output of a block, with its tokens in raster order."""
        if self.reroll is None:
            return output
        reroll = getattr(self.reroll, 'reroll', self.reroll)
        return reroll(output, self.places[index])


def _get(root: nn.Module, path: str) -> nn.Module | None:
    module = root
    for name in path.split('.'):
        module = getattr(module, name, None)
        if module is None:
            return None
    return module


def _flatten_lists(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules, those in a list, which does not run as a whole, one by one."""
    found: list[nn.Module] = []
    for module in modules:
        inner = isinstance(module, nn.ModuleList)
        found.extend(_flatten_lists(module) if inner else (module,))
    return found


def _flatten_stages(modules: Iterable[nn.Module]) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    for module in _flatten_lists(modules):
        inner = next(
            (
                getattr(module, name)
                for name in STAGE_ATTRIBUTES
                if isinstance(
                    getattr(module, name, None), nn.ModuleList | nn.Sequential
                )
            ),
            (module,),
        )
        blocks.extend(inner)
    return blocks


def find_blocks(root: nn.Module, names: Sequence[str] | None) -> list[nn.Module]:
    """The blocks of a model: those named, or those at a usual place.

    Args:
        root: The backbone, without head.
        names: Dotted names of submodules of ``root``; None searches.

    Raises:
        ValueError: A name does not exist, or the search finds nothing.
    """
    if names is not None:
        modules = dict(root.named_modules())
        unknown = [name for name in names if name not in modules]
        if unknown or not names:
            raise ValueError(
                f'layers={list(names)}: {type(root).__name__} has no submodule '
                f'{unknown}. Its children are '
                f'{[name for name, _ in root.named_children()]}.'
            )
        return _flatten_lists(modules[name] for name in names)
    for path in BLOCK_ATTRIBUTES:
        found = _get(root, path)
        if isinstance(found, nn.ModuleList | nn.Sequential) and len(found):
            return _flatten_stages(found)
    raise ValueError(
        f'{type(root).__name__} keeps its blocks under none of '
        f'{", ".join(BLOCK_ATTRIBUTES)}. Name the submodules whose outputs are the '
        "layers with layers=['...', ...]; its children are "
        f'{[name for name, _ in root.named_children()]}.'
    )


def _find_reroll(
    root: nn.Module, blocks: Sequence[nn.Module]
) -> tuple[nn.Module | None, tuple[int, ...]]:
    """``Layout.reroll`` and ``Layout.places`` of timm's Hiera and of transformers'.

    Raises:
        ValueError: Modules are to be read whose order is not known.
    """
    for owner, name in ((root, 'blocks'), (_get(root, 'encoder'), 'stages')):
        reroll, parts = getattr(owner, 'reroll', None), getattr(owner, name, None)
        if reroll is None or parts is None:
            continue
        places = {
            module: place
            for place, part in enumerate(parts)
            for module in (part, *_flatten_stages([part]))
        }
        if any(block not in places for block in blocks):
            raise ValueError(
                f'layers: of a {type(root).__name__} only the {name} and the blocks in '
                'them can be read; the order of the tokens elsewhere is not known.'
            )
        owner = reroll if isinstance(reroll, nn.Module) else owner
        return owner, tuple(places[block] for block in blocks)
    return None, ()


def find_layout(
    root: nn.Module,
    layers: Sequence[str] | None,
    norm_names: Sequence[str],
    channels_last: bool = False,
    head: nn.Module | None = None,
) -> Layout:
    """Find the modules to read in a backbone.

    Args:
        root: The backbone, without head.
        layers: See :func:`find_blocks`.
        norm_names: Possible dotted names of the final norm; the first one that exists
            and is not an identity is used.
        channels_last, head: See :class:`Layout`.

    Raises:
        ValueError: There are no blocks or no convolution that creates patches, or the
            order of the tokens in a layer is not known.
    """
    convs = {n: m for n, m in root.named_modules() if isinstance(m, nn.Conv2d)}
    if not convs:
        raise ValueError(f'{type(root).__name__} has no convolution to make patches.')
    patch_conv = next(
        (m for n, m in convs.items() if 'patch_embed' in n and n.endswith('proj')),
        next((m for n, m in convs.items() if 'patch' in n), next(iter(convs.values()))),
    )
    norms = (_get(root, name) for name in norm_names)
    final_norm = next((n for n in norms if n and not isinstance(n, nn.Identity)), None)
    has_cls = any(
        name.split('.')[-1] in ('cls_token', 'class_embedding')
        for name, _ in root.named_parameters()
    )
    blocks = find_blocks(root, layers)
    reroll, places = _find_reroll(root, blocks)
    return Layout(
        blocks=tuple(blocks),
        patch_conv=patch_conv,
        final_norm=final_norm,
        has_cls=has_cls,
        channels_last=channels_last,
        head=head,
        reroll=reroll,
        places=places,
    )


@contextmanager
def recorded_outputs(layout: Layout, batch: int) -> Iterator[dict[nn.Module, Tensor]]:
    """Collect the outputs of a layout's modules, and the head's input.

    Hooks exist only during the block, so copies of the model never share a recording.

    Args:
        layout: The modules.
        batch: Number of images. Of several outputs the first with as many rows is kept:
            TNT's blocks also have one with a row for each patch.
    """
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _, output) -> None:
        several = (output,) if isinstance(output, Tensor) else output
        tensors = [each for each in several if isinstance(each, Tensor)]
        outputs[module] = next((t for t in tensors if len(t) == batch), tensors[0])

    def keep_input(module: nn.Module, inputs: tuple) -> None:
        outputs[module] = inputs[0]

    modules = [*layout.blocks, layout.patch_conv]
    if layout.final_norm is not None:
        modules.append(layout.final_norm)
    handles = [module.register_forward_hook(keep) for module in modules]
    if layout.head is not None:
        handles.append(layout.head.register_forward_pre_hook(keep_input))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def native_size(config: Any) -> tuple[int, int]:
    """Height and width of the images of a model of transformers; 224 if it has none."""
    size = getattr(config, 'image_size', 224)
    return (size, size) if isinstance(size, int) else tuple(size)


def interpolation(native: tuple[int, int], size: tuple[int, int]) -> dict[str, bool]:
    """The argument by which a model of transformers resamples its positions.

    Args:
        native: Height and width for which it has positions.
        size: Those of the images.

    Raises:
        ValueError: It would resample them wrongly: transformers takes every grid of
            positions for a square one.
    """
    if size == native:
        return {}
    if native[0] != native[1]:
        raise ValueError(
            f'images of {size[0]} x {size[1]}: the model has positions for '
            f'{native[0]} x {native[1]}, which transformers cannot resample because '
            'they are not square; resize the images'
        )
    return {'interpolate_pos_encoding': True}


def split_tokens(
    output: Tensor, patch_grid: tuple[int, int], layout: Layout
) -> LayerFeature:
    """Split a block's output into patch tokens on their grid and the class token.

    Args:
        output: Tokens ``[B, T, C]`` or a feature map of 4 dimensions. Tokens may
            have extra ones in front (class, distillation, register), and may have
            been merged by a power of two since the patch embedding.
        patch_grid: Rows and columns of the patch embedding.
        layout: Layout of the model.

    Returns:
        Float32 features.

    Raises:
        ValueError: The tokens cannot be arranged on a grid.
    """
    output = output.float()
    if output.ndim == 4:
        if not _channels_last(output, patch_grid, layout):
            output = output.permute(0, 2, 3, 1)
        return LayerFeature(output.flatten(1, 2), (output.shape[1], output.shape[2]))
    if output.ndim == 3:
        stride = 1
        while stride <= MAX_STRIDE:
            grid = (-(-patch_grid[0] // stride), -(-patch_grid[1] // stride))
            extra = output.shape[1] - grid[0] * grid[1]
            # Models that merge tokens have at most a class token as extra token.
            if 0 <= extra <= (MAX_PREFIX_TOKENS if stride == 1 else 1):
                cls = output[:, 0] if extra and layout.has_cls else None
                return LayerFeature(output[:, extra:], grid, cls)
            if extra > 0:
                break
            stride *= 2
    raise ValueError(
        f'An output of shape {tuple(output.shape)} cannot be laid out on the patch '
        f'grid {patch_grid[0]}x{patch_grid[1]} or on a coarser one. Name other '
        "submodules with layers=['...', ...]."
    )


def _channels_last(output: Tensor, patch_grid: tuple[int, int], layout: Layout) -> bool:
    """Whether a map is ``[B, H, W, C]``; a model may have maps of both kinds."""

    def fits(grid: Sequence[int]) -> bool:
        """Whether it is the patch grid, merged by a power of two."""
        strides = (2**i for i in range(MAX_STRIDE.bit_length()))
        return any(
            all(-(-n // s) == m for n, m in zip(patch_grid, grid, strict=True))
            for s in strides
        )

    first, last = fits(output.shape[1:3]), fits(output.shape[2:])
    return layout.channels_last if first == last else first


def pooled_feature(output: Tensor, last: LayerFeature, layout: Layout) -> Tensor:
    """The model's final feature ``[B, C]`` in float32.

    Args:
        output: Output of the final norm, or of the last block without one. A norm
            after pooling returns the feature itself; otherwise it is the class token,
            or the mean of the patch tokens without one.
        last: The last layer's feature, for the grid.
        layout: Layout of the model.
    """
    if output.ndim == 2:
        return output.float()
    if output.ndim == 4:
        rows_first = _channels_last(output, last.grid, layout)
        return output.float().mean((1, 2) if rows_first else (2, 3))
    patches = last.grid[0] * last.grid[1]
    # A class token may come after the blocks.
    if layout.has_cls and output.shape[1] > patches:
        return output[:, 0].float()
    return output[:, -patches:].float().mean(1)


def in_channels(root: nn.Module) -> int:
    """Number of channels of a backbone's images: those of its first convolution."""
    return next(m for m in root.modules() if isinstance(m, nn.Conv2d)).in_channels


def probe_image(channels: int, size: tuple[int, int], like: Tensor) -> Tensor:
    """A grey image ``[1, channels, *size]`` on the scale 0..255."""
    return torch.full((1, channels, *size), 127.5, device=like.device)
